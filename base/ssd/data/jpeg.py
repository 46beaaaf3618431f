"""What a JPEG file claims, read before anything is decoded: a file of a few kB can ask for gigabytes, or for minutes.

The size stands in the frame header, and memory follows from it. A decoder goes over the whole picture once for each
scan, so time follows from their number. Both are read by stepping from marker to marker, as decoders do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MAX_PIXELS", "MAX_SCANS", "START", "Frame", "read_frame", "why_too_much"]

MAX_PIXELS = 89_478_485
"""Most pixels of a picture that is decoded: 256 MiB as RGB. Pillow warns from here on."""
MAX_SCANS = 100
"""Most scans of a JPEG file that is decoded. Encoders write about ten."""

START = b"\xff\xd8\xff"
"""How a JPEG file begins."""
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""A marker; FF 00 is a byte of data, FF FF is padding, and FF D0 to D7 stand within data."""
TEM, SOI, EOI, SOS = 0x01, 0xD8, 0xD9, 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Codes of frame headers, one for each way to code a picture."""


@dataclass(frozen=True)
class Frame:
    """width, height: in pixels, as stored. scans: how many there are; not counted beyond MAX_SCANS + 1."""

    width: int
    height: int
    scans: int


def read_frame(content: bytes) -> Frame | None:
    """What the file claims; None where it is no JPEG file, or ends before its frame header."""
    if not content.startswith(START):
        return None
    size, scans, place = None, 0, 2
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
        scans += code == SOS
        place += int.from_bytes(content[place : place + 2], "big")
    return None if size is None else Frame(*size, scans)


def why_too_much(frame: Frame) -> str:
    """Why a picture is not decoded, in words; "" where it is small enough."""
    if frame.width * frame.height > MAX_PIXELS:
        return f"claims {frame.width} x {frame.height} pixels, and at most {MAX_PIXELS:,} are decoded"
    return f"has more than {MAX_SCANS} scans, which no encoder writes" if frame.scans > MAX_SCANS else ""
