"""What a run measures while it trains: seconds by kind of work, values that are read back late, and metrics.jsonl.

The time of data, evaluation and checkpoints is counted separately. The throughput leaves out the first logging interval
(warm-up of caches and kernels), evaluations and checkpoints.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ssd.account.timeline import Timeline
from ssd.compute.device import Abilities
from ssd.run.rewind import synced_size
from ssd.run.tensorboard import Draw

__all__ = ["METRICS_SCHEMA", "Arrived", "Clock", "DelayedRead", "Metrics"]

METRICS_SCHEMA = "ssd-metrics-1"
"""What the records of metrics.jsonl are (docs/metrics.schema.json): another number where a field changes or goes."""

PART_OF = {"data": "data_wait", "evaluation": "eval_gather", "checkpoint": "checkpoint"}
"""For each kind of work that `Clock` measures: its part of the run's account. An evaluation has finer parts inside."""


class Clock:
    """Measures the seconds of each kind of work since run_start, and the training rate in images/s.

    already: the seconds of the run before it was resumed, by kind; "run" is the whole time. timeline: the account of
    the whole process, in which each measurement becomes a part.
    Owner: the main thread. No other thread may call it.
    """

    def __init__(self, already: Mapping[str, float], timeline: Timeline | None = None) -> None:
        self._already = already
        self.timeline = timeline or Timeline()
        self._started = time.perf_counter()
        self._started_cpu = time.process_time()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._marks: list[tuple[float, int]] = []

    def start(self) -> None:
        """Call it at run_start, where the timed part begins."""
        self._started = time.perf_counter()
        self._started_cpu = time.process_time()

    def cores(self) -> float:
        """The CPU seconds of this process, all its threads, a second since `start`: the cores that it kept busy."""
        elapsed = time.perf_counter() - self._started
        return (time.process_time() - self._started_cpu) / elapsed if elapsed > 0 else 0.0

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """A context whose time is added to `kind`, a key of PART_OF."""
        begin = time.perf_counter()
        try:
            with self.timeline.part(PART_OF[kind]):
                yield
        finally:
            self.seconds[kind] += time.perf_counter() - begin

    def totals(self) -> dict[str, float]:
        """The seconds by kind, and "run" for all since run_start. The time before a resume is included."""
        now = {**self.seconds, "run": time.perf_counter() - self._started}
        return {kind: now.get(kind, 0.0) + self._already.get(kind, 0.0) for kind in {*now, *self._already}}

    def paused(self) -> float:
        """The seconds since `start` of evaluations and checkpoints, in which the run did not train."""
        return self.seconds["evaluation"] + self.seconds["checkpoint"]

    def mark(self, images: int, at: float, paused: float) -> float:
        """Note that `images` were trained at the time `at`; the rate since the last mark in images/s, 0 for the first.

        at: of time.perf_counter. paused: what `paused()` said when the last of these images was put to work.
        """
        self._marks.append((at - paused, images))
        return self._rate(self._marks[-2:])

    def images_per_second(self) -> float:
        """Training rate from the first mark on, evaluations and checkpoints left out; 0 before the second mark."""
        return self._rate([self._marks[0], self._marks[-1]] if self._marks else [])

    @staticmethod
    def _rate(marks: list[tuple[float, int]]) -> float:
        if len(marks) < 2 or marks[1][0] <= marks[0][0]:
            return 0.0
        return (marks[1][1] - marks[0][1]) / (marks[1][0] - marks[0][0])


@dataclass(frozen=True)
class Arrived:
    """A value that has arrived from the device.

    about, paused: the arguments of `DelayedRead.put`. value: a number, or the list of numbers of a tensor (n,). at: the
    time at which the device had computed it, in seconds of time.perf_counter.
    """

    about: dict[str, Any]
    paused: float
    value: Any
    at: float


@dataclass(frozen=True)
class _Pending:
    """A value on its way. copied: the device's event after the copy; None where it is here, `at` being when it came."""

    about: dict[str, Any]
    paused: float
    host: Tensor
    copied: Any
    at: float


class DelayedRead:
    """Copies small tensors, () or (n,), from the device to the host without synchronising with the device.

    The copy of a value starts when the value is put, and the value is read after the next `put`. On the CPU a value can
    be read at once. That is also so on a device without timed events, where `put` waits for the value. Which values
    `read` yields depends on the order of calls and never on timing, so all ranks read the same values at the same step.
    The time of a value is measured by the device, because the host reads the value later.
    Owner: the main thread.
    """

    def __init__(self, abilities: Abilities) -> None:
        """Waits for the device once, to set its clock beside the host's. abilities: the device's."""
        self._abilities = abilities
        self._pending: deque[_Pending] = deque()
        if abilities.timed_events:
            self._origin = abilities.event()
            self._origin.synchronize()
            self._origin_at = time.perf_counter()

    def put(self, tensor: Tensor, about: dict[str, Any], paused: float = 0.0) -> None:
        """Start to copy `tensor`, () or (n,) of any dtype. `about` and `paused` are returned with its value."""
        if not self._abilities.timed_events:
            self._pending.append(_Pending(about, paused, tensor.to("cpu", copy=True), None, time.perf_counter()))
            return
        pinned = self._abilities.pinned_memory
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        host.copy_(tensor, non_blocking=pinned)
        self._pending.append(_Pending(about, paused, host, self._abilities.event(), 0.0))

    def read(self) -> Iterator[Arrived]:
        """Yield what has arrived, oldest first: all but the newest where the device has timed events, else all."""
        return self._take(1 if self._abilities.timed_events else 0)

    def drain(self) -> Iterator[Arrived]:
        """Yield everything that was put, oldest first. Waits for the device."""
        return self._take(0)

    def _take(self, keep: int) -> Iterator[Arrived]:
        while len(self._pending) > keep:
            one = self._pending.popleft()
            at = one.at
            if one.copied is not None:
                # Recorded an interval ago, so it is past, but for the newest of `drain`.
                at = self._origin_at + self._abilities.seconds_between(self._origin, one.copied)
            yield Arrived(one.about, one.paused, one.host.tolist(), at)


class Metrics:
    """metrics.jsonl: one JSON object a line, flushed at once. `None` writes nothing (other ranks).

    Owner of the file: who holds the lock. The main thread and the telemetry's both write.
    """

    def __init__(self, path: Path | None, draw: Draw | None = None) -> None:
        """draw: what else is told each record's kind and fields (ssd.run.tensorboard)."""
        self._path, self._draw = path, draw
        self._file = path.open("a", encoding="utf-8") if path else None
        self._lock = threading.Lock()

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record: its kind, the time in Unix seconds, and the fields."""
        if self._file:
            line = json.dumps({"kind": kind, "time": round(time.time(), 3), **fields}) + "\n"
            try:
                with self._lock:
                    self._file.write(line)
                    self._file.flush()
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._file.name) from error
            if self._draw:
                self._draw(kind, fields)

    def synced_size(self) -> int:
        """Bytes of whole lines so far, all of them on the disk."""
        assert self._path is not None
        with self._lock:
            return synced_size(self._path)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
