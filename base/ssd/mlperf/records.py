"""The records of a result log, of any round, however they stand on their lines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

__all__ = ["DECODER", "TOKEN", "Record", "is_number", "read_records"]

TOKEN = ":::MLLOG"
"""What stands before each record of a result log."""
DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Record:
    """One record of a log. line: its line, counted from 1. time_ms: milliseconds since 1970."""

    key: str
    value: Any
    metadata: dict[str, Any]
    time_ms: float
    line: int


def read_records(path: Path) -> list[Record]:
    """All records of a log, in the order of the file, wherever they stand on their lines.

    A record that is broken is left out: a run may have been killed while it wrote. The check of a package
    (log_checks.py) reports such a record as an error.
    """
    records = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            for part in line.split(TOKEN)[1:]:
                try:
                    entry, _ = DECODER.raw_decode(part.lstrip())
                    records.append(_record(entry["key"], entry, float(entry["time_ms"]), number))
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    continue
            if old := _OF_ROUND_0_6.search(line):
                seconds, key, content = old.groups()
                records += _record_of_round_0_6(seconds, key, content, number)
    return records


_OF_ROUND_0_6 = re.compile(r":::MLL (\d+\.\d+) (\w+): (\{.*)")
"""Round 0.6 wrote `:::MLL SECONDS key: {"value": ..., "metadata": {...}}`."""


def _record_of_round_0_6(seconds: str, key: str, content: str, line: int) -> Iterator[Record]:
    try:
        yield _record(key, DECODER.raw_decode(content)[0], float(seconds) * 1000, line)
    except (ValueError, TypeError, RecursionError):
        return


def _record(key: Any, entry: Any, time_ms: float, line: int) -> Record:
    """A record whose fields have their types. TypeError or ValueError where key or time have not."""
    if not isinstance(key, str) or not isinstance(entry, dict):
        raise TypeError("a record is an object, and its key is text")
    if not math.isfinite(time_ms):
        raise ValueError("its time is no number")
    metadata = entry.get("metadata")
    return Record(key, entry.get("value"), metadata if isinstance(metadata, dict) else {}, time_ms, line)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a record's value is a number that a float can hold: no truth value, no NaN, no infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
