"""Rows of `bench`, one JSON object a line: what was measured of a machine, and the earlier row to compare it with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd.errors import DataError
from ssd.text import said_by

__all__ = ["KIND", "keep_row", "read_rows", "reference_of"]

KIND = "ssd-bench-1"
COMPARED = ("machine", "keys", "images")
"""Fields of a row that must be the same for its figures to be comparable."""


def keep_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a file. Raises OSError where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, the oldest first. Raises DataError, with the line, for what is no row."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as rows of bench ({error})") from error
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        values = [value for value in row["figures"].values() if value is not None]
        sound = row["kind"] == KIND and all(isinstance(row[name], dict | str) for name in COMPARED)
        if not sound or not values or not all(math.isfinite(value) and value > 0 for value in values):
            raise ValueError("its kind, machine, keys or figures are wrong")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: no row of bench ({said_by(error)})") from error
    return row


def reference_of(rows: list[dict[str, Any]], row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest of these rows that was measured on a machine of the same kind, with the same keys and images."""
    return next((one for one in reversed(rows) if all(one[name] == row[name] for name in COMPARED)), None)
