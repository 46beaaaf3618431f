"""Many strings or ids as two flat arrays: the bytes of all values, and the end of each value.

A numpy array of strings reserves the length of the longest string for each string. So a single name of 5,000 characters
among 100,000 names would cost gigabytes. Ids are stored as JSON text, which is exact for text and for integers of any
size.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Id", "Ids", "Packed", "Texts"]

Id = int | str
"""The id of an image or a category in an annotation file: an integer of any size, or text."""
Value = TypeVar("Value")
Self = TypeVar("Self", bound="Packed")  # typing.Self exists from Python 3.11 on


class Packed(ABC, Generic[Value]):
    """n values in a flat array, read-only. content: (bytes,) uint8. ends: (n,) int64, where each value ends in it."""

    def __init__(self, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.content, self.ends = content, ends

    @classmethod
    def of(cls: type[Self], values: Iterable) -> Self:
        """Pack values, in their order."""
        pieces = [cls._packed(value).encode("utf-8", "surrogatepass") for value in values]
        ends = np.cumsum(np.array([len(piece) for piece in pieces], np.int64), dtype=np.int64)
        return cls(np.frombuffer(b"".join(pieces), np.uint8), ends)

    @staticmethod
    @abstractmethod
    def _packed(value: Value) -> str:
        """A value's text."""

    @staticmethod
    @abstractmethod
    def _unpacked(text: str) -> Value:
        """The value of a text. Raises ValueError where it is the text of none."""

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int | np.integer) -> Value: ...

    @overload
    def __getitem__(self: Self, place: NDArray[np.int64]) -> Self: ...

    def __getitem__(self: Self, place: int | np.integer | NDArray[np.int64]) -> Value | Self:
        """One value, or for an array (m,) int64 of places those m values, packed."""
        if isinstance(place, np.ndarray):
            return type(self).of(self[int(one)] for one in place)
        at = range(len(self))[int(place)]  # a negative place counts from the end, and IndexError is raised, as in lists
        start = int(self.ends[at - 1]) if at else 0
        piece = self.content[start : int(self.ends[at])].tobytes()
        return self._unpacked(piece.decode("utf-8", "surrogatepass"))

    def __iter__(self) -> Iterator[Value]:
        return (self[place] for place in range(len(self)))

    def tolist(self) -> list[Value]:
        """All values, unpacked."""
        return list(self)

    def require_sound(self) -> None:
        """Raise ValueError unless every value can be read. Call it for arrays that come from a file."""
        content, ends = self.content, self.ends
        if (content.dtype, content.ndim, ends.dtype, ends.ndim) != (np.uint8, 1, np.int64, 1):
            raise ValueError("strings are not stored as bytes and their ends")
        edges = np.concatenate([[0], self.ends])
        if (np.diff(edges) < 0).any() or edges[-1] != len(self.content):
            raise ValueError("the ends of strings are out of order, or beyond their bytes")
        self.tolist()


class Texts(Packed[str]):
    """Packed strings, such as file names and names of categories."""

    @staticmethod
    def _packed(value: str) -> str:
        return value

    @staticmethod
    def _unpacked(text: str) -> str:
        return text


class Ids(Packed[Id]):
    """Packed ids, each as JSON text."""

    @staticmethod
    def _packed(value: Id) -> str:
        return str(value) if type(value) is int else json.dumps(value)  # the same text, in a tenth of the time

    @staticmethod
    def _unpacked(text: str) -> Id:
        value = json.loads(text)
        if type(value) not in (int, str):
            raise ValueError(f"{text[:40]} is no id: neither an integer nor text")
        return value
