"""Rows of `bench`: kept, read, and compared with those of the same kind of machine alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssd.errors import DataError
from ssd.measure.kept import KIND, keep_row, read_rows, reference_of

ROW: dict[str, Any] = {
    "kind": KIND,
    "machine": {"host_processor_model_name": "A"},
    "keys": {"width": 1.0},
    "images": "made",
    "figures": {"step": 10.0, "copy": None},
}


def test_the_newest_row_of_the_same_kind_is_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    rows = [
        {**ROW, "date": "first"},
        {**ROW, "date": "second"},
        {**ROW, "date": "other machine", "machine": {"host_processor_model_name": "B"}},
        {**ROW, "date": "other keys", "keys": {"width": 0.5}},
        {**ROW, "date": "other images", "images": "of data_dir"},
    ]
    for row in rows:
        keep_row(path, row)
    assert read_rows(path) == rows
    found = reference_of(rows, ROW)
    assert found
    assert found["date"] == "second"
    assert reference_of(rows[2:], ROW) is None


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        json.dumps({**ROW, "kind": "ssd-plan-measured-1"}),
        json.dumps({**ROW, "figures": {"step": 0.0}}),
        json.dumps({**ROW, "figures": {"step": "fast"}}),
        json.dumps({**ROW, "machine": None}),
        json.dumps({key: value for key, value in ROW.items() if key != "keys"}),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{line}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: no row of bench"):
        read_rows(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as rows of bench"):
        read_rows(tmp_path / "absent.jsonl")
