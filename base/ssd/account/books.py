"""Measured parts of a run's time, and what its records say -> the account that summary.json and the report show.

    {"wall_s": 43.2, "parts": {"imports": 2.1, ..., "end": 0.3}, "first_epoch": {...}, "sampled": {...}, "ranks": {...}}

`parts` add up to `wall_s`. The rest explains them and is not added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ssd.account.facts import Epoch, facts_of, last_process
from ssd.account.parts import PARTS

__all__ = ["first_epoch_excess", "lead_times", "make_account"]


def make_account(totals: Mapping[str, float], wall: float, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The account of a process: totals, seconds by part; wall, seconds in all; records, its run's metrics.jsonl."""
    records = last_process(records)
    epochs = facts_of(records).epochs
    excess = first_epoch_excess(epochs)
    parts = {name: totals.get(name, 0.0) for name in PARTS}
    for name, seconds in excess.items():
        parts[name] -= seconds
    if excess:
        parts["first_epoch_excess"] = sum(excess.values())
    return {
        "wall_s": round(wall, 6),
        "parts": {
            name: round(seconds, 6)
            for name, seconds in parts.items()
            if seconds or name in totals or (excess and name == "first_epoch_excess")
        },
        "first_epoch": {name: round(seconds, 6) for name, seconds in excess.items()},
        "sampled": _sampled(records),
        "ranks": _ranks(epochs),
    }


def first_epoch_excess(epochs: Sequence[Epoch]) -> dict[str, float]:
    """Seconds by part that the first epoch took longer than the median of the others, a step; {} below two epochs."""
    if len(epochs) < 2 or any(one.data_wait is None for one in epochs):
        return {}
    first, others = epochs[0], epochs[1:]
    waits = [(one.data_wait or 0.0) / one.steps for one in others]
    works = [(one.seconds - (one.data_wait or 0.0)) / one.steps for one in others]
    wait = first.data_wait or 0.0
    return {
        "data_wait": max(0.0, wait - first.steps * median(waits)),
        "step": max(0.0, first.seconds - wait - first.steps * median(works)),
    }


def _sampled(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds a sampled step by what was done in it, and each one's share of them; {} where no step was sampled."""
    told = [record["sampled"] for record in records if record["kind"] == "epoch" and record.get("sampled")]
    steps = sum(len(one["steps"]) for one in told)
    seconds: dict[str, float] = {}
    for one in told:
        for name, value in one["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + value
    whole = sum(seconds.values())
    if not steps or whole <= 0:
        return {}
    return {
        "steps": steps,
        "clock": told[-1].get("clock", "host"),
        "seconds_per_step": {name: round(value / steps, 6) for name, value in seconds.items()},
        "share": {name: round(value / whole, 4) for name, value in seconds.items()},
    }


def lead_times(epoch: Epoch) -> list[float]:
    """Seconds of an epoch that each rank needs before the ranks wait for each other: data wait and forward passes."""
    return [rank["data_wait"] + (rank.get("forward") or 0.0) * epoch.steps for rank in epoch.ranks]


def _ranks(epochs: Sequence[Epoch]) -> dict[str, Any]:
    """Who was slowest, and how long the others waited for it; {} for a run of one process."""
    several = [one for one in epochs if len(one.ranks) > 1]
    if not several:
        return {}
    sums = [sum(times) for times in zip(*(lead_times(one) for one in several), strict=True)]
    slowest = max(range(len(sums)), key=sums.__getitem__)
    others = [seconds for rank, seconds in enumerate(sums) if rank != slowest]
    return {
        "seconds": [round(seconds, 6) for seconds in sums],
        "slowest": slowest,
        "spread_s": round(sums[slowest] - min(others), 6),
        "waited_s": round(sums[slowest] - median(others), 6),
    }
