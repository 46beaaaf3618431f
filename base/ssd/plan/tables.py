"""Predictions and errors as tables on the terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from ssd.mlperf.notice import NOTICE, PUBLISHED
from ssd.plan.predict import Prediction
from ssd.plan.rows import LeftOut
from ssd.plan.sources import Source
from ssd.plan.validate import GOALS, Error, Summary

__all__ = [
    "COLUMNS",
    "NOT_VERIFIED",
    "apart_table",
    "constants_table",
    "error_table",
    "figures_of",
    "plan_cells",
    "plan_json",
    "plan_tables",
]

NOT_VERIFIED = (
    f"Published rows: MLPerf Training rounds 0.7 to 1.1, closed division (base/published). {PUBLISHED} {NOTICE} "
    "Predictions are no results."
)
ANSWER = (
    *("accelerators", "batch each", "global batch", "ms a step", "images/s"),
    *("epochs", "minutes", "five pass", "limit"),
)
"""Epochs and minutes: the middle, and in brackets the span of eight of ten runs.

Five pass: how likely five runs pass the reference-convergence check.
"""
PARTS = (
    *("accelerators", "steps an epoch", "launch, ms", "arithmetic, ms", "communication, ms", "evaluation, s"),
    *("start, s", "GiB a process"),
)
"""GiB: of a process, estimated from runs in float32 on a CPU."""
PAPER = (
    *("accelerators", "hosts", "host cores", "storage, MB/s", "disk, GB", "all-reduce, ms", "slowest rank, ms"),
    *("more epochs",),
)
"""Host cores, storage, disk: of each host. All-reduce, slowest rank: simulated. More epochs: the batch's penalty."""
COLUMNS = (ANSWER, PARTS, PAPER)
TITLES = (
    "Time to the target; in brackets the span of eight of ten runs",
    "Where a step goes, and what a run does besides",
    "On paper: what a host must give, and what no row has measured",
)
STATED = "stated numbers (base/published/constants.json); --link_gbit, --latency_us, --rank_spread replace them"


