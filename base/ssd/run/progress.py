"""What a run shows and keeps while it goes: metrics.jsonl, a live line on a terminal, plain lines elsewhere; its clock.

The clock has one owner: time is counted apart for data, step, evaluation and checkpoint, and throughput leaves out the
first interval (warm-up of caches and kernels), evaluations and checkpoints.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor

__all__ = ["Clock", "DelayedRead", "Metrics", "ProgressLine"]

log = logging.getLogger(__name__)


class Clock:
    """Seconds spent in each kind of work since `start`, and the training rate.

    already: totals of the earlier parts of a resumed run, by kind, "run" the whole.
    """

    def __init__(self, already: dict[str, float]) -> None:
        self._already = already
        self._started = time.perf_counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._marks: list[tuple[float, int]] = []

    def start(self) -> None:
        """The timed part begins: run_start."""
        self._started = time.perf_counter()

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Add the time inside to `kind`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - begin

    def totals(self) -> dict[str, float]:
        """Seconds by kind, and "run" since run_start, with those of the parts before a resume."""
        now = {**self.seconds, "run": time.perf_counter() - self._started}
        return {kind: now.get(kind, 0.0) + self._already.get(kind, 0.0) for kind in {*now, *self._already}}

    def mark(self, images: int, at: float) -> float:
        """Note that `images` were trained at the time `at` (of time.perf_counter); images/s since the last mark, or 0.

        Call it before the next evaluation or checkpoint, whose time is left out.
        """
        elapsed = at - self._started
        self._marks.append((elapsed - self.seconds["evaluation"] - self.seconds["checkpoint"], images))
        return self._rate(self._marks[-2:])

    def images_per_second(self) -> float:
        """Training rate from the first mark on, evaluations and checkpoints left out; 0 before the second mark."""
        return self._rate([self._marks[0], self._marks[-1]] if self._marks else [])

    @staticmethod
    def _rate(marks: list[tuple[float, int]]) -> float:
        if len(marks) < 2 or marks[1][0] <= marks[0][0]:
            return 0.0
        return (marks[1][1] - marks[0][1]) / (marks[1][0] - marks[0][0])


class DelayedRead:
    """Brings device scalars to the host without stopping the device: copied when put, read one `put` later.

    On the CPU nothing is in flight and a value can be read at once. Which values `take` yields depends on the order of
    calls alone, never on timing, so that all ranks read the same ones at the same step. The time at which the device
    came to a value is the device's own: reading happens an interval later, and at the end of an epoch at once.
    """

    def __init__(self, device: torch.device) -> None:
        """Waits for the device once, to set its clock beside the host's."""
        self._device = device
        self._pending: list[tuple[dict[str, Any], Tensor, Any, float]] = []
        if device.type != "cpu":
            self._origin = self._event()
            self._origin.synchronize()
            self._origin_at = time.perf_counter()

    def _event(self) -> Any:
        event = getattr(torch, self._device.type).Event(enable_timing=True)
        event.record()
        return event

    def put(self, tensor: Tensor, **about: Any) -> None:
        """Start copying `tensor`; `about` comes back with its value."""
        if self._device.type == "cpu":
            self._pending.append((about, tensor.clone(), None, time.perf_counter()))
            return
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        self._pending.append((about, host, self._event(), 0.0))

    def take(self, everything: bool = False) -> Iterator[tuple[dict[str, Any], float, float]]:
        """Yield what was put, its value, and when (time.perf_counter) the device had it; oldest first.

        All but the newest on an accelerator, all on the CPU or where `everything`.
        """
        keep = 0 if everything or self._device.type == "cpu" else 1
        while len(self._pending) > keep:
            about, host, done, at = self._pending.pop(0)
            if done is not None:
                done.synchronize()  # long past, but for `everything`: the end of an epoch may wait for the device
                at = self._origin_at + self._origin.elapsed_time(done) / 1000
            yield about, host.item(), at


class Metrics:
    """metrics.jsonl: one JSON object a line, flushed at once. `None` writes nothing (other ranks)."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a", encoding="utf-8") if path else None
        self._lock = threading.Lock()  # telemetry is written from a thread of its own

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record: its kind, the time in Unix seconds, and the fields."""
        if self._file:
            line = json.dumps({"kind": kind, "time": round(time.time(), 3), **fields}) + "\n"
            with self._lock:
                self._file.write(line)
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


class ProgressLine:
    """A live line on a terminal, a log line an interval elsewhere. `shown=False` shows nothing (other ranks)."""

    def __init__(self, total_steps: int, shown: bool) -> None:
        self._total = total_steps
        self._shown = shown
        self._live: Progress | None = None
        self._task: TaskID | None = None
        if shown and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[now]}"),
            )
            self._live = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> ProgressLine:
        if self._live:
            self._live.start()
            self._task = self._live.add_task("training", total=self._total, now="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def step(
        self, step: int, epoch: int, loss: float, learning_rate: float, images_per_second: float, eta: float
    ) -> None:
        """Show where the run is: `step` optimizer steps are done; `eta` is seconds to the last epoch."""
        now = (
            f"step {step}/{self._total}  epoch {epoch}  loss {loss:.3f}  lr {learning_rate:.3g}  "
            f"{images_per_second:.1f} images/s"
        )
        if math.isfinite(eta):  # unknown until two intervals are over; the target may be met before the last epoch
            now += f"  at most {eta / 60:.1f} min left"
        if self._live and self._task is not None:
            self._live.update(self._task, completed=step, now=now)
        elif self._shown:
            log.info(now)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        elif self._shown:
            log.info(text)
