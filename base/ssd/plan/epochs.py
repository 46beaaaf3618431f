"""Epochs to the target at a global batch: the ruleset's reference convergence points, and the spread of published runs.

The reference says how many epochs its runs needed on average at a batch. Published runs end at an evaluation, so they
need a little more. The ratio of each published run's epochs to the reference's mean is the spread that is used here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np

from ssd.counts import evaluation_epochs
from ssd.mlperf.limits import RESULTS, olympic_mean, reference_convergence
from ssd.plan.model import is_fitted
from ssd.plan.rows import Row

__all__ = [
    "LARGEST_BATCH",
    "EpochSpread",
    "epoch_spread",
    "evaluations_until",
    "pass_probability",
    "reference_epochs",
]

LARGEST_BATCH = 4096
"""The largest global batch with a reference point. Above it no result of the closed division passes."""
RULESET = "1.1.0"


def reference_epochs(global_batch: int) -> float | None:
    """The mean epochs of the reference at a global batch. None above the largest reference point."""
    point = reference_convergence(RULESET, global_batch)
    return None if point is None else point.mean_epochs


@dataclass(frozen=True)
class EpochSpread:
    """The spread of epochs. ratios: sorted, published runs' epochs divided by the reference's mean at the batch."""

    ratios: tuple[float, ...]

    def epochs(self, global_batch: int) -> tuple[float, float, float] | None:
        """The 10th, 50th and 90th percentile of a run's epochs. None where the reference has no point."""
        mean = reference_epochs(global_batch)
        if mean is None:
            return None
        low, middle, high = (mean * float(np.quantile(self.ratios, share)) for share in (0.1, 0.5, 0.9))
        return low, middle, high


def epoch_spread(rows: Sequence[Row]) -> EpochSpread:
    """The spread over all runs of the fitted rounds' rows."""
    ratios = [
        epoch / mean
        for row in rows
        if is_fitted(row) and (mean := reference_epochs(row.global_batch)) is not None
        for epoch in row.epochs
    ]
    return EpochSpread(tuple(sorted(ratios)))


def evaluations_until(epoch: float, last: int, listed: Iterable[int], interval: int) -> int:
    """How many evaluations a run makes until an epoch. last, listed, interval: as in `ssd.counts.evaluation_epochs`.

    Beyond the config's last epoch it goes on at its interval; with listed epochs, at the distance of the last two.
    """
    due = evaluation_epochs(last, listed, interval)
    distance = due[-1] - due[-2] if len(due) > 1 else interval
    beyond = max(0, math.ceil((epoch - last) / distance)) if epoch > last else 0
    return max(1, sum(one <= epoch for one in due) + beyond)


@cache
def pass_probability(spread: EpochSpread, global_batch: int) -> float | None:
    """The probability that five runs pass the reference-convergence check. None where the reference has no point.

    The check takes the mean of five runs without the fastest and the slowest. This mean must not be less than the
    reference's least mean. Every multiset of five ratios is enumerated, weighted by its frequency in published runs.
    """
    point = reference_convergence(RULESET, global_batch)
    if point is None:
        return None
    counts = Counter(round(ratio, 3) for ratio in spread.ratios)
    total = sum(counts.values())
    passed = 0.0
    for chosen in combinations_with_replacement(sorted(counts), RESULTS):
        orders = math.factorial(RESULTS) / math.prod(map(math.factorial, Counter(chosen).values()))
        weight = orders * math.prod(counts[ratio] / total for ratio in chosen)
        if olympic_mean([ratio * point.mean_epochs for ratio in chosen]) >= point.least_mean_epochs:
            passed += weight
    return passed
