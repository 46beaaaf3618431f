"""The time of one process, cut into parts that cannot overlap: at every moment exactly one part runs.

The parts of a Timeline add up to the time since it began, whatever the program does between: a part that begins ends
the one before it, and goes back to that one when it ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

__all__ = ["LAUNCHED", "Timeline", "process_started", "rounded"]

LAUNCHED = "SSD_LAUNCHED"
"""Environment variable: when the launcher of this host began, in seconds of time.perf_counter, which all share."""

Item = TypeVar("Item")


def process_started() -> float:
    """When this process began, in seconds of time.perf_counter: as the kernel tells, to 10 ms; else now."""
    if sys.platform != "linux":
        return time.perf_counter()
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # no /proc: what came before is not known
        age = 0.0
    return time.perf_counter() - max(age, 0.0)


def _launched(started: float) -> float:
    """When the launcher began; `started`, when this process did, where none has said so."""
    try:
        launched = float(os.environ.get(LAUNCHED, started))
    except ValueError:
        return started
    return min(launched, started)


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by name, to a microsecond, for a file."""
    return {name: round(value, 6) for name, value in seconds.items()}


class Timeline:
    """Seconds of this process by part (ssd.account.parts). Owner: the main thread.

    started: when the process began, in seconds of time.perf_counter, by default now. What lies between its launcher's
    beginning and `started` is the part "launcher".
    """

    def __init__(self, started: float | None = None) -> None:
        started = time.perf_counter() if started is None else started
        self.began = _launched(started)
        self._totals: defaultdict[str, float] = defaultdict(float)
        if started > self.began:
            self._totals["launcher"] = started - self.began
        self._since = started
        self._running = ["imports"]

    def stage(self, name: str) -> None:
        """From now on, outside of any `part`, time belongs to `name`."""
        self._charge()
        self._running[0] = name

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time inside belongs to `name`, but for parts inside of it."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time in which the next one is waited for belongs to `name`."""
        iterator = iter(items)
        while True:
            with self.part(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def divide(self, name: str, seconds: float, weights: Mapping[str, float]) -> None:
        """Move `seconds` of the part `name` to the parts of `weights`, in their proportion; none where all are 0."""
        whole = sum(weights.values())
        for part, weight in weights.items():
            if whole > 0:
                self._totals[part] += seconds * weight / whole
                self._totals[name] -= seconds * weight / whole

    def totals(self) -> dict[str, float]:
        """Seconds by part until now; they add up to `wall`."""
        self._charge()
        return dict(self._totals)

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Seconds by part since `before`, which `totals` gave; parts in which nothing was spent are left out."""
        now = self.totals()
        spent = {name: seconds - before.get(name, 0.0) for name, seconds in now.items()}
        return {name: seconds for name, seconds in spent.items() if seconds}

    def wall(self) -> float:
        """Seconds from the beginning to the moment that `totals` was last asked for, or a part began or ended."""
        return self._since - self.began

    def _charge(self) -> None:
        now = time.perf_counter()
        self._totals[self._running[-1]] += now - self._since
        self._since = now
