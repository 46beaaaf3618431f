"""The time of a run besides its steps: from run_start to the first epoch, the first epoch's excess, the evaluations.

    one evaluation = fixed + work / accelerators

- fixed: what does not shrink with the system: waiting for the slowest rank, gathering, the metric. s.
- work: inference on the validation images, in seconds of one accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd.counts import steps_per_epoch
from ssd.plan.model import is_fitted
from ssd.plan.rows import TRAIN_IMAGES, Row

__all__ = ["Overhead", "fit_overhead", "published_evaluations"]


@dataclass(frozen=True)
class Overhead:
    """Times in seconds. start: from run_start to the first epoch. first_epoch: its excess over a later epoch.

    fixed: the part of an evaluation that does not depend on the system. work: the part that accelerators share.
    """

    start: float
    first_epoch: float
    fixed: float
    work: float

    def evaluation_s(self, accelerators: int) -> float:
        """The seconds of one evaluation on this number of accelerators."""
        return self.fixed + self.work / accelerators

    def total_s(self, accelerators: int, evaluations: int) -> float:
        """The seconds of a run in which it does not train."""
        return self.start + self.first_epoch + evaluations * self.evaluation_s(accelerators)


def published_evaluations(epoch: float) -> int:
    """The number of evaluations of a published run at an epoch: about one every five epochs (epoch 51: 10)."""
    return max(1, round(epoch / 5))


def fit_overhead(rows: Sequence[Row]) -> Overhead:
    """Fit the overhead: medians for start and first epoch, least absolute deviation for the evaluation's constants."""
    used = [row for row in rows if is_fitted(row) and row.seconds and len(row.seconds) == len(row.epochs)]
    points = []
    for row in used:
        epoch_s = steps_per_epoch(TRAIN_IMAGES, row.global_batch) * row.step_ms / 1000
        rests = [
            (seconds - row.start_s - row.first_epoch_excess_s - epoch * epoch_s) / published_evaluations(epoch)
            for epoch, seconds in zip(row.epochs, row.seconds, strict=True)
        ]
        points.append((1 / row.accelerators, max(float(np.median(rests)), 0.0)))
    share, seconds = np.array(points).T
    # Least absolute deviation by reweighted least squares: some systems took three times as long to evaluate.
    weights = np.ones(len(share))
    for _ in range(50):
        design = np.column_stack([np.ones_like(share), share])
        fixed, work = np.linalg.lstsq(design * weights[:, None] ** 0.5, seconds * weights**0.5, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(seconds - fixed - work * share), 0.02)
    return Overhead(
        start=float(np.median([row.start_s for row in used])),
        first_epoch=float(np.median([max(row.first_epoch_excess_s, 0.0) for row in used])),
        fixed=max(float(fixed), 0.0),
        work=max(float(work), 0.0),
    )
