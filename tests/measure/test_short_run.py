"""A run that is started to time it: what its command line says, and what becomes of one that fails."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from ssd.errors import EXIT_BAD_CONFIG, EXIT_MAX_STEPS, SsdError
from ssd.measure import short_run
from ssd.measure.short_run import INTERVALS, LEAST_STEPS, MOST_STEPS, PROBE_STEPS, enough_steps, timed_run
from ssd.verbs.measure import _two_batches


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines of runs that are not started; each leaves a summary of 8 images a step, 16 images/s."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        commands.append(command)
        folder = Path(command[command.index("--output") + 1])
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"images_per_s": 16.0, "global_batch": 8}))
        return subprocess.CompletedProcess(command, EXIT_MAX_STEPS, "", "")

    monkeypatch.setattr(short_run.subprocess, "run", run)
    return commands


def test_a_timed_run_has_five_intervals_and_no_evaluation(tmp_path: Path, started: list[list[str]]) -> None:
    timed_run(["--name", "cpu"], 50, tmp_path / "run")
    (command,) = started
    flags = dict(pairwise(command))
    assert command[:2] == ["bash", str(short_run.SCRIPT)]
    assert (flags["--name"], flags["--max_steps"], flags["--log_freq"]) == ("cpu", "50", str(50 // INTERVALS))
    assert command[2:] == [
        *("--name", "cpu", "--epochs", "100000", "--eval_epochs", "100000", "--checkpoint_interval", "0"),
        *("--no-pretrained", "--max_steps", "50", "--log_freq", "10", "--output", str(tmp_path / "run")),
    ]
    assert timed_run([], 3, tmp_path / "short") == {"images_per_s": 16.0, "global_batch": 8}
    assert dict(pairwise(started[1]))["--log_freq"] == "1"
    assert int(flags["--eval_epochs"]) == int(flags["--epochs"]) == 100_000


@pytest.mark.parametrize(("seconds", "steps"), [(20, 40), (23, 45), (0.1, LEAST_STEPS), (10_000, MOST_STEPS)])
def test_steps_that_fill_a_time(tmp_path: Path, started: list[list[str]], seconds: float, steps: int) -> None:
    """Half a second a step."""
    assert enough_steps([], seconds, tmp_path / "probe") == steps
    assert str(PROBE_STEPS) in started[0]


def test_a_timing_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SsdError, match="nowhere") as error:
        timed_run(["--name", "cpu", "--config", "nowhere"], 5, tmp_path / "run")
    assert error.value.exit_code == EXIT_BAD_CONFIG


def test_the_two_batches_of_a_measurement() -> None:
    assert [_two_batches(batch) for batch in (8, 3, 1)] == [(8, 4), (3, 1), (1, 2)]


@pytest.mark.parametrize(("code", "exit_code"), [(7, 7), (0, 1)])
def test_what_a_run_says_that_ends_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, exit_code: int
) -> None:
    """A run of a few steps ends by max_steps: one that reached its target is no timing run either."""
    monkeypatch.setattr(
        short_run.subprocess,
        "run",
        lambda command, **how: subprocess.CompletedProcess(command, code, " said\n", "why "),
    )
    with pytest.raises(SsdError) as error:
        timed_run([], 5, tmp_path / "run")
    assert str(error.value) == f"the timing run ended with exit code {code}, and said:\nsaid\nwhy"
    assert error.value.exit_code == exit_code
