"""How fast this host reads image files that it does not hold in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DiskRead", "read_files"]

AT_ONCE = 64
"""Files that the threads are given between two looks at the clock."""


@dataclass(frozen=True)
class DiskRead:
    """What was read. files: their number. bytes_per_s: together. mean_bytes: of a file.

    in_memory: the share 0..1 of the files that the system held in memory although it was asked to drop them: their rate
    is not the disk's. None where the file system does not tell.
    """

    files: int
    bytes_per_s: float
    mean_bytes: float
    in_memory: float | None


def read_files(paths: Sequence[Path], threads: int, seconds: float) -> DiskRead:
    """Read the files once, with as many threads as a loader has, for at most about `seconds`.

    First the system is asked to drop them from memory, which needs no rights. Raises OSError for a file that cannot be
    read, and ValueError where there is none.
    """
    if not paths:
        raise ValueError("there is no file to read")
    with ThreadPoolExecutor(threads, thread_name_prefix="ssd-read") as pool:
        held = [one for one in pool.map(_drop, paths) if one is not None]
        sizes: list[int] = []
        begun = time.perf_counter()
        for start in range(0, len(paths), AT_ONCE):
            sizes += pool.map(_read, paths[start : start + AT_ONCE])
            if time.perf_counter() - begun >= seconds:
                break
        took = time.perf_counter() - begun
    return DiskRead(len(sizes), sum(sizes) / took, sum(sizes) / len(sizes), _mean(held))


def _mean(values: Iterable[bool]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def _drop(path: Path) -> bool | None:
    """Ask the system to forget a file's content; whether it still holds its first byte. None where it does not tell."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return bool(os.preadv(handle, [bytearray(1)], 0, os.RWF_NOWAIT))
    except BlockingIOError:
        return False
    except OSError:  # the file system cannot read without waiting
        return None
    finally:
        os.close(handle)


def _read(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return len(file.read())
