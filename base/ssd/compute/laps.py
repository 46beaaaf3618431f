"""Moments in a device's work, marked without waiting for the device.

On an accelerator a mark is an event of the device's own clock, put in the queue behind the work before it. On the CPU,
where work ends when its call returns, it is the host's time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import torch

__all__ = ["Laps"]


class Laps:
    """Seconds between marks, added up by name. Owner: the main thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """What the device was given since the last mark is called `name`; "" begins, and counts nothing."""
        if self._device.type == "cpu":
            self._marks.append((name, time.perf_counter()))
            return
        event = getattr(torch, self._device.type).Event(enable_timing=True)
        event.record()
        self._marks.append((name, event))

    def seconds(self) -> dict[str, float]:
        """Seconds by name. Only when the device has passed the last mark, which is not waited for here."""
        found: defaultdict[str, float] = defaultdict(float)
        for (_, before), (name, mark) in zip(self._marks, self._marks[1:], strict=False):
            if name:
                found[name] += mark - before if self._device.type == "cpu" else before.elapsed_time(mark) / 1000
        return dict(found)
