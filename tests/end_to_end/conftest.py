"""Runs for the end-to-end tests: the smoke config, made smaller still, in this process or through run_training.sh."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd.config import resolve
from ssd.train import train

FLAGS = ["--config", "smoke", "--width", "0.125", "--synthetic_samples", "8", "--train_batch_size", "2", "--seed", "5"]
"""A run of 4 steps an epoch that takes a second."""


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Train the small run in this process, with more flags; the exit code and the run's folder."""

    def run(*flags: str, folder: str = "run") -> tuple[int, Path]:
        output = tmp_path / folder
        return train(resolve([*FLAGS, *flags, "--output", str(output)], {})), output

    return run


@pytest.fixture
def command(root: Path, warm_python: str) -> Callable[..., subprocess.CompletedProcess]:
    """Run `run_training.sh` or `python -m ssd VERB` from base/, by a Python that is warm where no other is given."""

    def run(*words: str, timeout: float = 300, **environ: str) -> subprocess.CompletedProcess:
        environ = {"PYTHON": warm_python, **environ}
        started = [*(["bash"] if words[0].endswith(".sh") else [environ["PYTHON"], "-m", "ssd"]), *words]
        return subprocess.run(
            started,
            cwd=root / "base",
            env={**os.environ, "PYTHONPATH": "", **environ},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def small() -> list[str]:
    """The small run's flags."""
    return FLAGS


@pytest.fixture
def records() -> Callable[[Path, str], list[dict]]:
    """Read the records of one kind in a run's metrics.jsonl."""

    def read(folder: Path, kind: str) -> list[dict]:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    return read
