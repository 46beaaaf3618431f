"""What came of a run: nothing that fails after its end is raised, and what can still be told is told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.run import outcome
from ssd.run.live import Position
from ssd.run.outcome import exit_code, report_outcome, write_run_summary
from ssd.run.progress import Clock


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """A run that has ended after some steps of 2 epochs of 4."""

    def make(step: int, evaluations: list, ranks: Ranks | None = None) -> SimpleNamespace:
        return SimpleNamespace(
            config=Config(epochs=2, threshold=0.23),
            position=Position(step, evaluations),
            loader=SimpleNamespace(steps_per_epoch=4),
            ranks=ranks or Ranks(),
            folder=tmp_path,
            vendor=SimpleNamespace(peaks=lambda: ()),
            abilities=Abilities(torch.device("cpu")),
            clock=Clock({}),
            seed=1,
            backbone_sha256="",
            source=None,
            stops=SimpleNamespace(number=0),
        )

    return make


@pytest.mark.parametrize(
    ("step", "evaluations", "code"),
    [
        (4, [(1, 0.23)], 0),
        (8, [(1, 0.1), (2, 0.3)], 0),
        (8, [(2, float(np.nextafter(0.23, 0)))], 4),
        (8, [], 4),
        (5, [(1, 0.1)], 5),
        (4, [], 5),
    ],
)
def test_the_exit_code(run: Callable[..., SimpleNamespace], step: int, evaluations: list, code: int) -> None:
    assert exit_code(run(step, evaluations)) == code


def test_a_picture_that_fails_leaves_the_summary(
    run: Callable[..., SimpleNamespace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def draw(*arguments: object) -> str:
        raise ZeroDivisionError("no picture")

    monkeypatch.setattr(outcome, "_draw", draw)
    with caplog.at_level(logging.WARNING):
        report_outcome(run(8, [(2, 0.3)]), 0, np.zeros((0, 7)), {"host_cores": 1.5})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["exit_code"], summary["picture"], summary["evaluations"]) == (0, "", [[2, 0.3]])
    assert "its picture of its detections is not whole: ZeroDivisionError: no picture" in caplog.text
    assert "reached the target" in capsys.readouterr().out


@pytest.mark.parametrize(
    "report", [lambda run: report_outcome(run, 0, None, {}), lambda run: write_run_summary(run, 6, {})]
)
def test_a_summary_that_cannot_be_written_is_said(
    run: Callable[..., SimpleNamespace], tmp_path: Path, caplog: pytest.LogCaptureFixture, report: Callable
) -> None:
    (tmp_path / "summary.json").mkdir()
    with caplog.at_level(logging.WARNING):
        report(run(8, [(2, 0.3)]))
    assert "summary is not whole: IsADirectoryError" in caplog.text


def test_rank_0_alone_reports(run: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    report_outcome(run(8, [], Ranks(1, 2)), 4, None, {})
    write_run_summary(run(8, [], Ranks(1, 2)), 6, {})
    assert not any(tmp_path.iterdir())
