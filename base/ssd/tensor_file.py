"""Files of torch.save: read without running any code of theirs, and whatever is wrong with one is a DataError."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import torch

from ssd.errors import DataError
from ssd.text import shortened, visible

__all__ = ["read_tensors"]

ZIP, PICKLE = b"PK\x03\x04", b"\x80\x02"
"""How a file of torch.save begins: a zip archive since torch 1.6, a pickle of protocol 2 before."""


def read_tensors(content: bytes, what: str, remedy: str) -> Any:
    """What the content of a torch.save file holds: tensors on the CPU and plain containers, nothing else.

    Raises DataError, "`what` is ...: `remedy`", where the content is damaged, cut short, something else than such a
    file, or holds Python objects. Where a file was damaged decides which exception torch, zipfile or pickle raises, so
    every Exception is taken for damage (AssertionError, struct.error, IndexError and TypeError were seen). torch does
    not look at the checksums of a zip archive; they are looked at here.
    """
    if not content.startswith((ZIP, PICKLE)):
        raise DataError(f"{what} is not a file written by torch.save ({len(content):,} bytes): {remedy}")
    try:
        if content.startswith(ZIP) and (member := zipfile.ZipFile(io.BytesIO(content)).testzip()):
            raise zipfile.BadZipFile(f"checksum of {member} is wrong")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise DataError(f"{what} is damaged or not a file written by torch.save: {remedy}") from error
        raise DataError(
            f"{what} holds Python objects, not only tensors and plain values, and is not opened: {remedy}"
        ) from error
    except Exception as error:  # of any class: see above
        said = shortened(visible(f"{type(error).__name__}: {error}".partition("\n")[0]))
        raise DataError(f"{what} is damaged or cut short ({len(content):,} bytes; {said}): {remedy}") from error
