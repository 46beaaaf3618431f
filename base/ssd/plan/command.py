"""The verb `plan`: a table of predictions, or the errors of predicting published systems."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from ssd.compute.device import UNKNOWN, device_count
from ssd.config import Config
from ssd.console import console
from ssd.errors import ConfigError
from ssd.plan.model import fit
from ssd.plan.overhead import fit_overhead
from ssd.plan.page import page
from ssd.plan.predict import Prediction, Source, by_measured, by_published, predict, read_measured
from ssd.plan.rows import OTHERS, Device, Row, describe_device, read_rows
from ssd.plan.tables import (
    NOT_VERIFIED,
    apart_table,
    constants_table,
    error_table,
    plan_json,
    plan_tables,
)
from ssd.plan.validate import leave_one_submitter_out, summarise
from ssd.text import counted
from ssd.vendor import load_vendor

__all__ = ["plan_command", "validate_command"]

MOST = 4096
"""The most accelerators of a prediction. With one image each they have the largest reference batch."""


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
    out.print(f"{len(within)} of {len(asked)} systems count towards the goals; {len(left_out)} rows are left out.\n")
    out.print(apart_table(errors, left_out))
    out.print(constants_table(fit(known), fit_overhead(known)))
    out.print(NOT_VERIFIED)
    return 0


def plan_command(
    config: Config,
    accelerators: str,
    *,
    accelerator: str | None = None,
    measured: Sequence[Path] = (),
    target_minutes: float | None = None,
    host_cores: int | None = None,
    as_json: bool = False,
    page_file: Path | None = None,
) -> int:
    """Predict the config on each number of accelerators, such as "8,64,512", and print the tables. Returns 0.

    accelerator: a name such as "A100-SXM4-80GB (400W)", by default that of this machine. measured: folders of runs,
    which are used in place of published rows. target_minutes: find the fewest accelerators that meet this time, too.
    Raises ConfigError for numbers outside 1 to 4,096, and where the accelerator is not known.
    """
    counts = _counts(accelerators)
    rows = [*read_rows()[0], *read_rows(OTHERS)[0]]
    source = by_measured([read_measured(one) for one in measured], rows) if measured else None
    source = source or by_published(rows, _device(config, accelerator))
    found = [predict(config, source, count, host_cores) for count in counts]
    if page_file is not None:
        page_file.write_text(page(source, found, _same_chip(rows, source)), encoding="utf-8")
    if as_json:
        sys.stdout.write(plan_json(source, found) + "\n")
        return 0
    out = console()
    out.print(f"{config.name} / {config.config}, from {source.words}", markup=False)
    for table in plan_tables(found):
        out.print(table)
    _print_notes(out, found)
    if target_minutes is not None:
        out.print(_cheapest(config, source, target_minutes, host_cores))
    out.print(NOT_VERIFIED)
    return 0


def _counts(text: str) -> list[int]:
    """The numbers in a text such as `8,64,512`, ascending, each once."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() and 1 <= int(word) <= MOST for word in words):
        raise ConfigError(f"--accelerators {text}: takes numbers from 1 to {MOST:,}, such as 8,64,512.")
    return sorted({int(word) for word in words})


def _same_chip(rows: Sequence[Row], source: Source) -> list[Row]:
    return [row for row in rows if row.device.chip == source.device.chip]


def _device(config: Config, accelerator: str | None) -> Device:
    """The device that the flag names. Without the flag, this machine's first device of the vendor's type."""
    if accelerator is not None:
        return describe_device(accelerator)
    vendor = load_vendor(config.name)
    kind = vendor.device_of(config)
    if kind != "cpu" and device_count(kind) and (name := vendor.abilities(torch.device(kind, 0)).name) != UNKNOWN:
        return describe_device(name)
    raise ConfigError(
        "which accelerator? This machine has none that published rows know: give --accelerator NAME, for example "
        '"A100-SXM4-80GB (400W)", or runs of your own: --measured RUN'
    )


def _print_notes(out: Console, predictions: Sequence[Prediction]) -> None:
    for one in predictions:
        for note in one.notes:
            out.print(f"{counted(one.accelerators, 'accelerator')}: {note}")


def _cheapest(config: Config, source: Source, minutes: float, host_cores: int | None) -> str:
    """The fewest accelerators, a power of two, that meet a time.

    The batch of a process may be the config's, or a half, a quarter ... of it, because a smaller global batch needs
    fewer epochs.
    """
    batch = config.train_batch_size
    batches = sorted({max(1, batch >> halvings) for halvings in range(batch.bit_length())}, reverse=True)
    configs = [config.model_copy(update={"train_batch_size": one}) for one in batches]
    for count in (2**power for power in range(MOST.bit_length())):
        found = [one for batch in configs if (one := predict(batch, source, count, host_cores)).minutes]
        if not found:
            return "Whether a time can be met is unknown: the epochs to the target are."
        best = min(found, key=lambda one: one.minutes[1] if one.minutes else 0.0)
        assert best.minutes
        low, middle, high = best.minutes
        if middle <= minutes:
            accelerators = counted(count, "accelerator")
            return (
                f"{accelerators} with batch {best.local_batch} each are the fewest (by powers of two) that "
                f"meet {minutes:g} minutes: {middle:.1f} ({low:.1f} to {high:.1f})."
            )
    return f"No number of accelerators up to {MOST:,} meets {minutes:g} minutes."
