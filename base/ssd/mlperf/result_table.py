"""How the rows of `ssd results` are shown: JSON, CSV, and a table for a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from mlperf_logging.mllog import constants
from rich.table import Table

from ssd.mlperf.notice import NOTICE, UNKNOWN_ROUND
from ssd.mlperf.results import RunResult

__all__ = ["as_csv", "as_json", "as_table", "short_names"]


def as_json(results: Iterable[RunResult]) -> str:
    """A JSON list with one object a log. Each has the notice, because rows are taken out of their list."""
    return json.dumps([{**asdict(result), "notice": NOTICE} for result in results], indent=2) + "\n"


def as_csv(results: Iterable[RunResult]) -> str:
    """CSV: a header, and one line a log, which ends with the notice."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(field.name for field in fields(RunResult)), "notice"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(result), "notice": NOTICE} for result in results)
    return text.getvalue()


def short_names(results: Sequence[RunResult]) -> list[str]:
    """The files' names without the folder that all share."""
    folders = [os.path.dirname(os.path.abspath(result.file)) for result in results]
    shared = os.path.commonpath(folders) if results else ""
    return [os.path.relpath(result.file, shared) for result in results]


def as_table(results: Sequence[RunResult]) -> Table:
    """A table for a terminal. File names are shown without the folder that all of them share."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("file", "system", "round", "division"):
        table.add_column(name, overflow="fold")
    for name in ("minutes", "epochs", "mAP", "images/s", "batch"):
        table.add_column(name, justify="right")
    table.add_column("status")
    for name, r in zip(short_names(results), results, strict=True):
        words = f"{r.status}: {r.outcome}" if r.status == constants.ABORTED else r.status
        status = (
            words + (", resumed" if r.resumed else "") + (f", width {r.width:g}" if r.width not in (None, 1) else "")
        )
        status += f"; cannot be true: {r.doubt}" if r.doubt else ""
        table.add_row(
            name,
            _text(r.system),
            "" if r.round == UNKNOWN_ROUND else r.round,
            _text(r.division),
            _text(r.time_to_train_min, ".2f"),
            _text(r.epochs),
            _text(r.final_map, ".4f"),
            _text(r.images_per_s, ",.0f" if (r.images_per_s or 0) >= 10 else ".1f"),
            _text(r.global_batch),
            status,
        )
    return table


def _text(value: Any, form: str = "") -> str:
    return "" if value is None else format(value, form)
