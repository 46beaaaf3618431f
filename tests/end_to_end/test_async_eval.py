"""Evaluations that are scored beside the next steps: the same weights and scores as without, and an honest log."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssd.config import resolve
from ssd.mlperf.log_checks import log_findings
from ssd.mlperf.logs import read_log
from ssd.run.checkpoint import load_checkpoint
from ssd.run.scoring import Scoring
from ssd.train import train

Run = Callable[..., Path]
Waiting = Callable[[int], Path]
FLAGS = ["--epochs", "4", "--eval_epochs", "1", "2", "4", "--log_freq", "1", "--keep_best"]
"""4 steps an epoch, 16 in all."""


class Late(Scoring):
    """Scores that are known once the run has done `steps` steps since the evaluation began, or where it waits for them.

    So no test depends on speed. act: what else happens after the step before.
    """

    steps = 3
    may = threading.Event()
    act: Callable[[int], None] = staticmethod(lambda done: None)

    def begin(self, epoch: int) -> None:
        self.may.clear()
        self.done = 0
        super().begin(epoch)

    def is_known(self) -> bool:
        if self._pending is None:
            return False
        self.done += 1
        self.act(self.done)
        assert self.done == self.steps or not super().is_known()
        if self.done == self.steps:
            self.may.set()
            futures.wait([self._pending.score])
        return super().is_known()

    def settle(self) -> bool:
        self.may.set()
        return super().settle()


class Metric:
    """Scores detections by their numbers. won: which evaluation reaches the target, counted from 1; 0: none."""

    def __init__(self, won: int, late: int) -> None:
        self.won, self.late, self.calls = won, late, 0

    def __call__(self, truth: object, rows: np.ndarray, *more: object) -> np.ndarray:
        if self.late:
            assert threading.current_thread() is not threading.main_thread()
            assert Late.may.wait(120)
        self.calls += 1
        return np.full(12, (0.5 if self.calls == self.won else 0.1) + abs(float(np.sum(rows[:, 1:]))) % 1e-3)


def run_scored(small: list[str], folder: Path, flags: Sequence[str], won: int, late: int) -> Path:
    """Train the small run. late: the steps after which a score is known, 0 to wait for each."""
    words = [*small, *FLAGS, *flags, *(["--async_eval"] if late else []), "--output", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssd.run.evaluation.bbox_statistics", Metric(won, late))
        patch.setattr("ssd.train.Scoring", Late if late else Scoring)
        patch.setattr(Late, "steps", late)
        assert train(resolve(words, {})) == (0 if won else 4)
    return folder


@pytest.fixture(scope="module")
def waiting(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The run that waits for its scores, with a winner or none; made once."""
    folder = tmp_path_factory.mktemp("waiting")
    return cache(lambda won: run_scored(small, folder / str(won), ["--checkpoint_interval", "1"], won, 0))


@pytest.fixture
def beside(small: list[str], tmp_path: Path) -> Callable[..., Path]:
    """Train the run whose scores are known late; its folder."""

    def go(*flags: str, won: int = 0, late: int = 3) -> Path:
        return run_scored(small, tmp_path / "beside", flags, won, late)

    return go


