"""The verb `plan`: a table of predictions, or the errors of predicting published systems."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from ssd.config import Config
from ssd.console import console
from ssd.files import write_whole
from ssd.plan.arguments import numbers_of
from ssd.plan.constants import refit
from ssd.plan.measured import read_measured
from ssd.plan.page import page
from ssd.plan.predict import Prediction, predict, with_chance
from ssd.plan.rows import OTHERS, Row, read_rows
from ssd.plan.search import cheapest_words
from ssd.plan.simulate import Machine
from ssd.plan.sources import Source, best_source, known_rows
from ssd.plan.tables import (
    NOT_VERIFIED,
    apart_table,
    constants_table,
    error_table,
    figures_of,
    plan_json,
    plan_tables,
)
from ssd.plan.validate import leave_one_submitter_out, summarise
from ssd.text import counted

__all__ = ["plan_command", "validate_command"]


def validate_command(rows_file: Path | None, *, as_json: bool = False) -> int:
    """`plan --validate`: print the errors of predicting the published rows, or the rows of another file. Returns 0."""
    known, left_out = read_rows()
    asked, left_out = (known, left_out) if rows_file is None else read_rows(rows_file)
    errors = leave_one_submitter_out(known, asked)
    within = [error for error in errors if error.counted]
    if as_json:
        said = {"systems": len(asked), "counted": len(within), "left_out": len(left_out)}
        errors_by_kind = [asdict(one) for one in summarise(errors)]
        sys.stdout.write(json.dumps({**said, "errors": errors_by_kind}, indent=1) + "\n")
        return 0
    out = console()
    out.print(error_table(summarise(errors), len(within), sum(len(error.time) for error in within)))
    out.print(
        f"{len(within)} of {len(asked)} systems count towards the goals; left out: {counted(len(left_out), 'row')}.\n"
    )
    out.print(apart_table(errors, left_out))
    out.print(constants_table(refit(known, read_rows(OTHERS)[0])))
    out.print(NOT_VERIFIED)
    return 0


def plan_command(
    config: Config,
    accelerators: str,
    *,
    accelerator: str | None = None,
    measured: Sequence[Path] = (),
    target_minutes: float | None = None,
    machine: Machine | None = None,
    as_json: bool = False,
    page_file: Path | None = None,
) -> int:
    """Predict the config on each number of accelerators, such as "8,64,512", and print the tables. Returns 0.

    accelerator: a name such as "A100-SXM4-80GB (400W)", by default that of this machine. measured: folders of runs, or
    files of `plan --measure`, which are used in place of published rows. target_minutes: find the fewest accelerators
    that meet this time, too. machine: what is stated of hosts and network. Raises ConfigError where the accelerator is
    not known.
    """
    source = best_source(config, [read_measured(one) for one in measured], accelerator)
    found = [with_chance(predict(config, source, one, machine), config, source) for one in numbers_of(accelerators)]
    if page_file is not None:
        write_whole(page_file, page(source, found, _same_chip(known_rows(), source)))
    if as_json:
        sys.stdout.write(plan_json(source, found) + "\n")
        return 0
    out = console()
    out.print(f"{config.name} / {config.config}", markup=False)
    for table in plan_tables(found):
        out.print(table)
    _print_notes(out, found)
    for figure, words in figures_of(source, found).items():
        out.print(f"{figure}: {words}", markup=False)
    if target_minutes is not None:
        out.print(cheapest_words(config, source, target_minutes, machine))
    out.print(NOT_VERIFIED)
    return 0


def _same_chip(rows: Sequence[Row], source: Source) -> list[Row]:
    return [row for row in rows if row.device.chip == source.device.chip]


def _print_notes(out: Console, predictions: Sequence[Prediction]) -> None:
    for one in predictions:
        for note in one.notes:
            out.print(f"{counted(one.accelerators, 'accelerator')}: {note}")
