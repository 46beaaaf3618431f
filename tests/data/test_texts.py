"""Strings and ids in flat arrays: exact, of any length, and refused when a file has spoilt them."""

from __future__ import annotations

import numpy as np
import pytest

from ssd.data.texts import Ids, Texts


def test_texts_come_back_as_they_were() -> None:
    names = ["a.jpg", "", "tree_é.jpg", "x" * 5000, "a\nb", "\ud800"]
    packed = Texts.of(names)
    assert packed.tolist() == names
    assert packed[-1] == names[-1]
    assert packed[np.array([3, 0])].tolist() == [names[3], names[0]]
    with pytest.raises(IndexError):
        packed[6]


def test_one_long_name_costs_its_own_bytes_alone() -> None:
    """numpy's strings would take 20 kB for each of the thousand."""
    packed = Texts.of(["a" * 5000] + ["b.jpg"] * 999)
    assert packed.content.nbytes == 5000 + 999 * 5
    assert packed.ends.nbytes == 8 * 1000


def test_ids_are_exact() -> None:
    ids = [7, -1, 2**53 + 1, 10**40, "7", "a b", ""]
    packed = Ids.of(ids)
    assert packed.tolist() == ids
    assert [type(one) for one in packed] == [int] * 4 + [str] * 3


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        (b"ab", [1]),
        (b"ab", [2, 1]),
        (b"ab", [1, 3]),
        (b"ab", [-1, 2]),
        (b"\xff", [1]),
        (b"1.5", [3]),
        (b"true", [4]),
        (b"[1]", [3]),
        (b"{", [1]),
    ],
)
def test_spoilt_arrays_are_refused(content: bytes, ends: list[int]) -> None:
    with pytest.raises(ValueError, match=r"ends of strings|decode|is no id|Expecting property"):
        Ids(np.frombuffer(content, np.uint8), np.array(ends, np.int64)).require_sound()


def test_arrays_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="not stored as bytes"):
        Texts(np.zeros(2, np.int64), np.array([2])).require_sound()  # type: ignore[arg-type]
