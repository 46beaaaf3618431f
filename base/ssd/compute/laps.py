"""Moments in a device's work, marked without waiting for the device.

On an accelerator a mark is an event of the device's own clock, put in the queue behind the work before it. On the CPU,
where work ends when its call returns, it is the host's time; and so on a device without timed events, where it says
when work was given and not when it ended.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from ssd.compute.device import Abilities

__all__ = ["Laps"]


class Laps:
    """Seconds between marks, added up by name. Owner: the main thread."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        self._marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """What the device was given since the last mark is called `name`; "" begins, and counts nothing."""
        timed = self._abilities.timed_events
        self._marks.append((name, self._abilities.event() if timed else time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds by name. Only when the device has passed the last mark, which is not waited for here."""
        found: defaultdict[str, float] = defaultdict(float)
        timed = self._abilities.timed_events
        for (_, before), (name, mark) in zip(self._marks, self._marks[1:], strict=False):
            if name:
                found[name] += before.elapsed_time(mark) / 1000 if timed else mark - before
        return dict(found)
