"""The records of a result log, of any round, however they stand on their lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DECODER", "TOKEN", "Record", "read_records"]

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

    A record whose JSON is broken is left out: a run may have been killed while it wrote. The check of a package
    (log_checks.py) reports such a record as an error.
    """
    records = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            for part in line.split(TOKEN)[1:]:
                try:
                    entry, _ = DECODER.raw_decode(part.lstrip())
                    record = Record(
                        entry["key"], entry.get("value"), entry.get("metadata") or {}, float(entry["time_ms"]), number
                    )
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
                records.append(record)
            if old := _OF_ROUND_0_6.search(line):
                seconds, key, content = old.groups()
                records += _record_of_round_0_6(seconds, key, content, number)
    return records


_OF_ROUND_0_6 = re.compile(r":::MLL (\d+\.\d+) (\w+): (\{.*)")
"""Round 0.6 wrote `:::MLL SECONDS key: {"value": ..., "metadata": {...}}`."""


def _record_of_round_0_6(seconds: str, key: str, content: str, line: int) -> Iterator[Record]:
    try:
        entry, _ = DECODER.raw_decode(content)
        yield Record(key, entry.get("value"), entry.get("metadata") or {}, float(seconds) * 1000, line)
    except (ValueError, AttributeError, RecursionError):
        return
