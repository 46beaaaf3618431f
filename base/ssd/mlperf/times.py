"""Where the time of a result log's run went, as fields of its row and as a table of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ssd.account.log_events import log_account, log_anomalies
from ssd.mlperf.records import Record

__all__ = ["TIMES", "account_fields", "account_table"]

TIMES = {
    "start_s": "start",
    "first_epoch_excess_s": "first epoch's excess",
    "epoch_s": "a steady epoch",
    "evaluation_s": "evaluations",
    "rest_s": "the rest",
}
"""Fields of a row in seconds, and the heads of their columns."""


def account_fields(records: Sequence[Record]) -> dict[str, Any]:
    """The fields TIMES of a row, and `unusual`. A log without events of epochs has no excess and no steady epoch."""
    unusual = " ".join(f"{one.name}: {one.words}" for one in log_anomalies(records))
    account = log_account(records)
    if account is None:
        return {"unusual": unusual}
    parts = {name: round(seconds, 3) for name, seconds in account.parts.items()}
    known = account.epoch_s is not None
    return {
        "start_s": parts["start"],
        "first_epoch_excess_s": parts["first_epoch_excess"] if known else None,
        "epoch_s": round(account.epoch_s, 3) if account.epoch_s is not None else None,
        "evaluation_s": parts["evaluation"],
        "rest_s": parts["rest"],
        "unusual": unusual,
    }


def account_table(rows: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    """Seconds of each row, (name, its fields), for a terminal."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("seconds", overflow="fold")
    for head in ("run_start to run_stop", *TIMES.values()):
        table.add_column(head, justify="right")
    for name, row in rows:
        minutes = row["time_to_train_min"]
        values = [None if minutes is None else minutes * 60, *(row[field] for field in TIMES)]
        table.add_row(name, *("" if value is None else f"{value:,.2f}" for value in values))
    return table
