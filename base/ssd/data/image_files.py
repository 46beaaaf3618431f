"""Checks image files without decoding them: does the file exist, is it a JPEG, has it the right size, is it complete?

COCO's 5,000 validation images are checked in seconds. So a run does not meet a bad file only at its first evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from ssd.data.decode import decode
from ssd.data.jpeg import START, read_frame, why_too_much
from ssd.errors import DataError

__all__ = ["MISSING", "image_fault", "image_faults"]

MISSING = "missing"
"""What `image_fault` says of a file that does not exist."""
END = b"\xff\xd9"
"""How a JPEG file ends."""
HEAD = 2**16
"""The header of nearly every file lies within this number of bytes from its start."""
ORIENTATION, TURNED = 0x0112, range(5, 9)
"""The EXIF tag for how the camera was held, and the values of it that exchange width and height."""


def image_fault(path: Path, size: tuple[int, int], decode_all: bool = False) -> str:
    """The reason why an image file cannot be used, as text. "" for a sound file, MISSING where there is no file.

    size: width and height in pixels according to the annotation file. The header and both ends of the file are read.
    The file is decoded where decode_all is true. It is also decoded where its end is not that of a JPEG file, because
    some writers append bytes to a sound file.
    """
    try:
        if not os.path.isfile(path):  # also False for a path that the file system refuses: too long, or with a NUL
            return "a link that leads to nothing" if os.path.islink(path) else MISSING
        with path.open("rb") as file:
            head = file.read(HEAD)
            frame = read_frame(head) or (read_frame(head + file.read()) if head.startswith(START) else None)
            file.seek(-min(2, file.seek(0, os.SEEK_END)), os.SEEK_END)
            whole = file.read(2) == END
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if frame is None:
        return _other_kind(path)
    if (frame.width, frame.height) != size:
        return _other_size(path, (frame.width, frame.height), size)
    if reason := why_too_much(frame):
        return reason
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
    """`image_fault` of many files in `folder`, in the order of `names`. num_workers: threads, which share no state."""

    def look(name: str, size: Sequence[int]) -> str:
        return image_fault(folder / name, (size[0], size[1]), decode_all)

    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="ssd-look") as pool:
        return list(pool.map(look, names, sizes))


def _other_kind(path: Path) -> str:
    """The fault of a file that is not a JPEG: which other kind of picture it is, if it is one."""
    try:
        with Image.open(path) as image:
            kind = image.format
    except Exception:  # Pillow raises errors of many classes for a damaged file; each means that the kind is unknown
        kind = None
    if kind in (None, "JPEG", "MPO"):
        return "not a JPEG file"
    return f"a {kind} file, not JPEG: convert it"


def _other_size(path: Path, found: tuple[int, int], size: tuple[int, int]) -> str:
    """The fault of a file whose size is `found` and not the `size` of the annotation file."""
    said = f"has {found[0]}x{found[1]} pixels, its annotation file says {size[0]}x{size[1]}"
    if found != size[::-1]:
        return said
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises errors of many classes for damaged EXIF data; it then tells no orientation
        orientation = None
    if orientation not in TURNED:
        return f"{said}: width and height are exchanged"
    return (
        f"{said}: it is turned by its EXIF orientation {orientation}. Annotations here are of the pixels as they are "
        "stored: turn the pixels and drop the tag, or annotate the stored ones"
    )
