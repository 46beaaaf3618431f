"""The script of a card's first day, tried on the CPU: every trial of its first part, and a trial that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from ssd.cli import main

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


def test_a_trial_that_fails_is_listed_with_what_it_said(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "bench" / "gpu_day.py"), "--parts", "3", "--name", "nvidia"]
    environ = {**os.environ, "SSD_VENDOR_PATH": "/no/such"}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "day")], capture_output=True, text=True, timeout=300, env=environ
    )
    assert done.returncode == 1
    assert "SSD_VENDOR_PATH names" in done.stdout + done.stderr
