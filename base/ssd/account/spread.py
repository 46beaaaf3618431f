"""Shapes in a row of numbers that anomalies are made of: one that grew, a shift, two groups; and busy readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

__all__ = ["busy", "grown", "is_rising", "shift", "spikes", "two_groups"]


def grown(times: Sequence[float], factor: float, seconds: float) -> int | None:
    """The place of the time that exceeds the median of those before it the most, from the second on.

    None where none exceeds it by both `factor` and `seconds`.
    """
    found = [
        (times[place] - before, place)
        for place in range(1, len(times))
        if times[place] > factor * (before := median(times[:place])) and times[place] > before + seconds
    ]
    return max(found)[1] if found else None


WINDOW = 12
"""Values before one that it is compared with."""


def spikes(values: Sequence[float], factor: float) -> list[tuple[int, float]]:
    """Places of values far above the WINDOW values before them, each with the median of those.

    Far is `factor` times the median, and 8 times the median distance from it.
    """
    found = []
    for place in range(WINDOW, len(values)):
        before = values[place - WINDOW : place]
        middle = median(before)
        distance = median(abs(value - middle) for value in before)
        if values[place] > max(factor * middle, middle + 8 * distance):
            found.append((place, middle))
    return found


def is_rising(values: Sequence[float]) -> bool:
    """Whether four or more values go up in four of five steps from one to the next."""
    return len(values) >= 4 and sum(b > a for a, b in pairwise(values)) >= 0.8 * (len(values) - 1)


def shift(values: Sequence[float]) -> tuple[float, float] | None:
    """Medians of the first and the last third; None below nine values."""
    third = len(values) // 3
    return None if third < 3 else (median(values[:third]), median(values[-third:]))


def two_groups(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Medians of two groups that values fall into, again and again, and the lower one's share; None where they do not.

    A fifth of at least 12 values lies in each, the groups' medians are 15% and five of their own spreads apart, and the
    values go over and back at least four times: else it is a drift, or a stall.
    """
    if len(values) < 12:
        return None
    ordered = sorted(values)
    gaps = [(after - before, place) for place, (before, after) in enumerate(pairwise(ordered), 1)]
    inner = [one for one in gaps if len(values) / 5 <= one[1] <= len(values) * 4 / 5]
    _, cut = max(inner)
    low, high = ordered[:cut], ordered[cut:]
    below, above = median(low), median(high)
    spread = max(median(abs(value - middle) for value in group) for group, middle in ((low, below), (high, above)))
    apart = above - below > 0.15 * above and above - below > 5 * spread
    sides = [value >= high[0] for value in values]
    turns = sum(one != other for one, other in pairwise(sides))
    return (below, above, len(low) / len(values)) if apart and turns >= 4 else None


BUSY = 50.0
"""A device is busy from half of its use_percent on. One that does not tell its use is taken as busy."""


def busy(telemetry: Sequence[Mapping[str, Sequence[float | None]]], name: str) -> dict[int, list[float]]:
    """Readings of `name` by device, of the moments in which it worked."""
    found: dict[int, list[float]] = {}
    for record in telemetry:
        uses = record.get("use_percent") or []
        for device, value in enumerate(record.get(name) or []):
            use = uses[device] if device < len(uses) else None
            if value is not None and (use is None or use >= BUSY):
                found.setdefault(device, []).append(value)
    return found
