"""`plan --measure` on a tiny run: what it keeps, and that `plan` and `check` take it from there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ssd.cli import main
from ssd.config import resolve
from ssd.measure.short_run import INTERVALS
from ssd.plan.how_long import source_here
from ssd.plan.measured import read_measured
from ssd.train import train
from ssd.verbs import measure as measuring

TINY = [
    "--name",
    "cpu",
    "--config",
    "smoke",
    "--width",
    "0.0625",
    "--train_batch_size",
    "2",
    "--synthetic_samples",
    "6",
]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of timing runs, which train in this process instead of one of their own."""
    asked: list[list[str]] = []

    def timed_run(keys: Sequence[str], steps: int, folder: Path) -> dict[str, Any]:
        asked.append(list(keys))
        flags = ["--max_steps", str(steps), "--log_freq", "1", "--eval_epochs", "100", "--epochs", "100"]
        with redirect_stdout(StringIO()):
            train(resolve([*keys, *flags, "--no-pretrained", "--output", str(folder)], {}))
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        return summary

    monkeypatch.setattr(measuring, "timed_run", timed_run)
    monkeypatch.setattr(measuring, "enough_steps", lambda keys, seconds, folder: INTERVALS)
    monkeypatch.setattr(measuring, "EVALUATING_S", 1e-9)
    return asked


def test_a_machine_is_measured_once_and_every_verb_knows_it(
    timed: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [*TINY, "--cache_dir", str(tmp_path)]
    assert main(["plan", *keys, "--measure", "--accelerators", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one[-2:] for one in timed] == [["--train_batch_size", "2"], ["--train_batch_size", "1"]]
    (kept,) = (tmp_path / "measured").iterdir()
    found, content = read_measured(kept), json.loads(kept.read_text())
    assert [one.local_batch for one in found.timed] == [2, 1]
    assert (found.images, found.accelerators, found.epochs) == (6, 1, None)
    assert min(found.evaluation_s) > 0
    assert (content["keys"]["width"], content["steps"], content["config"]) == (0.0625, INTERVALS, "cpu / smoke")
    assert said["sources"]["step"] == f"{found.origin}; batch 1, 2 a process"
    assert said["predictions"][0]["steps_per_epoch"] == 3
    assert said["predictions"][0]["evaluation_s"] == pytest.approx(sum(found.evaluation_s))

    assert main(["plan", *keys, "--accelerators", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said
    assert main(["check", *keys, "--json"]) == 0
    assert "Step: measured here" in json.loads(capsys.readouterr().out)[-1]["found"]
    assert source_here(resolve(TINY, {}).config, 6) is None, "another cache folder knows nothing of it"
