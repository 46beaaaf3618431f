"""The clock, what is read back late, and metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.run import progress
from ssd.run.line import ProgressLine
from ssd.run.loss_watch import LossWatch
from ssd.run.progress import Clock, DelayedRead, Metrics


class FakeTime:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(progress.time, "perf_counter", fake.perf_counter)
    return fake


def test_cores_are_cpu_seconds_a_second(time: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter((50.0, 60.0, 63.0, 63.0))
    monkeypatch.setattr(progress.time, "process_time", lambda: next(spent))
    clock = Clock({})
    time.now += 4
    clock.start()
    assert clock.cores() == 0.0, "no time has passed"
    time.now += 2
    assert clock.cores() == 1.5


def test_throughput_is_images_of_training_time_alone(time: FakeTime) -> None:
    """The original divided batches of one rank by a time that held the evaluations."""
    clock = Clock({})
    time.now += 50  # set-up, before run_start
    clock.start()
    time.now += 30  # the first interval warms caches up: left out
    assert clock.mark(100, time.now, clock.paused()) == 0
    time.now += 10
    assert clock.mark(200, time.now, clock.paused()) == pytest.approx(10)
    with clock.measure("evaluation"):
        time.now += 1000
    with clock.measure("checkpoint"):
        time.now += 500
    time.now += 5
    assert clock.mark(300, time.now, clock.paused()) == pytest.approx(20)
    assert clock.images_per_second() == pytest.approx(200 / 15)
    assert clock.totals() == {"run": 1545, "evaluation": 1000, "checkpoint": 500}


def test_a_run_without_training_has_no_throughput(time: FakeTime) -> None:
    """The original divided by zero."""
    clock = Clock({})
    assert clock.images_per_second() == 0
    clock.mark(0, time.now, 0.0)
    assert clock.mark(0, time.now, 0.0) == 0


def test_a_resumed_run_adds_up(time: FakeTime) -> None:
    clock = Clock({"run": 60.0, "data": 2.0})
    clock.start()
    time.now += 40
    assert clock.totals() == {"run": 100.0, "data": 2.0}


def test_values_come_back_with_what_was_said_of_them() -> None:
    reader = DelayedRead(Abilities(torch.device("cpu")))
    value = torch.tensor(1.5)
    reader.put(value, {"step": 3}, 2.0)
    value.fill_(9)  # the next step overwrites it
    assert [(one.about, one.value, one.paused) for one in reader.read()] == [({"step": 3}, 1.5, 2.0)]
    assert list(reader.drain()) == []


class FakeDevice:
    """An accelerator that is `now` seconds into its work; it stands in for a module such as torch.cuda."""

    def __init__(self) -> None:
        self.now = 0.0
        device = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = device.now

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, later: Event) -> float:
                return 1000 * (later.at - self.at)

        self.Event = Event


@pytest.mark.parametrize("lead", [0.0, 7.0], ids=["host waits", "host runs ahead"])
def test_an_accelerator_s_rate_is_timed_where_its_work_ends(
    lead: float, time: FakeTime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Losses are read an interval late, the last two of an epoch at once: no rate may come from those moments."""
    fake, empty = FakeDevice(), torch.empty
    monkeypatch.setattr(torch, "fake", fake, raising=False)
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory, **kind: empty(*size, **kind))
    clock, metrics = Clock({}), Metrics(tmp_path / "metrics.jsonl")
    clock.start()
    line = ProgressLine(9, shown=False)
    about = {"image_ids": range(9), "remembered": 1, "last_step": 6, "global_batch": 100}
    watch = LossWatch(Abilities(torch.device("cpu")), Ranks(), clock, metrics, line, **about)
    watch._reader = DelayedRead(Abilities(SimpleNamespace(type="fake")))  # type: ignore[arg-type]
    step = 0
    for seconds_per_epoch_interval in (10.0, 20.0):
        for _ in range(3):
            fake.now += seconds_per_epoch_interval
            step += 1
            time.now = 100 + fake.now - lead
            watch.add(step, 1, (1,), torch.ones(1))
            watch.put(step, 1, 0.1)
            watch.read()
        time.now = 100 + fake.now
        watch.drain()
    rates = [json.loads(text)["images_per_s"] for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rates == [None, 10, 10, 5, 5, 5]
    assert clock.images_per_second() == pytest.approx(500 / 80)


def test_metrics_are_whole_lines_from_any_thread(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    threads = [
        threading.Thread(target=lambda n=n: [metrics.write("x", n=n, text="y" * 500) for _ in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 200
    assert {record["kind"] for record in records} == {"x"}


def test_sizes_are_of_whole_lines_while_another_thread_writes(tmp_path: Path) -> None:
    """A checkpoint that knew the middle of a telemetry record could not be resumed from."""
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                metrics.write("telemetry", text="y" * 20_000)  # longer than one write of Python's buffer

        thread = threading.Thread(target=write)
        thread.start()
        metrics.write("start")
        sizes: set[int] = set()
        while len(sizes) < 20:  # until the other thread has written between two reads twenty times
            sizes.add(metrics.synced_size())
            stop.wait(0.001)  # so that the other thread gets the lock
        stop.set()
        thread.join()
    content = path.read_bytes()
    assert all(content[size - 1 : size] == b"\n" for size in sizes)


def test_other_ranks_write_nothing() -> None:
    Metrics(None).write("train", loss=1.0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which stands for a full disk")
def test_a_full_disk_names_the_file() -> None:
    metrics = Metrics(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        metrics.write("train", loss=1.0)
    with contextlib.suppress(OSError):  # what was not taken is written once more
        metrics.close()
