"""Decoded training images in one file that every process and run maps: an image is decoded once, and then only cropped.

The file is a header, an entry for each image, and the pixels (h, w, 3) uint8 of one image after the other. An entry
says what the JPEG file looked like when it was decoded (size, times, inode) and has the CRC-32 of the pixels. An image
is taken from here while its JPEG file still looks so, and after its checksum was found right once in this process. All
others are decoded, and written. So a file of any age and after any crash is safe to use, and gives the same bits.

An entry is cleared before its pixels are written and is written after them. A reader looks at it before and after it
copies a crop: if it changed meanwhile, the image is decoded. What another user could have written is refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import time
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssd.data.decode import crop_and_resize, decode
from ssd.data.index import Index
from ssd.errors import MachineError
from ssd.text import counted
from ssd.trust import make_folder, why_path_untrusted

__all__ = ["DecodedCache", "file_system", "planned", "require_room"]

FORMAT = 1
ENTRY = np.dtype(
    [
        ("size", "<i8"),
        ("modified", "<i8"),
        ("changed", "<i8"),
        ("inode", "<u8"),
        ("checksum", "<u4"),
        ("written", "<u4"),
    ]
)
"""What the JPEG file looked like, the CRC-32 of its pixels, and 1 where they are written. Times in ns."""
PAGE = 4096
FRESH_NS = 2 * 10**9
"""A JPEG file that changed so shortly before it was decoded is not kept: it could change again within a tick."""
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
MOUNTS = Path("/proc/self/mountinfo")

Rectangle = tuple[int, int, int, int]


class DecodedCache:
    """The decoded images in `rows` (n,) int64 of an index, whose JPEG files lie in the folder `images`.

    folder: where the file is, and is made where it is missing. It belongs to this annotation file and this folder of
    images. Raises MachineError where the disk has not the room for it, where others could have written it, and where it
    cannot be made.

    Threads: any number of threads and processes may call `load` at the same time.
    """

    def __init__(self, folder: Path, index: Index, rows: NDArray[np.int64], images: Path) -> None:
        self.path = _file(folder, index, images)
        self.sizes = index.sizes[rows]
        edges = np.concatenate([[0], np.cumsum(3 * self.sizes.prod(1))])
        self._pixels_at = PAGE + -(-len(rows) * ENTRY.itemsize // PAGE) * PAGE
        self._edges = edges + self._pixels_at
        self._writable = True
        self._sound: set[int] = set()
        try:
            make_folder(folder)
            self._handle = self._open(index)
            self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise MachineError(f"decoded_cache: {self.path}: {error.strerror}") from error

    def _open(self, index: Index) -> int:
        """The file, of its whole length; the first process that opens it makes it."""
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            handle, self._writable = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), False
        if reason := why_path_untrusted(self.path):
            os.close(handle)
            raise MachineError(f"decoded_cache is not used: {reason}. Let nobody else write there, or name another one")
        head = json.dumps(
            {"format": f"ssd decoded {FORMAT}", "images": len(self.sizes), "index": index.sha256}
        ).encode()
        head = head.ljust(PAGE)
        fcntl.flock(handle, fcntl.LOCK_EX if self._writable else fcntl.LOCK_SH)
        try:
            total, status = int(self._edges[-1]), os.fstat(handle)
            if self._writable:
                require_room(self.path, total)
                if status.st_size == 0:
                    os.ftruncate(handle, total)
                    _write(handle, head, 0)
            if os.fstat(handle).st_size != total or os.pread(handle, PAGE, 0) != head:
                raise MachineError(f"decoded_cache: {self.path} is damaged or was not made whole: remove it")
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
        return handle

    @property
    def words(self) -> str:
        """Its size and what is in it, for people."""
        entries = np.frombuffer(self._map, ENTRY, len(self.sizes), PAGE)
        there = int(np.count_nonzero(entries["written"]))
        size = f"{int(self._edges[-1]) / 1e9:.2f} GB"
        read = "" if self._writable else "; it cannot be written, so no more are added"
        return f"decoded_cache: {self.path}, {size} for {counted(len(self.sizes), 'image')}: {there:,} are in it{read}"

    def load(self, number: int, path: Path, image_id: object, out: Tensor, rectangle: Rectangle | None) -> None:
        """Crop image `number` and resize it into out (300, 300, 3) uint8, as `ssd.data.decode.load_image` does.

        number: its place in `rows`. path: its JPEG file. Raises DataError for a file that cannot be decoded, and
        MachineError where the disk refuses what is written.
        """
        width, height = self.sizes[number].tolist()
        left, top, right, bottom = rectangle or (0, 0, width, height)
        seen = _look(path)
        if seen is not None and (pixels := self._pixels(number, seen)) is not None:
            before = self._entry(number)
            crop = pixels[top:bottom, left:right].copy()  # also of a whole image: the entry is looked at after it
            if self._entry(number) == before and _is_of(before, seen):
                crop_and_resize(crop, (0, 0, right - left, bottom - top), out)
                return
        decoded = decode(path, image_id, (width, height)).permute(1, 2, 0).numpy()
        crop_and_resize(decoded, (left, top, right, bottom), out)
        if seen is not None:
            self._keep(number, seen, decoded)

    def fill(self, number: int, path: Path, image_id: object) -> None:
        """Decode image `number` where it is not here yet, or is damaged. Raises what `load` raises."""
        seen = _look(path)
        if seen is not None and self._pixels(number, seen) is not None:
            return
        width, height = self.sizes[number].tolist()
        decoded = decode(path, image_id, (width, height)).permute(1, 2, 0).numpy()
        if seen is not None:
            self._keep(number, seen, decoded)

    def _entry(self, number: int) -> bytes:
        start = PAGE + number * ENTRY.itemsize
        return self._map[start : start + ENTRY.itemsize]

    def _pixels(self, number: int, seen: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """The mapped pixels (h, w, 3) of an image whose file looks as `seen`; None where they are not there, or wrong.

        The checksum is computed at the first use in this process.
        """
        entry = self._entry(number)
        if not _is_of(entry, seen):
            return None
        width, height = self.sizes[number].tolist()
        start = int(self._edges[number])
        pixels = np.frombuffer(self._map, np.uint8, 3 * width * height, start).reshape(height, width, 3)
        if number not in self._sound:
            if zlib.crc32(pixels.data) != int(np.frombuffer(entry, ENTRY)["checksum"][0]):
                return None
            self._sound.add(number)
        return pixels

    def _keep(self, number: int, seen: tuple[int, ...], pixels: NDArray[np.uint8]) -> None:
        if not self._writable or max(seen[1:3]) >= time.time_ns() - FRESH_NS:
            return
        content = np.ascontiguousarray(pixels)
        entry = np.array([(*seen, zlib.crc32(content.data), 1)], ENTRY).tobytes()
        place = PAGE + number * ENTRY.itemsize
        try:
            _write(self._handle, bytes(ENTRY.itemsize), place)
            _write(self._handle, content.data.cast("B"), int(self._edges[number]))
            _write(self._handle, entry, place)
        except OSError as error:
            raise MachineError(f"decoded_cache: {self.path} cannot be written ({error.strerror})") from error


def planned(folder: Path, index: Index, rows: NDArray[np.int64], images: Path) -> str:
    """What a `DecodedCache` of these arguments takes, in words. Nothing is made.

    rows: (n,) int64, the images in it. Raises MachineError as `require_room` does.
    """
    path = _file(folder, index, images)
    return f"{path}: {require_room(path, int(3 * index.sizes[rows].prod(1).sum()))}"


def require_room(path: Path, total: int) -> str:
    """The size of a cache at `path` of `total` bytes, in words. Raises MachineError where the disk lacks what is left.

    Blocks that the file has already do not count.
    """
    folder = path
    while not folder.is_dir():
        folder = folder.parent
    held = path.stat().st_blocks * 512 if path.is_file() else 0
    free = shutil.disk_usage(folder).free
    words = f"{total / 1e9:.2f} GB in all, {held / 1e9:.2f} GB are there, {free / 1e9:.2f} GB are free"
    if free < total - held:
        raise MachineError(f"decoded_cache: {path}: {words}: free some, or name a folder of another disk")
    return words


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder, or will: "ext4", "tmpfs", ...; "unknown" where nothing says."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        device = os.stat(folder).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0]
    except (OSError, IndexError):
        pass
    return "unknown"


def _file(folder: Path, index: Index, images: Path) -> Path:
    told = hashlib.sha256(f"{index.sha256} {os.path.realpath(images)}".encode("utf-8", "surrogateescape")).hexdigest()
    return folder / f"decoded-v{FORMAT}-{told[:32]}.pixels"


def _look(path: Path) -> tuple[int, ...] | None:
    """Size, times and inode of a file: the first fields of an entry. None where there is none, as decoding will say."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_of(entry: bytes, seen: tuple[int, ...]) -> bool:
    """Whether an entry is written, and is of a file that looks as `seen`."""
    size, modified, changed, inode, _, written = np.frombuffer(entry, ENTRY)[0].item()
    return bool(written == 1 and (size, modified, changed, inode) == seen)


def _write(handle: int, content: bytes | memoryview, place: int) -> None:
    left = memoryview(content)
    while left:
        count = os.pwrite(handle, left, place)
        left, place = left[count:], place + count
