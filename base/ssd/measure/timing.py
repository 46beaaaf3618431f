"""Calls that are run in turn, many times, in one process: what disturbs the machine disturbs all of them.

The figure of a comparison is the ratio of the medians. Its quartiles come from the ratios of the single turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Ratio", "alternate", "ratio_of", "spread"]


@dataclass(frozen=True)
class Ratio:
    """How many times one figure is another: the ratio of the medians, and the quartiles of the turns' ratios."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def alternate(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call, run in turn `rounds` times after some turns that do not count.

    clock: `time.process_time` counts the CPU's time of this process, which other programs on busy cores disturb less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-warm_up, rounds):
        for name, call in calls.items():
            start = clock()
            call()
            if turn >= 0:
                seconds[name].append(clock() - start)
    return seconds


def ratio_of(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """above / below, two lists of figures of the same turns. Raises ValueError for lists of different lengths."""
    turns = [a / b for a, b in zip(above, below, strict=True)]
    low, _, high = statistics.quantiles(turns, n=4) if len(turns) > 1 else (turns[0],) * 3
    return Ratio(statistics.median(above) / statistics.median(below), low, high)


def spread(seconds: Mapping[str, Sequence[float]]) -> float | None:
    """How far apart the quartiles of the least steady call are, as a share of its median; None for a single round.

    Differences below it are not resolved.
    """
    quartiles = [statistics.quantiles(times, n=4) for times in seconds.values() if len(times) > 1]
    return max((round((high - low) / middle, 3) for low, middle, high in quartiles), default=None)
