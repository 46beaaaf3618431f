"""Measures the parts of a step, on a few steps of each epoch.

Steps overlap on an accelerator: the host is ahead of the device, and communication overlaps with the backward pass. So
these times are shares of the sampled steps. They are details of the account's part "step", and are never added to the
account's parts.
"""

from __future__ import annotations

from typing import Any

from ssd.account.timeline import rounded
from ssd.compute.device import Abilities
from ssd.compute.laps import Laps

__all__ = ["STEPS_PER_EPOCH", "Sampling", "read_laps"]

STEPS_PER_EPOCH = 3
"""The number of steps of an epoch that are sampled. They are spread evenly. The first step, a warm-up, is left out."""


class Sampling:
    """Times the parts of the sampled steps without synchronising with the device. Owner: the main thread."""

    def __init__(self, abilities: Abilities, steps_per_epoch: int) -> None:
        self._abilities = abilities
        places = {round(steps_per_epoch * (n + 0.5) / STEPS_PER_EPOCH) for n in range(STEPS_PER_EPOCH)}
        self._sampled = {place for place in places if 0 < place < steps_per_epoch}
        self._laps: Laps | None = None
        self._steps: list[int] = []
        self._taken: list[Laps] = []

    def begin(self, step: int, place: int) -> None:
        """Call it at the start of optimizer step `step`. place: the step's number in its epoch, from 0."""
        self._laps = None
        if place in self._sampled:
            self._laps = Laps(self._abilities)
            self._taken.append(self._laps)
            self._steps.append(step)

    def mark(self, name: str) -> None:
        """Call the work since the last mark `name`. "" marks the start of a micro-batch."""
        if self._laps is not None:
            self._laps.mark(name)

    def take(self) -> tuple[list[int], list[Laps]]:
        """The steps sampled since the last call, and their marks, for `read_laps`. It does not wait for the device."""
        steps, taken = self._steps, self._taken
        self._steps, self._taken, self._laps = [], [], None
        return steps, taken


def read_laps(steps: list[int], taken: list[Laps]) -> dict[str, Any]:
    """What `Sampling.take` gave, as the steps and their seconds by name. The device must have finished them."""
    seconds: dict[str, float] = {}
    for laps in taken:
        for name, one in laps.seconds().items():
            seconds[name] = seconds.get(name, 0.0) + one
    if "forward" not in seconds and "backward" in seconds:  # a captured step is one piece
        seconds = {"forward and backward" if name == "backward" else name: one for name, one in seconds.items()}
    return {"steps": steps, "seconds": rounded(seconds)}
