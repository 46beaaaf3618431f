"""What is said of a run that was cut off: what it has saved, and a command that goes on from there."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd.config import Config, resolve, write_resolved
from ssd.run.checkpoint import Checkpoint, save_checkpoint
from ssd.run.saved import say_saved


def test_the_command_goes_on(
    tmp_path: Path, checkpoint: Callable[..., Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a run"
    folder.mkdir()
    started = resolve(["--config", "smoke", "--output", str(folder)], {})
    write_resolved(folder / "config.json", started)
    save_checkpoint(folder / "checkpoint.pt", checkpoint(step=6, steps_per_epoch=4))
    with caplog.at_level(logging.INFO):
        say_saved(started.config, 130)
    said, command = caplog.messages[0].splitlines()
    assert said == f"{folder}/checkpoint.pt holds the run after step 6 (1.5 epochs); to go on:"
    shell, script, *words = shlex.split(command)
    assert (shell, Path(script).is_file()) == ("bash", True)
    assert resolve(words, {}).config == started.config.model_copy(update={"resume": True})


@pytest.mark.parametrize(
    ("interval", "code", "words"),
    [(5, 130, "its first checkpoint was due after epoch 5"), (0, 143, "was due at the end"), (5, 8, "")],
)
def test_a_run_without_a_checkpoint(
    interval: int, code: int, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "result_0.txt").touch()
    with caplog.at_level(logging.INFO):
        say_saved(Config(output=tmp_path, checkpoint_interval=interval), code)
    assert words in caplog.text
    assert bool(words) == caplog.text.rstrip().endswith(f"with --restart auto --output {tmp_path}") == bool(caplog.text)


def test_a_run_that_wrote_nothing_and_a_damaged_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        say_saved(Config(output=tmp_path / "nowhere"), 130)
        say_saved(Config(output=tmp_path), 130)
        assert caplog.text == ""
        (tmp_path / "checkpoint.pt").write_bytes(b"cut short")
        say_saved(Config(output=tmp_path), 130)
    assert "not a readable checkpoint" in caplog.text
