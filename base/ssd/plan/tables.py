"""Predictions and errors as tables on the terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from ssd.mlperf.notice import NOTICE, PUBLISHED
from ssd.plan.model import Constants
from ssd.plan.overhead import Overhead
from ssd.plan.predict import Prediction, Source
from ssd.plan.rows import LeftOut
from ssd.plan.validate import GOALS, Error, Summary

__all__ = [
    "COLUMNS",
    "NOT_VERIFIED",
    "apart_table",
    "constants_table",
    "error_table",
    "plan_cells",
    "plan_json",
    "plan_tables",
]

NOT_VERIFIED = (
    f"Published rows: MLPerf Training rounds 0.7 to 1.1, closed division (base/published). {PUBLISHED} {NOTICE} "
    "Predictions are no results."
)
ANSWER: tuple[str, ...] = ("accelerators", "batch each", "global batch", "ms a step", "images/s")
ANSWER += ("epochs", "minutes", "five pass", "limit")
"""Epochs and minutes: the middle, and in brackets the span of eight of ten runs.

Five pass: how likely five runs pass the reference-convergence check.
"""
PARTS: tuple[str, ...] = (
    "accelerators",
    "steps an epoch",
    "launch, ms",
    "arithmetic, ms",
    "communication, ms",
    "host cores",
)
PARTS += ("host cores", "evaluation, s", "GiB a process")
"""Host cores: of each host, to feed it. GiB: of a process, estimated from runs in float32 on a CPU."""
COLUMNS = (ANSWER, PARTS)


def plan_tables(predictions: Sequence[Prediction]) -> list[Table]:
    """Two tables, one row for each number of accelerators: the answer, and where a step's time goes."""
    tables = []
    titles = ("Time to mAP 0.23; in brackets the span of eight of ten runs", "Where a step goes, and what it takes")
    for title, headings, cells in zip(titles, COLUMNS, plan_cells(predictions), strict=True):
        table = Table(title=title, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in cells:
            table.add_row(*row)
        tables.append(table)
    return tables


def plan_cells(predictions: Sequence[Prediction]) -> tuple[list[list[str]], list[list[str]]]:
    """The cells of both tables, in the order of COLUMNS."""
    answers = [
        [
            f"{one.accelerators:,}",
            f"{one.local_batch:,}",
            f"{one.global_batch:,}",
            f"{one.step_ms:.1f}",
            f"{one.images_per_s:,.0f}",
            _span(one.epochs, 0),
            _span(one.minutes, 1),
            "unknown" if one.pass_probability is None else f"{one.pass_probability:.0%}",
            one.limit,
        ]
        for one in predictions
    ]
    parts = [
        [
            f"{one.accelerators:,}",
            f"{one.steps_per_epoch:,}",
            f"{one.launch_ms:.1f}",
            f"{one.arithmetic_ms:.1f}",
            f"{one.communication_ms:.1f}",
            f"{one.host_cores}",
            f"{one.evaluation_s:.2f}",
            f"{one.memory_gib:.1f}",
        ]
        for one in predictions
    ]
    return answers, parts


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


def constants_table(constants: Constants, overhead: Overhead) -> Table:
    """The fitted constants, with their units and meanings."""
    table = Table(title="Constants fitted on all rows", title_justify="left")
    for heading in ("constant", "value", "meaning"):
        table.add_column(heading)
    for name, value, meaning in (
        ("floor", f"{constants.floor:.2f} ms", "a step without images: launches, optimizer, all-reduce in a host"),
        ("image", f"{constants.image:.3f} ms", "an image on A100-SXM 80 GB at 400 W, round 1.1"),
        ("hosts", f"{constants.hosts:.3f} ms", "each doubling of the nodes"),
        ("power", f"{2**constants.power:.3f} x", "an image at half the power limit"),
        ("pcie", f"{math.exp(constants.pcie):.3f} x", "an image on a PCIe card, beside its power"),
        ("small memory", f"{math.exp(constants.small_memory):.3f} x", "an image on 40 GB of HBM2"),
        ("older", f"{math.exp(constants.older):.3f} x", "an image with the software one round older"),
        *(
            (chip, f"{math.exp(scale):.2f} x", "an image, from this chip's rows")
            for chip, scale in constants.chips.items()
        ),
        ("evaluation", f"{overhead.fixed:.2f} s + {overhead.work:.2f} s / accelerators", "one evaluation"),
        ("start", f"{overhead.start:.2f} s + {overhead.first_epoch:.2f} s", "run_start to epoch 1; its excess"),
    ):
        table.add_row(name, value, meaning)
    return table


def plan_json(source: Source, predictions: Sequence[Prediction]) -> str:
    """Everything that the table shows, unrounded."""
    found = {"source": source.words, "note": NOT_VERIFIED, "predictions": [asdict(one) for one in predictions]}
    return json.dumps(found, indent=1)
