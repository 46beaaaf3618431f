"""The time of a process in parts that cannot overlap: whatever happens, they add up to the wall clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time as real_time

import pytest

from ssd.account import timeline
from ssd.account.parts import PARTS, evaluation_parts
from ssd.account.timeline import LAUNCHED, Timeline, process_started


class FakeTime:
    """A clock that the test moves."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(timeline.time, "perf_counter", fake.perf_counter)
    monkeypatch.delenv(LAUNCHED, raising=False)
    return fake


def test_a_part_inside_of_a_part_is_taken_out_of_it(time: FakeTime) -> None:
    line = Timeline()
    time.now += 1
    line.stage("set_up")
    time.now += 2
    with line.part("step"):
        time.now += 4
        with line.part("data_wait"):
            time.now += 8
        time.now += 16
    time.now += 32
    assert line.totals() == {"imports": 1, "set_up": 34, "step": 20, "data_wait": 8}
    assert line.wall() == 63


def test_a_part_that_raises_is_counted_and_left(time: FakeTime) -> None:
    def fail() -> None:
        with line.part("step"):
            time.now += 3
            raise KeyError

    line = Timeline()
    with pytest.raises(KeyError):
        fail()
    time.now += 5
    assert line.totals() == {"imports": 5, "step": 3}


def test_waiting_for_items_belongs_to_their_part_and_working_on_them_does_not(time: FakeTime) -> None:
    def slow():
        for item in "ab":
            time.now += 10
            yield item
        time.now += 1

    line, seen = Timeline(), []
    with line.part("eval_detect"):
        for item in line.each("eval_images", slow()):
            seen.append(item)
            time.now += 100
    assert seen == ["a", "b"]
    assert line.totals() == {"imports": 0, "eval_images": 21, "eval_detect": 200}


def test_a_part_is_divided_and_nothing_is_lost(time: FakeTime) -> None:
    line = Timeline()
    with line.part("eval_detect"):
        time.now += 12
    line.divide("eval_detect", 8.0, {"eval_forward": 3.0, "eval_detect": 1.0})
    assert line.totals() == {"imports": 0, "eval_detect": 6, "eval_forward": 6}
    line.divide("eval_detect", 6.0, {})
    line.divide("eval_detect", 6.0, {"eval_forward": 0.0})
    assert sum(line.totals().values()) == line.wall() == 12


def test_what_was_spent_since(time: FakeTime) -> None:
    line = Timeline()
    time.now += 1
    before = line.totals()
    with line.part("step"):
        time.now += 2
    assert line.since(before) == {"step": 2}


def test_the_launcher_s_time_comes_before_the_process_s(time: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAUNCHED, "90.5")
    line = Timeline(started=97.0)
    assert line.totals() == {"launcher": 6.5, "imports": 3}
    assert line.wall() == 9.5


@pytest.mark.parametrize("said", ["soon", "1e9", ""])
def test_a_launcher_s_time_that_cannot_be_is_left_out(
    time: FakeTime, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv(LAUNCHED, said)
    line = Timeline(started=97.0)
    assert line.totals() == {"imports": 3}


def test_a_process_knows_when_it_began() -> None:
    """Between the moment before it was started and the moment of its first line, to the kernel's 10 ms."""
    code = "import time; now = time.perf_counter()\nfrom ssd.account.timeline import process_started\n"
    code += "print(now, process_started())"
    base = os.path.join(os.path.dirname(__file__), "..", "..", "base")
    before = real_time.perf_counter()
    told = subprocess.run([sys.executable, "-c", code], cwd=base, capture_output=True, text=True, check=True).stdout
    first_line, began = map(float, told.split())
    assert before - 0.02 <= began <= first_line + 0.5, "a busy machine may pause between two clocks"
    assert process_started() < before


def test_the_kernel_says_how_old_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Field 22 of its line counts ticks from boot; a name in brackets may hold spaces and brackets."""
    line = "12 (a) b) c) S " + " ".join(["0"] * 18) + " 700 1 2 3"
    monkeypatch.setattr(timeline.Path, "read_text", lambda path, **options: line)
    monkeypatch.setattr(timeline.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(timeline.time, "clock_gettime", lambda clock: 10.0)
    monkeypatch.setattr(timeline.time, "perf_counter", lambda: 50.0)
    assert process_started() == 47.0, "begun 7 s after boot, 3 s ago"
    monkeypatch.setattr(timeline.time, "clock_gettime", lambda clock: 6.0)
    assert process_started() == 50.0, "no process is younger than now"
    monkeypatch.setattr(timeline.Path, "read_text", lambda path, **options: "12 (a) S")
    assert process_started() == 50.0
    monkeypatch.setattr(timeline.sys, "platform", "darwin")
    monkeypatch.setattr(timeline.Path, "read_text", None)
    assert process_started() == 50.0


def test_what_was_not_spent_is_left_out_of_what_was_spent(time: FakeTime) -> None:
    line = Timeline()
    time.now += 1
    with line.part("step"):
        time.now += 2
    before = line.totals()
    time.now += 4
    line.stage("set_up")
    time.now += 8
    assert line.since(before) == {"imports": 4, "set_up": 8}
    assert line.since({}) == {"imports": 5, "step": 2, "set_up": 8}


def test_seconds_are_rounded_to_a_microsecond() -> None:
    assert timeline.rounded({"step": 1.23456789, "imports": 2.0}) == {"step": 1.234568, "imports": 2.0}


def test_parts_are_named_once_and_grouped() -> None:
    assert evaluation_parts() == ("eval_images", "eval_forward", "eval_detect", "eval_gather", "eval_metric")
    assert len({part.title for part in PARTS.values()}) == len(PARTS)
