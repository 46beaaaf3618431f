"""`plan --validate`: each submitter's systems predicted from everybody else's, and how far off that is.

A system counts towards the goals where its family (the same chip and link, rounds 1.0 and 1.1) has another submitter.
The other systems are predicted as well, and listed apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd.counts import steps_per_epoch
from ssd.plan.epochs import EpochSpread, epoch_spread
from ssd.plan.model import Constants, fit, is_fitted
from ssd.plan.overhead import Overhead, fit_overhead, published_evaluations
from ssd.plan.roofline import slower_by_roofline
from ssd.plan.rows import TRAIN_IMAGES, Row

__all__ = ["GOALS", "Error", "Summary", "leave_one_submitter_out", "summarise"]

GOALS = {"step": (0.03, 0.08), "time": (0.03, 0.08), "whole": (0.06, None)}
"""Median and 90% of the relative error: of a steady step, of the time given the epochs, of the time with epochs too."""


@dataclass(frozen=True)
class Error:
    """A system's relative errors: predicted / measured - 1. step: of the steady step. time, whole: one a run.

    family: chip and link. counted: whether the goals are about it.
    """

    row: Row
    family: str
    counted: bool
    predicted_ms: float
    step: float
    time: tuple[float, ...]
    whole: tuple[float, ...]


@dataclass(frozen=True)
class Summary:
    """Absolute relative errors of one kind over one family: how many, median, 90%, worst."""

    kind: str
    family: str
    count: int
    median: float
    ninety: float
    worst: float


def leave_one_submitter_out(known: Sequence[Row], asked: Sequence[Row] | None = None) -> list[Error]:
    """Predict `asked` (by default `known` themselves), each from the rows of other submitters alone."""
    asked = known if asked is None else asked
    errors = []
    for submitter in sorted({row.submitter.casefold() for row in asked}):
        others = [row for row in known if row.submitter.casefold() != submitter]
        known_families = {_family(row) for row in others if is_fitted(row)}
        learnt = _Learnt(fit(others), fit_overhead(others), epoch_spread(others), frozenset(known_families))
        errors += [_error(row, learnt) for row in asked if row.submitter.casefold() == submitter]
    return errors


@dataclass(frozen=True)
class _Learnt:
    """What the rows of all other submitters say."""

    constants: Constants
    overhead: Overhead
    spread: EpochSpread
    families: frozenset[str]


def _error(row: Row, learnt: _Learnt) -> Error:
    constants, overhead, spread = learnt.constants, learnt.overhead, learnt.spread
    slower = slower_by_roofline(constants, row.device)
    step_ms = constants.step_ms(row.device, row.local_batch, row.nodes, row.round, slower)
    steps = steps_per_epoch(TRAIN_IMAGES, row.global_batch)

    def seconds(epochs: float) -> float:
        rest = overhead.total_s(row.accelerators, published_evaluations(round(epochs)))
        return epochs * steps * step_ms / 1000 + rest

    expected = spread.epochs(row.global_batch)
    runs = list(zip(row.epochs, row.seconds, strict=False))
    family = _family(row)
    return Error(
        row=row,
        family=family,
        counted=is_fitted(row) and family in learnt.families,
        predicted_ms=step_ms,
        step=step_ms / row.step_ms - 1,
        time=tuple(seconds(epoch) / measured - 1 for epoch, measured in runs),
        whole=tuple(seconds(expected[1]) / measured - 1 for _, measured in runs) if expected else (),
    )


def _family(row: Row) -> str:
    """Chip and link; a name that says no link is of the link that most such boards have."""
    return f"{row.device.chip} {(row.device.link or 'sxm').upper()}"


def summarise(errors: Sequence[Error]) -> list[Summary]:
    """Errors of the counted systems, of each kind: all families together first, then each."""
    counted = [error for error in errors if error.counted]
    families = ["all", *sorted({error.family for error in counted})]
    found = []
    for kind in GOALS:
        for family in families:
            chosen = [error for error in counted if family in ("all", error.family)]
            values = np.abs([value for error in chosen for value in _values(error, kind)])
            if values.size:
                quantiles = np.quantile(values, (0.5, 0.9, 1.0)).tolist()
                found.append(Summary(kind, family, values.size, *quantiles))
    return found


def _values(error: Error, kind: str) -> tuple[float, ...]:
    return (error.step,) if kind == "step" else error.time if kind == "time" else error.whole
