"""Steps that are timed: what is done in each, in which order, and how blocks of them are chosen by their time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ssd.compute.step import Update
from ssd.measure import steps
from ssd.measure.steps import Steps, step_seconds
from ssd.run.live import Work


class Made:
    """A run whose parts say what they are asked, on a clock of the test's own. A step takes a second, the first 50."""

    def __init__(self, *, last_step: int = 100, batches: int = 50, flat: bool = False, micro_batches: int = 1) -> None:
        self.said: list[Any] = []
        self.now = 0.0
        self.batches = batches
        gradients: Any = SimpleNamespace(average_=lambda: self.said.append("average"))
        self.group: dict[str, float] = {}
        optimizer: Any = SimpleNamespace(param_groups=[self.group], zero_grad=self.zero)
        update = Update(optimizer, lambda: self.said.append(("scaler", self.group["lr"])), gradients if flat else None)
        model: Any = None
        self.run: Any = SimpleNamespace(
            config=SimpleNamespace(epochs=9, gradient_accumulation_steps=micro_batches),
            loader=SimpleNamespace(epoch=self.epoch),
            position=SimpleNamespace(step=0),
            last_step=last_step,
            watch=SimpleNamespace(add=lambda *about: self.said.append(("watch", *about))),
            steps=SimpleNamespace(add=lambda *about: self.said.append(("steps", *about))),
            optimizer=optimizer,
            work=Work(self.step, model, update),
            abilities=SimpleNamespace(synchronize=self.synchronize),
        )

    def epoch(self, number: int) -> Iterator[Any]:
        try:
            for place in range(self.batches):
                yield SimpleNamespace(rows=f"rows {number}.{place}")
        finally:
            self.said.append(f"end of {number}")

    def step(self, batch: Any) -> str:
        self.now += 1.0 if self.now else 50.0
        return f"losses of {batch.rows}"

    def synchronize(self) -> None:
        self.now += 0.5
        self.said.append("synchronize")

    def zero(self, *, set_to_none: bool) -> None:
        self.said.append(("zero", set_to_none))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.said.append(f"{name} begins")
        yield
        self.said.append(f"{name} ends")


@pytest.fixture(autouse=True)
def rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that tells what it was asked."""
    monkeypatch.setattr(steps, "learning_rate_at", lambda config, step, epoch: 100 * step + epoch)


def test_a_step_of_two_micro_batches_is_taken_as_in_a_run() -> None:
    made = Made(batches=3, micro_batches=2)
    taken = Steps(made.run, made.part)
    assert taken.take(1) == 1
    batch = made.said[5][4]
    assert made.said == [
        *("step begins", "data begins", "data ends", "record begins"),
        ("watch", 1, 1, "rows 1.0", "losses of rows 1.0"),
        ("steps", 1, 1, 0, batch, "losses of rows 1.0"),
        *("record ends", "data begins", "data ends", "record begins"),
        ("watch", 1, 1, "rows 1.1", "losses of rows 1.1"),
        ("steps", 1, 1, 1, made.said[11][4], "losses of rows 1.1"),
        *("record ends", "optimizer begins", ("scaler", 1), ("zero", True), "optimizer ends", "step ends"),
    ]
    assert batch.rows == "rows 1.0"
    assert made.run.position.step == 1
    made.said.clear()
    assert taken.take(1) == 1
    told = [one for one in made.said if "begins" not in one and " ends" not in str(one)]
    assert [one[:4] if isinstance(one, tuple) else one for one in told] == [
        ("watch", 2, 1, "rows 1.2"),
        ("steps", 2, 1, 0),
        "end of 1",
        ("watch", 2, 2, "rows 2.0"),
        ("steps", 2, 2, 1),
        ("scaler", 102),
        ("zero", True),
    ]
    taken.close()
    assert made.said[-1] == "end of 2"


def test_flat_gradients_are_averaged_and_kept_and_a_step_of_ones_own_is_taken() -> None:
    made = Made(flat=True)
    taken = Steps(made.run, step=lambda batch, last: "mine")
    assert taken.take(1) == 1
    assert [one for one in made.said if one[0] not in ("watch", "steps")] == ["average", ("scaler", 1), ("zero", False)]
    assert made.said[0] == ("watch", 1, 1, "rows 1.0", "mine")


def test_no_more_steps_are_taken_than_the_run_has() -> None:
    taken = Steps(Made(last_step=5).run)
    assert [taken.take(3) for _ in range(3)] == [3, 2, 0]


@pytest.mark.parametrize(
    ("seconds", "last_step", "taken", "steps_taken"),
    [
        # A step takes 1 s, and waiting for the device 0.5 s: a step that is timed alone takes 1.5 s.
        (30.0, 100, [4.5 / 4] * 5, 22),
        (7.5, 100, [1.5] * 5, 7),
        (6.0, 100, [1.5] * 4, 6),
        (0.5, 100, [1.5] * 2, 4),
        (30.0, 8, [4.5 / 4, 2.5 / 2], 8),  # the run ends in the second block
    ],
)
def test_blocks_of_steps_fill_the_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, last_step: int, taken: list[float], steps_taken: int
) -> None:
    made = Made(last_step=last_step)
    monkeypatch.setattr(steps.time, "perf_counter", lambda: made.now)
    assert step_seconds(made.run, seconds) == taken
    assert made.run.position.step == steps_taken
    assert made.said[-1] == "end of 1", "the loader is closed"
