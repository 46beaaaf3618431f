"""The script of a card's first day, tried on the CPU: every trial of its first part, and a trial that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from ssd.cli import main
from ssd.config import resolve

pytestmark = pytest.mark.slow


def test_a_gpu_day_tried_on_the_cpu(
    loaded: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first part of the script, so that the first day with a card finds it working; what needs a card says so.

    What it runs is run in this process, without launcher: seven runs with two starts of Python each take a minute.
    """
    monkeypatch.setenv("SSD_CACHE_DIR", str(tmp_path / "cache"))
    day = loaded("gpu_day")
    trials = sys.modules["gpu_trials"]
    asked: list[str] = []

    def call(command: Sequence[str], left: float, codes: Sequence[int] = (0,), **environ: str) -> str:
        started = command[:2] == ["bash", "run_training.sh"]
        assert started or command[:3] == [sys.executable, "-m", "ssd"]
        words = ["train", *command[2:]] if started else command[3:]
        asked.append(words[0])
        capsys.readouterr()
        assert main(words) in codes
        return capsys.readouterr().out

    monkeypatch.setattr(trials, "call", call)
    assert day.main(["--device", "cpu", "--parts", "1", "--output", str(tmp_path / "day")]) == 0
    assert asked == ["vendors", *["train"] * 6, "evaluate"]
    rows = [json.loads(line) for line in (tmp_path / "day" / "gpu-day.jsonl").read_text().splitlines()]
    assert all(row["emulated"] for row in rows)
    ended = {row["name"]: row["status"] for row in rows}
    assert ended.pop("compute-sanitizer memcheck") == "not run"
    assert ended.pop("compute-sanitizer racecheck") == "not run"
    assert set(ended.values()) == {"ok"}
    assert "nothing here was measured on a card" in (tmp_path / "day" / "gpu-day.md").read_text()


def test_a_trial_that_fails_is_listed_with_what_it_said(root: Path, tmp_path: Path, warm_python: str) -> None:
    command = [warm_python, str(root / "bench" / "gpu_day.py"), "--parts", "3", "--name", "nvidia"]
    environ = {**os.environ, "SSD_VENDOR_PATH": "/no/such"}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "day")], capture_output=True, text=True, timeout=300, env=environ
    )
    assert done.returncode == 1
    assert "SSD_VENDOR_PATH names" in done.stdout + done.stderr


def test_every_way_that_a_card_is_to_try_is_a_config_that_stands(
    loaded: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A combination of keys that is refused would be found on the card, and cost its time."""
    loaded("gpu_day")
    trials = sys.modules["gpu_trials"]
    day = trials.Day("nvidia", "H100x1x1", tmp_path, None, small=False)
    named = ["--name=nvidia", "--config=H100x1x1"]
    monkeypatch.setattr(trials, "rate", lambda day, rows, keys: lambda left: resolve([*named, *keys], {}))
    monkeypatch.setattr(trials, "against_eager", lambda day, name, kind, keys: lambda left: resolve([*day.keys, *keys]))
    found = {name: work(1.0).config for name, work in trials.speed(day) if "batch" in name}
    assert [config.graph_scope for config in found.values()].count("all") == 3
    found = {name: work(1.0).config for name, work in trials.correctness(day) if "against" in name}
    assert [config.graph_scope for config in found.values()].count("step") == 2
    assert [config.combo_kernels for config in found.values()].count(True) == 1


def test_a_trial_that_takes_too_long_leaves_no_process(loaded: Callable[[str], ModuleType], tmp_path: Path) -> None:
    loaded("gpu_day")
    trials = sys.modules["gpu_trials"]
    script = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(trials.TrialFailed, match="not done after 1 s, and ended"):
        trials.call(["bash", "-c", script], 1.0)
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 30
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < until:
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break  # ended, and whoever inherited it has not looked
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()
