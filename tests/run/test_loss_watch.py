"""The loss watch: means over intervals and micro-batches, and who is named when a loss is not finite."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.errors import NotFiniteError
from ssd.run.line import ProgressLine
from ssd.run.loss_watch import LossWatch
from ssd.run.progress import Clock, DelayedRead, Metrics

NAN = float("nan")


@pytest.fixture
def watch(tmp_path: Path) -> LossWatch:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    line = ProgressLine(9, shown=False)
    return LossWatch(
        Abilities(torch.device("cpu")),
        Ranks(),
        Clock({}),
        metrics,
        line,
        image_ids=range(100, 200),
        remembered=8,
        last_step=9,
        global_batch=2,
    )


def test_the_mean_is_over_all_micro_batches_of_the_interval(watch: LossWatch, tmp_path: Path) -> None:
    watch.add(1, 1, (1, 2), torch.tensor([1.0, 3.0]))
    watch.add(2, 1, (3, 4), torch.tensor([5.0, 7.0]))
    watch.put(2, 1, 0.1)
    watch.read()
    watch.add(3, 1, (5, 6), torch.tensor([10.0, 10.0]))
    watch.put(3, 1, 0.1)
    watch.read()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert '"loss": 4.0' in text
    assert '"loss": 10.0' in text


def test_the_first_bad_image_is_named(watch: LossWatch) -> None:
    watch.add(1, 1, (11, 12), torch.tensor([1.0, 2.0]))
    watch.add(2, 1, (13, 14), torch.tensor([1.0, NAN]))
    watch.add(3, 1, (15, 16), torch.tensor([NAN, NAN]))
    watch.put(3, 1, 0.1)
    with pytest.raises(NotFiniteError, match=r"nan at step 2, epoch 1, first for image ids \[114\]"):
        watch.read()


def test_the_very_first_step_counts(watch: LossWatch) -> None:
    """The original did not look at it."""
    watch.add(1, 1, (11,), torch.tensor([float("inf")]))
    watch.put(1, 1, 0.1)
    with pytest.raises(NotFiniteError, match=r"inf at step 1"):
        watch.read()


class Two:
    """Two ranks as two threads that meet at a barrier: what `Ranks` does for a loss watch."""

    world_size = 2

    def __init__(self, rank: int, barrier: threading.Barrier, box: list[Any]) -> None:
        self.rank, self._barrier, self._box = rank, barrier, box

    def _all(self, value: Any) -> list[Any]:
        self._box[self.rank] = value
        self._barrier.wait(30)
        found = list(self._box)
        self._barrier.wait(30)
        return found

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._all(tensor)).sum(0)

    def gather(self, value: Any) -> list[Any]:
        found = self._all(value)
        return found if self.rank == 0 else []

    def broadcast(self, value: Any) -> Any:
        return self._all(value)[0]


def on_two_ranks(folder: Path, train: Callable[[int, LossWatch], None]) -> list[BaseException | None]:
    """Run `train` with a watch on each of two ranks; what each raised. Rank 0 writes metrics.jsonl."""
    barrier, box = threading.Barrier(2), [None, None]

    def one(rank: int) -> BaseException | None:
        watch = LossWatch(
            Abilities(torch.device("cpu")),
            Two(rank, barrier, box),  # type: ignore[arg-type]
            Clock({}),
            Metrics(None if rank else folder / "metrics.jsonl"),
            ProgressLine(9, shown=False),
            image_ids=range(100, 200),
            remembered=8,
            last_step=9,
            global_batch=4,
        )
        try:
            train(rank, watch)
        except NotFiniteError as error:
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2)))


def test_the_mean_is_over_both_ranks(tmp_path: Path) -> None:
    def train(rank: int, watch: LossWatch) -> None:
        watch.add(1, 1, (1, 2), torch.tensor([1.0, 3.0]) + 10 * rank)  # means 2 and 12
        watch.add(1, 1, (3, 4), torch.tensor([4.0, 4.0]) + 2 * rank)  # means 4 and 6
        watch.put(1, 1, 0.1)
        watch.read()

    assert on_two_ranks(tmp_path, train) == [None, None]
    (record,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (record["loss"], record["images"]) == (6.0, 4)


def test_both_ranks_name_the_earliest_bad_loss_of_either(tmp_path: Path) -> None:
    """Rank 1 met it first; rank 0 met one of its own a step later."""

    def train(rank: int, watch: LossWatch) -> None:
        for step in (1, 2, 3):
            bad = (step == 2 and rank == 1) or (step == 3 and rank == 0)
            watch.add(step, 1, (10 * step + rank,), torch.tensor([NAN if bad else 1.0]))
        watch.put(3, 1, 0.1)
        watch.read()

    for error in on_two_ranks(tmp_path, train):
        assert isinstance(error, NotFiniteError)
        assert "nan at step 2, epoch 1, first for image ids [121]" in str(error)


def test_reading_never_waits_for_the_newest_value(
    watch: LossWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an accelerator `read` asks for the value before the last one, which has arrived; `drain` waits for all."""
    made: list[Any] = []
    waited: list[int] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.number = len(made)
            made.append(self)

        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            waited.append(self.number)

        def elapsed_time(self, later: Any) -> float:
            return 1000.0 * later.number

    empty = torch.empty
    monkeypatch.setattr(torch, "fake", SimpleNamespace(Event=Event), raising=False)
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory, **kind: empty(*size, **kind))
    abilities = Abilities(SimpleNamespace(type="fake"))  # type: ignore[arg-type]
    assert abilities.timed_events
    made.clear()
    waited.clear()
    watch._reader = DelayedRead(abilities)
    assert waited == [0], "its clock is set once, before the run"

    def interval(step: int) -> list[int]:
        waited.clear()
        watch.add(step, 1, (step,), torch.tensor([float(step)]))
        watch.put(step, 1, 0.1)
        watch.read()
        return list(waited)

    def told() -> list[int]:
        return [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    assert (interval(1), told()) == ([], [])
    assert (interval(2), told()) == ([1], [1])
    assert (interval(3), told()) == ([2], [1, 2])
    waited.clear()
    watch.drain()
    assert (waited, told()) == ([3], [1, 2, 3])


def test_a_report_says_what_was_true_when_its_interval_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation between the end of an interval and its reading changes no rate, and no time left."""
    now = 100.0
    monkeypatch.setattr("ssd.run.progress.time.perf_counter", lambda: now)
    clock, said = Clock({}), []
    line = SimpleNamespace(step=lambda *told: said.append(told))
    watch = LossWatch(
        Abilities(torch.device("cpu")),
        Ranks(),
        clock,
        Metrics(tmp_path / "metrics.jsonl"),
        line,  # type: ignore[arg-type]
        image_ids=range(10),
        remembered=4,
        last_step=12,
        global_batch=10,
    )
    clock.start()
    for step in (1, 2):
        now += 5
        watch.add(step, 1, (1,), torch.ones(1))
        watch.put(step, 1, 0.1)
    with clock.measure("evaluation"):
        now += 1000
    watch.read()
    assert [told[4:] for told in said] == [(None, None), (2.0, 50.0)]
