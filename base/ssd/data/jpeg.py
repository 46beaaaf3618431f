"""Reads a JPEG file's size and number of scans before it is decoded.

A file of a few kB can make a decoder take gigabytes, or minutes. The memory depends on the size, which the frame header
states. The time depends on the number of scans, because a decoder processes the whole picture once for each scan. Both
are found by going from marker to marker, as decoders do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MAX_PIXELS", "MAX_SCANS", "START", "Frame", "read_frame", "why_too_much"]

MAX_PIXELS = 89_478_485
"""A picture with more pixels is not decoded. So many pixels take 256 MiB as RGB. Pillow warns above the same number."""
MAX_SCANS = 100
"""A JPEG file with more scans is not decoded. Encoders write about ten scans."""

START = b"\xff\xd8\xff"
"""How a JPEG file begins."""
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""A marker. FF 00 is a byte of data, FF FF is padding, and FF D0 to FF D7 occur within data, so they are left out."""
TEM, SOI, EOI, SOS = 0x01, 0xD8, 0xD9, 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The codes of frame headers. There is one for each way to encode a picture."""
SEQUENTIAL = (0xC0, 0xC1)
"""The codes of frames whose scans each hold whole components, Huffman-coded."""


@dataclass(frozen=True)
class Frame:
    """What a file claims. width, height: in pixels, as stored. scans: those to decode, counted up to MAX_SCANS + 1."""

    width: int
    height: int
    scans: int


def read_frame(content: bytes | memoryview) -> Frame | None:
    """What the file with this content claims. None where it is not a JPEG file, or ends before its frame header.

    A file of one pass is read up to its first scan: the frame is sequential, and the scan has all of its components.
    libjpeg decodes no second scan of such a file: it refuses it at once. Nearly every file is one, and looking for
    markers in its data takes longer than all else that Python does with a file.
    """
    if content[:3] != START:
        return None
    size, scans, place, one_pass = None, 0, 2, None
    while scans <= MAX_SCANS and (found := MARKER.search(content, place)):
        code, place = content[found.end() - 1], found.end()
        if code == EOI:
            break
        if code in (TEM, SOI):
            continue
        if code in FRAMES and size is None and len(content) >= place + 7:
            size = (
                int.from_bytes(content[place + 5 : place + 7], "big"),
                int.from_bytes(content[place + 3 : place + 5], "big"),
            )
            one_pass = bytes(content[place + 7 : place + 8]) if code in SEQUENTIAL else None
        if code == SOS:
            scans += 1
            if one_pass and content[place + 2 : place + 3] == one_pass:
                break
        place += int.from_bytes(content[place : place + 2], "big")
    return None if size is None else Frame(*size, scans)


def why_too_much(frame: Frame) -> str:
    """The reason why a picture is not decoded, as text. "" where it is small enough."""
    if frame.width * frame.height > MAX_PIXELS:
        return f"claims {frame.width} x {frame.height} pixels, and at most {MAX_PIXELS:,} are decoded"
    return f"has more than {MAX_SCANS} scans, which no encoder writes" if frame.scans > MAX_SCANS else ""
