"""A result log as the checks read it, and what a check finds in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.mlperf.keys import OUR_PREFIX
from ssd.mlperf.records import Record, read_records

__all__ = ["Finding", "ResultLog", "read_log"]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file, by a rule. note: worth knowing, no reason to refuse the package."""

    file: str
    rule: str
    message: str
    note: bool = False

    def __str__(self) -> str:
        return f"{'note ' if self.note else 'ERROR'} {self.file}: {self.message} [{self.rule}]"


@dataclass(frozen=True)
class ResultLog:
    """A result log as read once: its name in the package, its records, and each key's first value."""

    name: str
    path: Path
    records: tuple[Record, ...]
    values: Mapping[str, Any]

    def times(self, key: str) -> list[float]:
        """Milliseconds at which a key was logged."""
        return [record.time_ms for record in self.records if record.key == key]

    @property
    def status(self) -> str:
        """What run_stop says: success, aborted; "unfinished" without one."""
        stops = [r.metadata.get(constants.STATUS) for r in self.records if r.key == constants.RUN_STOP]
        return str(stops[-1]) if stops else "unfinished"

    @property
    def minutes(self) -> float | None:
        """Time to train as the official summarizer reads it; None where the log does not hold both ends.

        That is from the last run_start above the first run_stop to that run_stop.
        """
        begin: float | None = None
        for record in self.records:
            if record.key == constants.RUN_START:
                begin = record.time_ms
            elif record.key == constants.RUN_STOP and begin is not None:
                return (record.time_ms - begin) / 60_000
        return None

    @property
    def has_our_keys(self) -> bool:
        """Whether this project's writer made it: no other logs keys that begin with ssd_."""
        return any(key.startswith(OUR_PREFIX) for key in self.values)


def read_log(path: Path, name: str) -> ResultLog:
    """Read a log; `name` is what findings call it."""
    records = tuple(read_records(path))
    values: dict[str, Any] = {}
    for record in records:
        values.setdefault(record.key, record.value)
    return ResultLog(name, path, records, values)
