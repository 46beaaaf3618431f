"""Sizes and counts of a run that every room may read: pixels of an image, steps of an epoch, epochs that evaluate.

Functions of plain numbers, so that a schedule, a sampler, a forecast and a result log agree on them.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DRAWS", "IMAGE_SIZE", "evaluation_epochs", "last_step", "steps_per_epoch"]

IMAGE_SIZE = 300
"""Width and height of the network's input, in pixels."""
DRAWS = 1
"""The scheme by which an epoch's order, crops and colours are drawn from a seed. A change of what is drawn takes the
next number, so that results drawn in two ways are never taken for runs of one thing (tests/run/test_facts.py)."""


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Optimizer steps of an epoch. The last step is full too: repeated samples fill it up."""
    return -(-samples // global_batch)


def last_step(epochs: int, steps_per_epoch: int, max_steps: int | None) -> int:
    """The number of the last optimizer step of a run, from 1: its last epoch's, or `max_steps` where that is less."""
    steps = epochs * steps_per_epoch
    return steps if max_steps is None else min(steps, max_steps)


def evaluation_epochs(epochs: int, listed: Iterable[int], interval: int) -> tuple[int, ...]:
    """Epochs after which a run evaluates, in ascending order.

    These are the `listed` ones, or every `interval`-th epoch where none is listed; and always the last epoch.
    """
    chosen = tuple(listed) or range(interval, epochs, interval)
    return *sorted({epoch for epoch in chosen if epoch < epochs}), epochs
