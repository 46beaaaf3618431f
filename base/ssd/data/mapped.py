"""Named arrays in one file that is read by mapping it: every process on a host shares the pages, and nothing is copied.

The file is a header of one JSON line, then the arrays, each from a multiple of 64 bytes on, then a line with the CRC-32
of all bytes before it. The checksum finds damage. It is no protection against another user: ask ssd.trust for that.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAMAGED", "checksum_of", "map_arrays", "write_arrays"]

MAGIC = "ssd arrays 1"
ALIGNMENT = 64
CHECKSUM = b"\ncrc32 %08x\n"
TRAILER = len(CHECKSUM % 0)
BLOCK = 1 << 20
DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, RuntimeError, OverflowError, MemoryError)
"""The errors that `checksum_of` and `map_arrays` raise for a file that is no sound file of arrays."""


def write_arrays(target: Path, arrays: Mapping[str, NDArray[Any]]) -> int:
    """Write arrays of any shape, with any dtype of plain numbers, to `target`. Returns the file's checksum.

    The file appears whole or not at all.
    The file is written under another name in the same folder and renamed. So several processes may write it at the same
    time, and none of them reads half of it. Raises OSError where it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            checksum = _write(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return checksum


def _write(file: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> int:
    table, place = {}, 0
    for name, array in arrays.items():
        table[name] = (array.dtype.str, array.shape, place)
        place += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    head = json.dumps({"format": MAGIC, "arrays": table}).encode()
    head += b" " * (-(len(head) + 1) % ALIGNMENT) + b"\n"
    file.write(head)
    checksum = zlib.crc32(head)
    for array in arrays.values():
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for part in (content, b"\0" * (-len(content) % ALIGNMENT)):
            file.write(part)
            checksum = zlib.crc32(part, checksum)
    file.write(CHECKSUM % checksum)
    return checksum


def checksum_of(file: BinaryIO) -> int:
    """The checksum of an open file of arrays, compared with the one that it holds. Raises ValueError where they differ.

    The file is read in small parts, so it takes no memory.
    """
    left = os.fstat(file.fileno()).st_size - TRAILER
    if left <= 0:
        raise ValueError("it is cut short")
    checksum = 0
    file.seek(0)
    while left and (block := file.read(min(BLOCK, left))):
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    if file.read() != CHECKSUM % checksum:
        raise ValueError("its checksum is wrong")
    return checksum


def map_arrays(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """The arrays of an open file, with any shape and dtype, mapped and read-only.

    They stay when the file is closed, renamed over or removed.

    Call `checksum_of` before. Raises one of DAMAGED for what is no file of arrays.
    """
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    end = content.find(b"\n") + 1
    head = json.loads(content[:end])
    if head["format"] != MAGIC:
        raise ValueError("it has another format")
    arrays = {}
    for name, (kind, shape, place) in head["arrays"].items():
        dtype = np.dtype(kind)
        if dtype.hasobject:
            raise ValueError("it holds objects")
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(content, dtype, count, end + place).reshape(shape)
    return arrays
