"""A trace of torch's profiler, read: where a step's time goes, by part and by operation, and the first thing to fix.

A part is a range that the profiled step was given, named PREFIX and a word, such as `ssd: forward`. STEP is the range
of a whole step. On an accelerator the host only launches work, so a part also has the time of the kernels that were
launched inside of it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["PREFIX", "STEP", "Part", "Profile", "read_trace"]

PREFIX = "ssd: "
STEP = "step"
MOST_OPS = 10
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset", "privateuse1")
"""Categories of the trace whose events are work of a device."""
LAUNCHES, WAITS = ("Launch",), ("Synchronize",)
"""What is in the names of a runtime's calls that launch work, and that make the host wait for the device."""
DATA_BOUND, IDLE = 0.1, 0.25
"""Shares of a step: waiting for batches from which the loader is the first thing to fix; an idle device."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """One part of a step. Times in ms a step; device_ms: of its kernels, None on a CPU.

    memory_mib: its peak, above what was allocated when the profile began.
    """

    name: str
    ms: float
    device_ms: float | None
    memory_mib: float | None
    host_synchronisations: float


@dataclass(frozen=True)
class Profile:
    """What a trace says of a step. Times in ms a step, counts a step.

    ops: (name, ms, times): operations by their own time, without what they call; on an accelerator its kernels.
    launches: of kernels or graphs; on a CPU operations that call no other. synchronisations: operation or call ->
    times that the host waited for the device, or would on an accelerator.
    """

    steps: int
    step_ms: float
    device_ms: float | None
    parts: Sequence[Part]
    ops: Sequence[tuple[str, float, float]]
    launches: float
    synchronisations: Mapping[str, float]

    @property
    def first_to_fix(self) -> str:
        """The first thing to look at, in words."""
        if self.synchronisations:
            name, times = max(self.synchronisations.items(), key=lambda one: one[1])
            where = max(self.parts, key=lambda part: part.host_synchronisations).name
            return (
                f"{name} makes the host wait for the device {times:g} times a step, in {where}: nothing in a step "
                "should. Keep the value on the device, or read it as the loss watch does."
            )
        waiting = next((part.ms for part in self.parts if part.name == "data"), 0.0)
        if waiting > DATA_BOUND * self.step_ms:
            return (
                f"A step waits for its batch for {waiting / self.step_ms:.0%} of its time: raise num_workers, or take "
                "another data_backend (docs/loaders.md)."
            )
        if self.device_ms is not None and self.device_ms < (1 - IDLE) * self.step_ms:
            return (
                f"The device works for {self.device_ms / self.step_ms:.0%} of a step, which has {self.launches:g} "
                "launches: capture it (cuda_graph = true), compile it, or give each device more images."
            )
        largest = max(self.parts, key=lambda part: part.ms if part.device_ms is None else part.device_ms)
        time, whole = (largest.ms, self.step_ms) if largest.device_ms is None else (largest.device_ms, self.device_ms)
        said = f"{largest.name} takes the most, {time / (whole or 1):.0%}"
        if self.ops:
            said += f"; of all operations {self.ops[0][0]} takes the most, {self.ops[0][1] / (whole or 1):.0%}"
        return f"{said}. Nothing waits that should not, so faster kernels or arithmetic are what is left."

    def as_json(self, **about: Any) -> str:
        """Everything; `about` says what was profiled."""
        content = {"schema": "ssd-profile-1", **about, **asdict(self), "first_to_fix": self.first_to_fix}
        return json.dumps(content, indent=1) + "\n"


def read_trace(events: Iterable[Event], waits: Callable[[str], bool]) -> Profile:
    """The profile of a trace's `traceEvents`. waits: whether an operation, by its name, makes the host wait.

    Raises ValueError where no step was profiled.
    """
    known = [one for one in events if one.get("ph") in ("X", "i")]
    ranges = [one for one in known if one.get("cat") == "user_annotation" and one["name"].startswith(PREFIX)]
    steps = _windows(ranges, STEP)
    if not steps:
        raise ValueError("the trace holds no step")
    count = len(steps)
    ops = [one for one in known if one.get("cat") == "cpu_op" and _inside(steps, one["ts"])]
    calls = [one for one in known if "runtime" in one.get("cat", "") and _inside(steps, one["ts"])]
    launched_at = {_correlation(one): one["ts"] for one in calls}
    kernels = [
        {**one, "launched": launched_at[_correlation(one)]}
        for one in known
        if one.get("cat") in ON_DEVICE and _correlation(one) in launched_at
    ]
    waiting = [one for one in ops if waits(one["name"])] + [one for one in calls if _says(one, WAITS)]
    memory = [one for one in known if one["name"] == "[memory]" and (one["args"]["Device Type"] == 0) != bool(kernels)]
    names = dict.fromkeys(one["name"].removeprefix(PREFIX) for one in sorted(ranges, key=lambda one: one["ts"]))
    parts = [
        Part(
            name=name,
            ms=sum(end - begin for begin, end in windows) / 1000 / count,
            device_ms=_milliseconds(kernels, windows, "launched") / count if kernels else None,
            memory_mib=_peak(memory, windows),
            host_synchronisations=sum(_inside(windows, one["ts"]) for one in waiting) / count,
        )
        for name in names
        if name != STEP
        for windows in [_windows(ranges, name)]
    ]
    own, leaves = _own_times(ops)
    if kernels:
        own = [(one["name"], one["dur"]) for one in kernels]
    launches = sum(_says(one, LAUNCHES) for one in calls) if kernels else leaves
    return Profile(
        steps=count,
        step_ms=sum(end - begin for begin, end in steps) / 1000 / count,
        device_ms=_milliseconds(kernels, steps, "launched") / count if kernels else None,
        parts=parts,
        ops=_largest(own, count),
        launches=launches / count,
        synchronisations={name: n / count for name, n in Counter(one["name"] for one in waiting).items()},
    )


def _windows(ranges: Iterable[Event], name: str) -> list[tuple[float, float]]:
    """Begin and end of each range of a name, in the order of time."""
    return sorted((one["ts"], one["ts"] + one["dur"]) for one in ranges if one["name"] == PREFIX + name)


def _inside(windows: Sequence[tuple[float, float]], at: float) -> bool:
    place = bisect_right(windows, (at, float("inf"))) - 1
    return place >= 0 and at < windows[place][1]


def _correlation(event: Event) -> Any:
    return event.get("args", {}).get("correlation", event.get("args", {}).get("External id"))


def _says(event: Event, words: Sequence[str]) -> bool:
    return any(word in event["name"] for word in words)


def _milliseconds(events: Iterable[Event], windows: Sequence[tuple[float, float]], at: str) -> float:
    return sum(one["dur"] for one in events if _inside(windows, one[at])) / 1000


def _peak(memory: Sequence[Event], windows: Sequence[tuple[float, float]]) -> float | None:
    """The most that was allocated inside of the windows, in MiB above the beginning of the profile."""
    if not memory:
        return None
    ordered = sorted(memory, key=lambda one: one["ts"])
    before = ordered[0]["args"]["Total Allocated"] - ordered[0]["args"]["Bytes"]
    held = [one["args"]["Total Allocated"] for one in ordered if _inside(windows, one["ts"])]
    return (max(held, default=before) - before) / 2**20


def _own_times(ops: Sequence[Event]) -> tuple[list[tuple[str, float]], int]:
    """The time of each operation without those that it calls, in microseconds; and how many call no other."""
    own, leaves = [], 0
    by_thread: defaultdict[Any, list[Event]] = defaultdict(list)
    for one in ops:
        by_thread[one["tid"]].append(one)
    for events in by_thread.values():
        events.sort(key=lambda one: (one["ts"], -one["dur"]))
        called = [0.0] * len(events)
        open_: list[int] = []
        for place, one in enumerate(events):
            while open_ and one["ts"] >= events[open_[-1]]["ts"] + events[open_[-1]]["dur"]:
                open_.pop()
            if open_:
                called[open_[-1]] += one["dur"]
            open_.append(place)
        own += [(one["name"], one["dur"] - inner) for one, inner in zip(events, called, strict=True)]
        leaves += sum(
            inner == 0 and one["name"].startswith("aten::") for one, inner in zip(events, called, strict=True)
        )
    return own, leaves


def _largest(times: Iterable[tuple[str, float]], count: int) -> list[tuple[str, float, float]]:
    """Name, ms a step and times a step of the operations that take the most."""
    total: defaultdict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for name, microseconds in times:
        total[name] += microseconds
        calls[name] += 1
    ordered = sorted(total, key=lambda name: -total[name])[:MOST_OPS]
    return [(name, total[name] / 1000 / count, calls[name] / count) for name in ordered]
