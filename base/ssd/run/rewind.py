"""Cuts the logs of a resumed run back to the time of its checkpoint, so that each step is logged once.

The resumed run repeats the steps after its last checkpoint. What the killed run logged about them is moved to a file
beside the log, `result_0.cut-1.txt` and `metrics.cut-1.jsonl` at the first resume. It is never deleted. Only the lines
about earlier resumes stay in the log.

A run that was killed before its first checkpoint begins anew where `restart` asks for that. Then all that the killed
run wrote is moved in the same way.

If this process is killed at any moment, each log is as it was before or as it will be. The next resume does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path

from ssd.config.resume import BEST
from ssd.errors import DataError
from ssd.files import whole_file
from ssd.mlperf.keys import RESUMED
from ssd.run.tensorboard import FOLDER

__all__ = ["METRICS", "RESULT_LOG", "rewind", "set_aside", "synced_size"]

RESULT_LOG = "result_0.txt"
METRICS = "metrics.jsonl"
WRITTEN = (METRICS, RESULT_LOG, FOLDER, BEST)
"""What a run has written before its first checkpoint and would go on with: logs, curves, the best checkpoint."""
STAYS = {RESULT_LOG: f'"key": "{RESUMED}"'.encode(), METRICS: b'"kind": "resumed"'}
"""The text that marks a line which stays in the log. Each resume writes one such line."""


def synced_size(path: Path) -> int:
    """The bytes of a file whose writers have flushed it. The file is synced to the disk first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def rewind(folder: Path, places: Mapping[str, int]) -> None:
    """Cut each log back. places: the bytes to keep of each file, by its name, as a checkpoint has them.

    Raises DataError where a log is shorter than that, or where no line ends there. Then nothing was changed.
    """
    contents = {name: _read(folder / name, place) for name, place in places.items()}
    number = _free_number(folder, places)
    for name, content in contents.items():
        whole, tail = content[: places[name]], content[places[name] :]
        stays = b"".join(
            line for line in tail.splitlines(keepends=True) if STAYS[name] in line and line.endswith(b"\n")
        )
        if stays == tail:
            continue
        _write(_cut_path(folder / name, number), tail)
        _write(folder / name, whole + stays)


def set_aside(folder: Path) -> None:
    """Give what a run has written that was killed before its first checkpoint other names. The run begins anew.

    If this process is killed in between, the next call does the rest.
    """
    number = _free_number(folder, WRITTEN)
    for name in WRITTEN:
        with suppress(FileNotFoundError):
            (folder / name).rename(_cut_path(folder / name, number))


def _free_number(folder: Path, names: Iterable[str]) -> int:
    """The lowest number, from 1, that is in no name of a file that was cut off."""
    names = tuple(names)
    return next(n for n in count(1) if not any(_cut_path(folder / name, n).exists() for name in names))


def _cut_path(log: Path, number: int) -> Path:
    return log.with_name(f"{log.stem}.cut-{number}{log.suffix}")


def _read(path: Path, place: int) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}), and the run's checkpoint goes on from it: start a new run"
        ) from error
    if len(content) < place or not content[:place].endswith(b"\n"):
        raise DataError(
            f"{path} has {len(content)} bytes, and no line ends at byte {place}, where it stood when the run's "
            "checkpoint was written: the file was changed since. Start a new run"
        )
    return content


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)
