"""Files are read whole, and what is said of them is true."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssd.measure import disk
from ssd.measure.disk import read_files


def test_every_file_is_read_once(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * 1000 * (number + 1))
    found = read_files(paths, threads=2, seconds=60)
    assert (found.files, found.mean_bytes) == (3, 2000)
    assert found.bytes_per_s > 0
    assert found.in_memory is None or 0 <= found.in_memory <= 1


def test_reading_ends_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "AT_ONCE", 2)
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.write_bytes(b"1234")
    now = iter((10.0, 11.0, 14.0, 14.0))
    monkeypatch.setattr(disk.time, "perf_counter", lambda: next(now))
    found = read_files(paths, threads=1, seconds=3)
    assert (found.files, found.bytes_per_s) == (4, 4.0), "sixteen bytes in four seconds"


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        read_files([tmp_path / "absent"], threads=1, seconds=1)
    with pytest.raises(ValueError, match="no file"):
        read_files([], threads=1, seconds=1)


def test_what_is_dropped_from_memory_and_what_is_still_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is held, one is not, and of one the file system does not tell."""
    paths = [tmp_path / str(number) for number in range(3)]
    for path in paths:
        path.write_bytes(b"1234")
    asked, answers = [], iter([1, BlockingIOError(), OSError()])
    opened, closed = [], []
    monkeypatch.setattr(disk.os, "posix_fadvise", lambda *about: asked.append(about[1:]))
    real, ends = os.open, os.close

    def first_byte(handle: int, buffers: list[bytearray], place: int, how: int) -> int:
        assert ([len(one) for one in buffers], place, how) == ([1], 0, os.RWF_NOWAIT)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(disk.os, "preadv", first_byte)
    monkeypatch.setattr(disk.os, "open", lambda path, how: opened.append(real(path, how)) or opened[-1])
    monkeypatch.setattr(disk.os, "close", lambda handle: closed.append(handle) or ends(handle))
    assert [disk._drop(path) for path in paths] == [True, False, None]
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)] * 3
    assert closed == opened
    monkeypatch.setattr(disk, "_drop", lambda path: {"0": True, "1": False, "2": None}[path.name])
    assert read_files(paths, threads=1, seconds=60).in_memory == 0.5
    monkeypatch.setattr(disk, "_drop", lambda path: None)
    assert read_files(paths, threads=1, seconds=60).in_memory is None
