"""Curves for TensorBoard: which numbers are drawn, where a resumed run goes on, and a missing library."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ssd.config import resolve
from ssd.config.resolved import require_run_keys
from ssd.errors import ConfigError
from ssd.run.progress import Metrics
from ssd.run.tensorboard import curves

SMOKE = ["--name", "cpu", "--config", "smoke", "--tensorboard"]


class Writer:
    """Stands in for torch's writer, whose library may be absent."""

    made: list[Writer] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int | None) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.drawn: list[tuple[str, float, int]] = []
        Writer.made.append(self)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: Any) -> None:
        self.closed = True

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.drawn.append((name, value, step))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.made.clear()


def test_numbers_are_drawn_over_steps_as_they_are_recorded(library: None, tmp_path: Path) -> None:
    with curves(tmp_path / "curves") as draw, Metrics(tmp_path / "metrics.jsonl", draw) as metrics:
        metrics.write("start", seed=1)
        metrics.write("train", step=5, epoch=1, loss=2.5, learning_rate=0.1, images_per_s=None, images=10)
        metrics.write("evaluation", step=8, epoch=2, AP=0.2, AP50=0.4, AP75=None)
        metrics.write("telemetry", power_w=[1.0])
    (writer,) = Writer.made
    assert (writer.folder, writer.purge_step, writer.closed) == (str(tmp_path / "curves"), None, True)
    assert writer.drawn == [
        ("train/loss", 2.5, 5),
        ("train/learning_rate", 0.1, 5),
        ("evaluation/AP", 0.2, 8),
        ("evaluation/AP50", 0.4, 8),
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_resumed_run_takes_back_what_it_does_again(library: None, tmp_path: Path) -> None:
    with curves(tmp_path, from_step=12):
        pass
    assert Writer.made[0].purge_step == 13


def test_nothing_is_drawn_unless_asked(library: None) -> None:
    with curves(None) as draw:
        assert draw is None
    assert Writer.made == []


def test_without_the_library_the_key_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(SMOKE, {}).config
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tensorboard = true.*pip install tensorboard"):
        require_run_keys(config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    require_run_keys(config)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with curves(tmp_path) as draw:
        assert draw
        draw("train", {"loss": 2.5, "learning_rate": 0.1, "images_per_s": 3.0, "step": 5})
    read = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(read.Tags()["scalars"]) == ["train/images_per_s", "train/learning_rate", "train/loss"]
    assert [(one.step, one.value) for one in read.Scalars("train/loss")] == [(5, 2.5)]
