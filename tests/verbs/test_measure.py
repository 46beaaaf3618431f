"""`plan --measure` on a tiny run: what it keeps, and that `plan` and `check` take it from there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssd.cli import main
from ssd.config import Config, Resolved, resolve
from ssd.errors import ConfigError, DataError
from ssd.measure.short_run import INTERVALS
from ssd.plan.how_long import source_here
from ssd.plan.measured import Timed, read_measured
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


def test_what_is_measured_and_how_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten steps of 0.5 s in a run of 7 s: 2 s are neither steps nor evaluations. What a test gives is never timed."""
    asked: dict[str, Any] = {"batches": []}

    def timed_run(keys: list[str], steps: int, folder: Path) -> dict[str, Any]:
        asked["batches"].append(keys[-1])
        return {"seconds": {"run": 7.0 if keys[-1] == "4" else 100.0}}

    def open_run(resolved: Resolved, folder: Path, saved: str) -> SimpleNamespace:
        asked["evaluated"] = (saved, resolved.config.pretrained, resolved.config.cuda_graph)
        return SimpleNamespace(loader=SimpleNamespace(samples=60))

    def evaluation_seconds(run: object, seconds: float) -> list[tuple[float, float]]:
        asked["evaluating"] = seconds
        return [(1.0, 5.0), (2.0, 3.0), (9.0, 4.0)]

    made = {
        "load_vendor": lambda name: SimpleNamespace(device_of=lambda config: config.device, describe_system=dict),
        "require_machine": lambda vendor, resolved: asked.update(machine=True),
        "enough_steps": lambda keys, seconds, folder: asked.update(stepping=seconds) or 10,
        "timed_run": timed_run,
        "timed_of": lambda folder, summary, processes: Timed(int(folder.name.removeprefix("batch-")), 500.0),
        "set_up_of": lambda summary: 1.5,
        "open_checkpoint": lambda folder: folder.name,
        "open_run": open_run,
        "evaluation_seconds": evaluation_seconds,
    }
    for name, one in made.items():
        monkeypatch.setattr(measuring, name, one)
    keys = {"data_backend": "synthetic", "train_batch_size": 4, "cache_dir": tmp_path, "device": "cpu"}
    config = Config(**keys, backbone_path=Path(__file__)).model_copy(update={"cuda_graph": True})
    path = measuring.measure(Resolved(config, {}), [])
    found, content = read_measured(path), json.loads(path.read_text())
    assert (found.start_s, found.set_up_s, found.evaluation_s, found.images) == (2.0, 1.5, (2.0, 4.0), 60)
    assert [one.local_batch for one in found.timed] == [4, 2]
    assert (content["steps"], content["config"], content["keys"]["width"]) == (10, "cpu / smoke", 1.0)
    assert asked == {
        "batches": ["4", "2"],
        "machine": True,
        "stepping": 20,
        "evaluating": 5,
        "evaluated": ("batch-4", False, False),
    }
    for seconds, device, stepping, evaluating in ((None, "cuda", 60, 5), (3.0, "cuda", 3.0, 3.0), (9.0, "cpu", 9.0, 5)):
        measuring.measure(Resolved(config.model_copy(update={"device": device}), {}), [], seconds)
        assert (asked["stepping"], asked["evaluating"]) == (stepping, evaluating)
    with pytest.raises(ConfigError, match="data_dir is not set"):
        measuring.measure(Resolved(Config(pretrained=False), {}), [])
    with pytest.raises(DataError, match="no such folder"):
        measuring.measure(Resolved(Config(pretrained=False, data_dir=tmp_path / "absent"), {}), [])


def test_the_second_batch_is_half_of_the_first_and_never_the_same() -> None:
    assert [measuring._two_batches(batch) for batch in (1, 2, 3, 5, 8)] == [(1, 2), (2, 1), (3, 1), (5, 2), (8, 4)]
