"""A run that stopped goes on bit for bit: 2N steps, and N steps, an end, and N more, give the same model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssd.errors import ConfigError, DataError
from ssd.run.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, Path]]


def assert_same_run(a: Path, b: Path) -> None:
    """Every tensor and every count of two runs' last checkpoints is equal, to the last bit."""
    one, other = load_checkpoint(a / "checkpoint.pt"), load_checkpoint(b / "checkpoint.pt")
    assert one.step == other.step
    assert one.evaluations == other.evaluations
    assert one.model.keys() == other.model.keys()
    for name, tensor in one.model.items():
        assert torch.equal(tensor, other.model[name]), name
    for key, state in one.optimizer["state"].items():
        assert torch.equal(state["momentum_buffer"], other.optimizer["state"][key]["momentum_buffer"]), key


@pytest.mark.parametrize("half", [3, 4])  # in the middle of the first epoch, and at its end
def test_stopped_by_max_steps(small_run: Run, half: int) -> None:
    code, whole = small_run("--max_steps", "6", folder="whole")
    assert code == 5
    code, parts = small_run("--max_steps", str(half), folder="parts")
    assert code == 5
    assert load_checkpoint(parts / "checkpoint.pt").step == half
    code, _ = small_run("--max_steps", "6", "--resume", folder="parts")
    assert code == 5
    assert_same_run(whole, parts)


def test_killed(small_run: Run, root: Path, tmp_path: Path) -> None:
    _, whole = small_run("--epochs", "3", "--eval_epochs", "1", "3", folder="whole")
    output = tmp_path / "killed"
    flags = "--config smoke --width 0.125 --synthetic_samples 8 --train_batch_size 2 --seed 5 --checkpoint_interval 1"
    long = [*flags.split(), "--epochs", "3000", "--eval_epochs", "1", "3", "--output", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ssd", "train", *long], env={**os.environ, "PYTHONPATH": str(root / "base")}
    )
    while not (output / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stopped = load_checkpoint(output / "checkpoint.pt").step
    epochs = max(3, stopped // 4 + 1)
    more = ["--epochs", str(epochs), "--eval_epochs", "1", "3", "--checkpoint_interval", "1"]
    if epochs > 3:  # the machine was quick: compare with a whole run of that many epochs
        _, whole = small_run(*more, folder="longer")
    small_run(*more, "--resume", folder="killed")
    assert_same_run(whole, output)
    log = (output / "result_0.txt").read_text()
    assert log.count('"key": "run_start"') == 1
    assert "ssd_resumed" in log


def test_a_finished_run_stays_finished(small_run: Run) -> None:
    code, folder = small_run("--epochs", "1", "--eval_epochs", "1")
    assert code == 4
    before = load_checkpoint(folder / "checkpoint.pt").step
    code, _ = small_run("--epochs", "1", "--eval_epochs", "1", "--resume")
    assert (code, load_checkpoint(folder / "checkpoint.pt").step) == (4, before)


def test_another_run_is_not_gone_on_with(small_run: Run) -> None:
    small_run("--max_steps", "1")
    with pytest.raises(ConfigError, match=r"base_learning_rate was 0\.01 and is 0\.02"):
        small_run("--max_steps", "2", "--base_learning_rate", "0.02", "--resume")


def test_nothing_to_go_on_with(small_run: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="no checkpoint"):
        small_run("--resume")


def test_a_run_never_lands_in_another_s_folder(small_run: Run) -> None:
    _, folder = small_run("--max_steps", "1")
    with pytest.raises(ConfigError, match=r"not empty.*--resume"):
        small_run("--max_steps", "1")
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(ConfigError, match=r"not empty.*before its first checkpoint"):
        small_run("--max_steps", "1")


def test_bad_data_leaves_no_folder_in_the_way(small_run: Run, tmp_path: Path) -> None:
    """The corrected command works at once."""
    with pytest.raises(DataError):
        small_run("--data_backend", "threads", "--data_dir", str(tmp_path / "nothing"))
    assert not (tmp_path / "run").exists()
    assert small_run("--max_steps", "1")[0] == 5
