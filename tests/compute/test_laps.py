"""Marks on a device's clock: seconds by name, and nothing waits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ssd.compute import laps
from ssd.compute.laps import Laps

HOST = SimpleNamespace(timed_events=False)


def test_without_timed_events_marks_are_the_host_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0, 5.0, 100.0, 101.0, 103.0])
    monkeypatch.setattr(laps.time, "perf_counter", lambda: next(now))
    lap = Laps(HOST)  # type: ignore[arg-type]
    for name in ("", "forward", "backward", "", "forward", "backward"):
        lap.mark(name)
    assert lap.seconds() == {"forward": 3.0, "backward": 5.0}, "the pause before the second beginning is nobody's"


class Event:
    """A mark that the device passes 4 s after the one before. It has no synchronize: waiting would raise."""

    now = 0.0

    def __init__(self) -> None:
        Event.now += 4.0
        self.at = Event.now

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds."""
        return 1000 * (later.at - self.at)


def test_on_a_device_marks_are_its_events_and_are_not_waited_for() -> None:
    lap = Laps(SimpleNamespace(timed_events=True, event=Event))  # type: ignore[arg-type]
    for name in ("", "eval_forward", "eval_detect"):
        lap.mark(name)
    assert lap.seconds() == {"eval_forward": 4.0, "eval_detect": 4.0}


def test_nothing_marked_is_nothing() -> None:
    assert Laps(HOST).seconds() == {}  # type: ignore[arg-type]