def plan_tables(predictions: Sequence[Prediction]) -> list[Table]:
    """Three tables, one row for each number of accelerators: the answer, the parts of a step, and what is on paper."""
    tables = []
    for title, headings, cells in zip(TITLES, COLUMNS, plan_cells(predictions), strict=True):
        table = Table(title=title, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in cells:
            table.add_row(*row)
        tables.append(table)
    return tables


def plan_cells(predictions: Sequence[Prediction]) -> list[list[list[str]]]:
    """The cells of the tables, in the order of COLUMNS."""
    return [[cells(one) for one in predictions] for cells in (_answer, _parts, _paper)]


def _answer(one: Prediction) -> list[str]:
    return [
        f"{one.accelerators:,}",
        f"{one.local_batch:,}",
        f"{one.global_batch:,}",
        f"{one.step_ms:,.1f}",
        f"{one.images_per_s:,.0f}",
        _span(one.epochs, 0),
        _span(one.minutes, 1 if one.minutes and one.minutes[1] >= 1 else 2),
        "unknown" if one.pass_probability is None else f"{one.pass_probability:.0%}",
        one.limit,
    ]


def _parts(one: Prediction) -> list[str]:
    return [
        f"{one.accelerators:,}",
        f"{one.steps_per_epoch:,}",
        f"{one.launch_ms:,.1f}",
        f"{one.arithmetic_ms:,.1f}",
        f"{one.communication_ms:.1f}",
        f"{one.evaluation_s:.2f}",
        f"{one.start_s:.1f}",
        f"{one.memory_gib:.1f}",
    ]


def _paper(one: Prediction) -> list[str]:
    return [
        f"{one.accelerators:,}",
        f"{one.nodes:,}",
        f"{one.host_cores}",
        f"{one.storage_mb:,.0f}",
        f"{one.disk_gb:.0f}",
        f"{one.all_reduce_ms:.2f}",
        f"{one.slowest_ms:.2f}",
        "unknown" if one.penalty is None else f"{one.penalty - 1:.0%}",
    ]


def figures_of(source: Source, predictions: Sequence[Prediction]) -> dict[str, str]:
    """Where each figure comes from, in words."""
    spread = "" if source.rank_spread is None else f"; the ranks' spread was measured, {source.rank_spread:.2%}"
    paper = {
        "all-reduce, slowest rank": f"simulated, from {STATED}{spread}",
        "host cores, storage, disk": "stated numbers (base/published/constants.json), times the rate",
    }
    return {**source.figures, "epochs": predictions[0].epochs_from, **paper}


def _span(values: tuple[float, float, float] | None, digits: int) -> str:
    if values is None:
        return "unknown"
    low, middle, high = (f"{value:,.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"


def error_table(summaries: Sequence[Summary], counted: int, runs: int) -> Table:
    """Errors by kind and family beside their goals. counted, runs: how many systems and runs the goals are about."""
    title = f"Leaving one submitter out: {counted} systems, {runs} runs; relative errors"
    table = Table(title=title, title_justify="left")
    for heading in ("predicted", "family", "n", "median", "90%", "worst", "goals: median, 90%", "met"):
        table.add_column(heading, justify="left" if heading in ("predicted", "family") else "right")
    names = {"step": "steady step", "time": "time to train, epochs given", "whole": "time to train, epochs too"}
    for one in summaries:
        median, ninety = GOALS[one.kind]
        goal, met = "", ""
        if one.family == "all":
            goal = f"{median:.0%}, {'-' if ninety is None else format(ninety, '.0%')}"
            met = "yes" if one.median <= median and (ninety is None or one.ninety <= ninety) else "no"
        cells = (f"{value:.1%}" for value in (one.median, one.ninety, one.worst))
        table.add_row(names[one.kind], one.family, str(one.count), *cells, goal, met)
    return table


def apart_table(errors: Sequence[Error], left_out: Sequence[LeftOut]) -> Table:
    """Systems that the goals are not about, and those that are off by more than the goal's 90%, with the reason."""
    limit = GOALS["step"][1] or math.inf
    table = Table(title="Listed apart, or off by more than the goal", title_justify="left")
    for heading in ("system", "step, ms", "predicted", "error", "why"):
        table.add_column(heading, justify="left" if heading in ("system", "why") else "right", overflow="fold")
    for error in sorted(errors, key=lambda one: one.row.name):
        if not error.counted or abs(error.step) > limit:
            numbers = f"{error.row.step_ms:.1f}", f"{error.predicted_ms:.1f}", f"{error.step:+.1%}"
            table.add_row(_as_is(error.row.name), *numbers, _why(error))
    for lacking in left_out:
        table.add_row(_as_is(lacking.name), "", "", "", f"left out: {lacking.why}")
    return table


def _why(error: Error) -> str:
    if error.counted:
        return "its family has few other submitters, whose cards were faster or slower than these"
    if error.row.round == "0.7":
        return "round 0.7: older software than any fitted row, above all in communication"
    return f"no other submitter has {error.family} in rounds 1.0 and 1.1"


def _as_is(text: str) -> str:
    """Text that rich prints as it is."""
    return text.replace("[", r"\[")


def constants_table(fitted: Mapping[str, Any]) -> Table:
    """The fitted part of base/published/constants.json: value, range without one submitter, unit, meaning."""
    title = "Constants fitted on all rows; in brackets the range where one submitter's rows are left out"
    table = Table(title=title, title_justify="left")
    for heading in ("constant", "value", "unit", "meaning"):
        table.add_column(heading)
    chips = fitted["chips"]
    for name, one in [*((name, one) for name, one in fitted.items() if name != "chips"), *chips.items()]:
        value = f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
        table.add_row(name, value, one["unit"], one["meaning"])
    return table


def plan_json(source: Source, predictions: Sequence[Prediction]) -> str:
    """Everything that the table shows, unrounded."""
    sources, found = figures_of(source, predictions), [asdict(one) for one in predictions]
    told = {"source": source.words, "sources": sources, "note": NOT_VERIFIED, "predictions": found}
    return json.dumps(told, indent=1)
