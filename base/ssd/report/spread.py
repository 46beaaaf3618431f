"""Several runs as one number with its spread, and the ratio of two sets of runs with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["CONFIDENCE", "Ratio", "ratio_of", "spread_text"]

CONFIDENCE = 0.95
MOST_EXACT = 10_000
"""Pairs of runs up to which the interval's confidence is counted; beyond, a normal distribution is close enough."""


@dataclass(frozen=True)
class Ratio:
    """How many times the second set's values the first set's are.

    middle: the median of the ratios of all pairs (Hodges and Lehmann). low, high: its interval, None where each set has
    one run alone. confidence: how often such an interval holds the true ratio, 0..1. runs: of each set.
    """

    middle: float
    low: float | None
    high: float | None
    confidence: float | None
    runs: tuple[int, int]

    def __str__(self) -> str:
        counts = f"n {self.runs[0]} and {self.runs[1]}"
        if self.low is None:
            return f"{self.middle:.3f} ({counts}: no interval)"
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f}, {self.confidence:.0%} interval, {counts})"


def ratio_of(values: Sequence[float], others: Sequence[float]) -> Ratio | None:
    """The ratio of two sets of positive values; None where one is empty or has a value that is not positive.

    The interval is that of the Wilcoxon-Mann-Whitney test: it asks of the spread only that it looks the same in both
    sets. Few runs cannot give 95%: then it is the whole range of the pairs, with the confidence that this has.

    >>> str(ratio_of([2.0, 2.0, 2.2], [1.0, 1.0, 1.1]))
    '2.000 (1.818 to 2.200, 90% interval, n 3 and 3)'
    """
    if not values or not others or min(*values, *others) <= 0:
        return None
    pairs = sorted(value / other for value in values for other in others)
    runs = len(values), len(others)
    if runs == (1, 1):
        return Ratio(pairs[0], None, None, None, runs)
    left_out, confidence = _left_out(*runs)
    return Ratio(median(pairs), pairs[left_out], pairs[len(pairs) - 1 - left_out], confidence, runs)


def _left_out(one: int, other: int) -> tuple[int, float]:
    """How many of the sorted pairs are left out at each end, and the confidence of the interval between."""
    pairs = one * other
    if pairs > MOST_EXACT:
        deviation = math.sqrt(pairs * (one + other + 1) / 12)
        return int(pairs / 2 - 1.96 * deviation), CONFIDENCE
    ways = _ways(one, other)
    total, below, left_out = sum(ways), ways[0], 0
    while 1 - 2 * (below + ways[left_out + 1]) / total >= CONFIDENCE:
        left_out += 1
        below += ways[left_out]
    return left_out, 1 - 2 * below / total


def _ways(one: int, other: int) -> list[int]:
    """In how many orders of both sets' values u of the pairs have the first set's value ahead, for u from 0.

    The coefficients of a Gaussian binomial: the product of (1 - q**(other + i)) / (1 - q**i) for i from 1 to `one`.
    """
    ways = [1] + [0] * (one * other)
    for i in range(1, one + 1):
        for u in range(one * other, other + i - 1, -1):
            ways[u] -= ways[u - other - i]
        for u in range(i, one * other + 1):
            ways[u] += ways[u - i]
    return ways


def spread_text(values: Sequence[float], form: str) -> str:
    """The median, and with several values the least and the most; "" without any."""
    if not values:
        return ""
    if len(values) == 1:
        return format(values[0], form)
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
