"""A run while it trains: what its position says, what a checkpoint is made of, and who writes which one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssd.run import live
from ssd.run.checkpoint import Checkpoint
from ssd.run.live import Position, Run, Work
from ssd.run.saves import Saves


@pytest.mark.parametrize(
    ("scores", "reached", "best"),
    [
        ([0.25], True, True),
        ([0.125], False, True),
        ([0.25, 0.125], True, False),
        ([0.125, 0.25], True, True),
        ([0.25, 0.25], True, False),  # as good as an earlier one is not better
        ([0.125, 0.375, 0.25], True, False),
    ],
)
def test_what_the_evaluations_say(scores: list[float], reached: bool, best: bool) -> None:
    position = Position(evaluations=list(enumerate(scores, 1)))
    assert (position.reached(0.25), position.is_best()) == (reached, best)


def test_a_run_begins_with_nothing_done() -> None:
    assert Position() == Position(0, [], False)
    assert not Position().reached(0.0)


def test_ddp_alone_has_gradients_to_hold_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapped:
        def no_sync(self) -> str:
            return "held back"

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Wrapped)
    step: Any = None
    wrapped: Any = Wrapped()
    assert Work(step, wrapped, None).no_sync() == "held back"
    assert isinstance(Work(step, nn.ReLU(), None).no_sync(), nullcontext)


class Part:
    """An object with a state of its own."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state


class Made:
    """A run that can be saved: what it was asked, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, rank: int = 0, keep: bool = True) -> None:
        self.told: list[Any] = []
        self.weight = torch.ones(2)
        self.saves = Saves(keep=keep, at=-1.0)
        given: dict[str, Any] = {
            "config": SimpleNamespace(model_dump_json=lambda: "{}"),
            "vendor": SimpleNamespace(abilities=lambda device: f"abilities of {device}"),
            "device": "here",
            "ranks": SimpleNamespace(is_rank_0=rank == 0),
            "folder": folder,
            "seed": 7,
            "loader": SimpleNamespace(steps_per_epoch=4),
            "source": SimpleNamespace(categories=[(1, "cat")]),
            "model": Part(w=self.weight),
            "optimizer": Part(state={}, param_groups=[{"momentum": self.weight, "lr": 0.5}]),
            "scaler": Part(scale=2.0),
            "position": Position(9, [(1, 0.125)]),
            "saves": self.saves,
            "clock": SimpleNamespace(measure=self.measure, totals=lambda: {"run": 5.0}),
            "records": SimpleNamespace(
                metrics=SimpleNamespace(write=lambda *kind, **about: self.told.append((*kind, about))),
                places=lambda: {"result_0.txt": 3},
            ),
            "inputs": {"train": "abc"},
        }
        self.run = Run(**{one.name: given.get(one.name) for one in fields(Run)})
        moments = iter((10.0, 12.5))
        monkeypatch.setattr(live.time, "perf_counter", lambda: next(moments))
        monkeypatch.setattr(live.time, "time", lambda: 1e9)
        monkeypatch.setattr(live, "save_checkpoint", self.written)

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        self.told.append(f"{kind} begins")
        yield
        self.told.append(f"{kind} ends")

    def written(self, path: Path, checkpoint: Checkpoint, before: Path | None) -> None:
        path.write_bytes(b"12345")
        self.told.append((path, checkpoint, before))


def test_the_state_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path, monkeypatch)
    assert made.run.abilities == "abilities of here"
    state, copied = made.run.state(), made.run.copied_state()
    random = state.pop("rng")
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(copied.pop("rng"), random)
    groups = [{"momentum": made.weight, "lr": 0.5}]
    assert state == {
        "step": 9,
        "model": {"w": made.weight},
        "optimizer": {"state": {}, "param_groups": groups},
        "scaler": {"scale": 2.0},
    }
    assert copied["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert {**copied, "model": None, "optimizer": None} == {**state, "model": None, "optimizer": None}
    made.weight += 1
    assert state["model"]["w"].tolist() == [2, 2]
    assert copied["model"]["w"].tolist() == [1, 1], "the next step does not change it"
    assert copied["optimizer"]["param_groups"][0]["momentum"].tolist() == [1, 1]


@pytest.mark.parametrize("keep", [True, False])
def test_rank_0_writes_the_newest_checkpoint_and_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    made = Made(tmp_path, monkeypatch, keep=keep)
    made.run.save()
    begins, (path, checkpoint, before), noted, ends = made.told
    assert (begins, ends) == ("checkpoint begins", "checkpoint ends")
    assert noted == ("checkpoint", {"step": 9, "seconds": 2.5, "bytes": 5})
    assert path == tmp_path / "checkpoint.pt"
    assert before == (tmp_path / "checkpoint.previous.pt" if keep else None)
    about = (checkpoint.config, checkpoint.seed, checkpoint.steps_per_epoch, checkpoint.evaluations, checkpoint.seconds)
    assert about == ("{}", 7, 4, [(1, 0.125)], {"run": 5.0})
    about = (checkpoint.written, checkpoint.categories, checkpoint.inputs, checkpoint.logs)
    assert about == (1e9, [(1, "cat")], {"train": "abc"}, {"result_0.txt": 3})
    assert (checkpoint.step, checkpoint.model, checkpoint.scaler) == (9, {"w": made.weight}, {"scale": 2.0})
    assert made.saves.keep
    assert made.saves.at > 0, "it was noted"


def test_a_checkpoint_of_another_name_is_of_the_state_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path, monkeypatch)
    made.run.save("checkpoint.best.pt", {**made.run.state(), "step": 3})
    _, (path, checkpoint, before), noted, _ = made.told
    assert (path.name, checkpoint.step, before) == ("checkpoint.best.pt", 3, None)
    assert noted[1]["step"] == 3
    assert made.saves.at == -1.0, "it is not the newest one"


def test_other_ranks_write_nothing_and_know_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path, monkeypatch, rank=1)
    made.run.save()
    assert made.told == ["checkpoint begins", "checkpoint ends"]
    assert list(tmp_path.iterdir()) == []
    assert made.saves.at > 0


def test_the_last_micro_batch_of_a_step_may_hold_its_end() -> None:
    told: list[str] = []

    def step(name: str) -> Any:
        return lambda batch: told.append(f"{name} {batch}") or f"losses of {name}"

    update: Any = lambda: told.append("update")  # noqa: E731
    batch: Any = "a"
    for whole, last in ((None, "eager"), (step("whole"), "whole")):
        told.clear()
        work = Work(step("eager"), nn.ReLU(), update, whole)
        assert work.micro_batch(batch, last=False) == "losses of eager"
        assert work.micro_batch(batch, last=True) == f"losses of {last}"
        work.finish()
        assert told == ["eager a", f"{last} a", *["update"] * (whole is None)]
