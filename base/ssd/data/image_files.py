"""What can be known of an image file without decoding it: whether it is there, is a JPEG, has its size, and is whole.

COCO's 5,000 validation images are looked at in seconds, so that a run need not meet a bad one at its first evaluation.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ssd.data.decode import decode
from ssd.errors import DataError

__all__ = ["MISSING", "image_fault", "image_faults"]

MISSING = "missing"
START, END = b"\xff\xd8", b"\xff\xd9"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame's header, which holds the size. The three left out mean tables and an extension (ITU-T T.81)."""
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that no length follows."""
ORIENTATION, TURNED = 0x0112, range(5, 9)
"""The EXIF tag that says how a camera was held, and its values that exchange width and height."""


def image_fault(path: Path, size: tuple[int, int], decode_all: bool = False) -> str:
    """What makes an image file unfit, in words; "" where nothing does, and MISSING where there is no such file.

    size: width and height in pixels by the annotation file. The header and both ends of the file are looked at. It is
    decoded only where its end is not that of a JPEG file, as some writers append bytes, or where `decode_all` asks.
    """
    try:
        if not os.path.isfile(path):  # False for whatever a file system refuses: a name too long, a NUL
            return "a link that leads to nothing" if os.path.islink(path) else MISSING
        with path.open("rb") as file:
            found = _jpeg_size(file)
            file.seek(-min(2, file.seek(0, os.SEEK_END)), os.SEEK_END)
            whole = file.read(2) == END
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found is None:
        return _other_kind(path)
    if found != size:
        return _other_size(path, found, size)
    if whole and not decode_all:
        return ""
    try:
        decode(path, path.name, size)
    except DataError as error:
        return str(error)
    return ""


def image_faults(
    folder: Path, names: Iterable[str], sizes: Iterable[Sequence[int]], num_workers: int, decode_all: bool = False
) -> list[str]:
    """`image_fault` of many files in `folder`, in their order."""

    def look(name: str, size: Sequence[int]) -> str:
        return image_fault(folder / name, (size[0], size[1]), decode_all)

    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="ssd-look") as pool:
        return list(pool.map(look, names, sizes))


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height by the header of a JPEG file; None where it has no such header."""
    if file.read(2) != START:
        return None
    while True:
        if file.read(1) != b"\xff":
            return None
        marker = b"\xff"
        while marker == b"\xff":  # a marker may begin with any number of these
            marker = file.read(1)
        code = marker[0] if marker else 0xDA
        if code in ALONE:
            continue
        segment = file.read(7)  # length (2 bytes), precision (1), height (2), width (2)
        if code in (0xD9, 0xDA) or len(segment) < 2:  # the end, or pixels: the header is over
            return None
        if code in FRAMES:
            return (*reversed(struct.unpack(">HH", segment[3:])),) if len(segment) == 7 else None
        file.seek(struct.unpack(">H", segment[:2])[0] - len(segment), os.SEEK_CUR)


def _other_kind(path: Path) -> str:
    """What a file is that is no JPEG. Whatever a picture library raises is the file's fault."""
    try:
        with Image.open(path) as image:
            kind = image.format
    except Exception:
        kind = None
    if kind in (None, "JPEG", "MPO"):
        return "not a JPEG file"
    return f"a {kind} file, not JPEG: convert it"


def _other_size(path: Path, found: tuple[int, int], size: tuple[int, int]) -> str:
    """How the size of a file differs from the one by its annotations."""
    said = f"has {found[0]}x{found[1]} pixels, its annotation file says {size[0]}x{size[1]}"
    if found != size[::-1]:
        return said
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(ORIENTATION)
    except Exception:
        orientation = None
    if orientation not in TURNED:
        return f"{said}: width and height are exchanged"
    return (
        f"{said}: it is turned by its EXIF orientation {orientation}. Annotations here are of the pixels as they are "
        "stored: turn the pixels and drop the tag, or annotate the stored ones"
    )