def lines(folder: Path, kind: str, *fields: str) -> list[tuple[Any, ...]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [tuple(one[field] for field in fields) for one in found if one["kind"] == kind]


def events(folder: Path) -> list[str]:
    """The result log from run_start on: key, and epoch where it has one."""
    records = read_log(folder / "result_0.txt", "log").records
    timed = [one for one in records if one.key.startswith(("run_", "epoch_", "eval_st", "eval_acc"))]
    return [f"{one.key} {one.metadata.get('epoch_num', '')}".strip() for one in timed]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def assert_same_weights(one: Path, other: Path, name: str = "checkpoint.pt") -> None:
    first, second = load_checkpoint(one / name), load_checkpoint(other / name)
    assert (first.step, first.evaluations, first.seed) == (second.step, second.evaluations, second.seed)
    assert list(first.model) == list(second.model)
    for value, expected in zip(first.model.values(), second.model.values(), strict=True):
        assert torch.equal(value, expected)
    for number, state in second.optimizer["state"].items():
        assert torch.equal(first.optimizer["state"][number]["momentum_buffer"], state["momentum_buffer"])
    assert torch.equal(first.rng, second.rng)


def errors(folder: Path) -> list[str]:
    """What the checks of result logs say, but for notes."""
    return [str(one) for one in log_findings(read_log(folder / "result_0.txt", "log"), "1.1.0") if not one.note]


@pytest.mark.parametrize(
    ("late", "interval"),
    [
        (3, "1"),  # known within the next epoch
        (6, "0"),  # known an epoch later, or when the next evaluation is due
        (9, "1"),  # never known before a checkpoint is due, which waits
    ],
)
def test_weights_and_scores_are_those_of_a_run_that_waits(
    waiting: Waiting, beside: Run, late: int, interval: str
) -> None:
    expected, found = waiting(0), beside("--checkpoint_interval", interval, late=late)
    assert_same_weights(found, expected)
    assert_same_weights(found, expected, "checkpoint.best.pt")
    for kind, fields in {
        "train": ("step", "loss"),
        "evaluation": ("epoch", "step", "AP"),
        "steps": ("epoch", "first_step", "loss", "draws"),
        "epoch": ("epoch", "step"),
    }.items():
        assert lines(found, kind, *fields) == lines(expected, kind, *fields)
    assert sorted(events(found)) == sorted(events(expected))
    assert errors(found) == errors(expected)
    assert (summary(found)["steps"], summary(found)["steps_beyond"]) == (16, 0)
    assert all(seconds >= 0 for (seconds,) in lines(found, "evaluation", "beside_s"))


def test_the_winner_s_weights_are_kept_and_the_steps_beyond_are_counted(waiting: Waiting, beside: Run) -> None:
    expected, found = waiting(2), beside("--checkpoint_interval", "1", won=2)
    assert_same_weights(found, expected)
    assert load_checkpoint(found / "checkpoint.pt").step == 8
    assert (summary(found)["steps"], summary(found)["steps_beyond"]) == (11, 3)
    assert summary(found)["evaluations"] == summary(expected)["evaluations"]
    assert (found / "detections.jpg").read_bytes() == (expected / "detections.jpg").read_bytes()
    one, other = (json.loads((folder / "evaluation.json").read_text()) for folder in (found, expected))
    del one["interval"], other["interval"]  # of as many samples as there is time for
    assert one == other
    assert events(found) == [
        "run_start",
        *("epoch_start 1", "epoch_stop 1", "eval_start 1"),
        *("epoch_start 2", "eval_accuracy 1", "eval_stop 1", "epoch_stop 2", "eval_start 2"),
        *("epoch_start 3", "eval_accuracy 2", "eval_stop 2", "run_stop"),
    ]
    assert read_log(found / "result_0.txt", "").status == "success"
    assert errors(found) == errors(expected)
    assert lines(found, "train", "step") == [(step,) for step in range(1, 12)]
    before = {path.name: path.stat().st_mtime_ns for path in found.iterdir()}
    assert train(resolve(["--resume", "--output", str(found)], {})) == 0
    assert {path.name: path.stat().st_mtime_ns for path in found.iterdir()} == before, "it has ended"


def test_a_winner_that_is_known_when_the_next_evaluation_is_due_ends_the_run_there(
    waiting: Waiting, beside: Run
) -> None:
    expected, found = waiting(2), beside("--checkpoint_interval", "0", won=2, late=99)
    assert_same_weights(found, expected)
    assert (summary(found)["steps"], summary(found)["steps_beyond"]) == (16, 8)
    assert events(found)[-6:] == [
        *("epoch_start 3", "epoch_stop 3", "epoch_start 4"),
        *("eval_accuracy 2", "eval_stop 2", "run_stop"),
    ]
    assert errors(found) == errors(expected)


def test_a_run_that_is_killed_before_its_score_is_known_evaluates_again(
    waiting: Waiting, beside: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(done: int) -> None:
        if done == 2:
            raise Killed

    monkeypatch.setattr(Late, "act", staticmethod(kill))
    with pytest.raises(Killed):
        beside("--checkpoint_interval", "1")
    Late.may.set()
    folder = tmp_path / "beside"
    saved = load_checkpoint(folder / "checkpoint.pt")
    assert (saved.step, saved.evaluations) == (4, [])
    monkeypatch.setattr("ssd.run.evaluation.bbox_statistics", Metric(0, 0))
    assert train(resolve(["--resume", "--output", str(folder)], {})) == 4
    assert_same_weights(folder, waiting(0))
    assert lines(folder, "evaluation", "epoch", "AP") == lines(waiting(0), "evaluation", "epoch", "AP")
    assert sorted(events(folder)) == sorted(events(waiting(0)))


def test_a_metric_that_fails_ends_the_run_as_it_would_without_a_thread(
    beside: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise ZeroDivisionError("no metric")

    monkeypatch.setattr("ssd.run.scoring.evaluate", fail)
    with pytest.raises(ZeroDivisionError, match="no metric"):
        beside(late=1)


@pytest.mark.slow
def test_several_processes_learn_of_the_score_after_the_same_step(
    command: Callable[..., Any], small: list[str], tmp_path: Path
) -> None:
    flags = [*small, "--train_batch_size", "1", "--nproc_per_node", "2", *FLAGS, "--collective_timeout", "60"]
    for name, more in (("waiting", []), ("beside", ["--async_eval"])):
        ended = command("launch", *flags, *more, "--output", str(tmp_path / name))
        assert ended.returncode == 4, ended.stderr
    assert_same_weights(tmp_path / "beside", tmp_path / "waiting")
    assert sorted(events(tmp_path / "beside")) == sorted(events(tmp_path / "waiting"))
