"""From a campaign to a checked package, with real runs of the smallest kind; `make demo-submission` is the long way.

Five runs of a second each cannot reach the target, so where a result is to pass, the metric alone is a stand-in.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import ssd.verbs.campaign
from ssd.config import resolve
from ssd.config.verb import read
from ssd.errors import EXIT_NOT_CONVERGED, EXIT_NOT_FINITE, EXIT_REACHED, ConfigError, DataError, SsdError
from ssd.mlperf.attempts import load_state
from ssd.mlperf.commands import campaign_command, package_command, results_command
from ssd.mlperf.expectations import Planned
from ssd.train import train
from ssd.verbs.table import VERBS

pytestmark = pytest.mark.slow

FLAGS = ["--config", "smoke", "--width", "0.125", "--synthetic_samples", "8", "--train_batch_size", "2"]
FLAGS += ["--epochs", "2", "--eval_epochs", "1", "2", "--submitter", "Somebody", "--system", "a box"]


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign is of one commit; somebody may commit to the checkout while these tests run."""
    monkeypatch.setenv("GIT_DIR", "/nonexistent")


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Make a campaign whose runs train in this process. maps: what the runs' evaluations come to, one a run."""

    def go(maps: Sequence[float], *flags: str) -> int:
        left = iter(maps)

        def launch(flags: Sequence[str], environ: Mapping[str, str]) -> int:
            mean_ap = next(left)
            monkeypatch.setattr("ssd.run.evaluation.bbox_statistics", lambda *arguments: np.full(12, mean_ap))
            try:
                return train(resolve(list(flags), {}))
            except SsdError as error:
                return error.exit_code

        argv = ["--folder", str(tmp_path / "campaign"), "--measure_steps", "0", *FLAGS, *flags]
        keys, own = read(VERBS["campaign"], argv)
        return campaign_command(
            keys,
            **own,
            resolve=ssd.verbs.campaign._plan,
            launch=launch,
            drop_caches=lambda planned: "only root may",
            how_long=ssd.verbs.campaign._how_long,
        )

    return go


def test_real_runs_make_a_package_that_the_official_checkers_pass(campaign, tmp_path, capsys) -> None:
    """One of the five trains to its end without the target: it counts, as the slowest."""
    assert campaign([0.24, 0.25, 0.1, 0.24, 0.23]) == EXIT_REACHED
    package = tmp_path / "package"
    capsys.readouterr()
    assert package_command([tmp_path / "campaign"], out=package) == EXIT_REACHED
    said = capsys.readouterr().out
    assert "PASS" in said
    assert "score of a_box: " in said
    assert "did not converge" in said
    assert "width 0.125: not the benchmark's model" in said
    description = json.loads((package / "systems/a_box.json").read_text())
    assert "width 0.125" in description["sw_notes"]
    assert description["framework"].startswith("PyTorch ")
    assert description["host_memory_capacity"].endswith("GiB")
    readme = (package / "benchmarks/ssd/implementations/a_box/README.md").read_text()
    assert "width 0.125" in readme
    assert "--width 0.125" in readme
    assert str(tmp_path) not in readme + (package / "benchmarks/ssd/implementations/a_box/config.json").read_text()
    assert package_command([], check=package) == EXIT_REACHED
    capsys.readouterr()
    assert results_command([tmp_path], json=True) == EXIT_REACHED
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["success", "success", "aborted", "success", "success"]
    assert [row["epochs"] for row in rows] == [1, 1, 2, 1, 1]
    assert len({row["seed"] for row in rows}) == 5


def test_runs_that_train_beyond_their_target_make_a_package_too(campaign, tmp_path, capsys) -> None:
    """Their scores are known when the next evaluation is due, an epoch of 4 steps later."""
    flags = ["--epochs", "3", "--eval_epochs", "1", "2", "--async_eval", "--checkpoint_interval", "0"]
    assert campaign([0.24, 0.25, 0.23, 0.24, 0.26], *flags) == EXIT_REACHED
    beyond = [json.loads((path / "summary.json").read_text()) for path in sorted((tmp_path / "campaign").glob("run_*"))]
    assert len(beyond) == 5
    assert all(0 <= one["steps_beyond"] <= 4 and one["steps"] == 4 + one["steps_beyond"] for one in beyond)
    capsys.readouterr()
    package = tmp_path / "package"
    assert package_command([tmp_path / "campaign"], out=package) == EXIT_REACHED
    assert "PASS" in capsys.readouterr().out
    assert package_command([], check=package) == EXIT_REACHED


def test_what_a_campaign_plans_is_what_its_runs_log(campaign, tmp_path, monkeypatch) -> None:
    """The plan judges numbers before any run exists; a run that logged others would be judged by others later."""
    seen: list[Planned] = []
    plan = ssd.verbs.campaign._plan
    monkeypatch.setattr("ssd.verbs.campaign._plan", lambda flags: seen.append(plan(flags)) or seen[-1])
    assert campaign([0.24], "--runs", "1") == EXIT_REACHED
    lines = (tmp_path / "campaign/result_0.txt").read_text().splitlines()
    logged = {record["key"]: record["value"] for record in (json.loads(line.split(" ", 1)[1]) for line in lines)}
    planned = {key: value for key, value in seen[0].facts.records().items() if key != "seed"}
    assert planned.items() <= logged.items()


def test_an_easier_target_is_no_result(campaign, tmp_path, capsys) -> None:
    """Below 0.23 a run may call itself a success; a check names each such log, in the open division too."""
    assert campaign([0.1] * 5, "--threshold", "0.05") == EXIT_REACHED
    capsys.readouterr()
    package = tmp_path / "package"
    assert package_command([tmp_path / "campaign"], out=package) == DataError.exit_code
    said = capsys.readouterr().out
    logs = ", ".join(f"result_{index}.txt" for index in range(5))
    assert f"ERROR results/a_box/ssd/{logs}: run_stop says success, but the last evaluation reached 0.1, unr" in said
    assert "FAIL: 5 errors" in said


def test_runs_that_miss_the_target_end_the_campaign_and_are_named(campaign, tmp_path, caplog) -> None:
    assert campaign([0.1, 0.24, 0.2299]) == EXIT_NOT_CONVERGED
    assert "run_0, run_2 did not converge, and one run may" in caplog.text
    assert [attempt.exit_code for attempt in load_state(tmp_path / "campaign").attempts] == [4, 0, 4]
    with pytest.raises(ConfigError, match="3 runs: a package holds exactly 5"):
        package_command([tmp_path / "campaign"], out=tmp_path / "package")


def test_runs_that_diverge_count_as_runs_that_missed_the_target(campaign, tmp_path, caplog) -> None:
    flags = ["--base_learning_rate", "1e20", "--warmup", "0", "--log_freq", "1"]
    assert campaign([0.24, 0.24], *flags) == EXIT_NOT_CONVERGED
    assert "run_0, run_1 did not converge" in caplog.text
    attempts = load_state(tmp_path / "campaign").attempts
    assert [(one.outcome, one.exit_code) for one in attempts] == [("counts", EXIT_NOT_FINITE)] * 2
    assert '"status": "aborted"' in (tmp_path / "campaign/result_1.txt").read_text().splitlines()[-1]


def test_a_campaign_killed_in_its_second_run_repeats_that_one_alone(root, tmp_path, warm_python) -> None:
    folder = tmp_path / "campaign"
    words = ["campaign", "--folder", str(folder), "--runs", "2", "--measure_steps", "0", *FLAGS]
    started = subprocess.Popen([warm_python, "-m", "ssd", *words], cwd=root / "base", start_new_session=True)
    while not (folder / "run_1" / "config.json").exists():
        assert started.poll() is None
        time.sleep(0.02)
    started.kill()
    started.wait()
    for process in processes_about(folder / "run_1"):  # the run has outlived its campaign
        os.kill(process, signal.SIGKILL)
    before = (folder / "run_0" / "result_0.txt").read_bytes()
    assert not (folder / "run_1" / "summary.json").exists()

    again = subprocess.run(
        [warm_python, "-m", "ssd", *words], cwd=root / "base", capture_output=True, text=True, timeout=300
    )
    assert again.returncode == EXIT_NOT_CONVERGED, "both runs trained to their end, and missed the target"
    assert "run_1 (seed " in again.stderr
    assert "does not count: interrupted" in again.stderr
    attempts = load_state(folder).attempts
    assert [(one.folder, one.outcome) for one in attempts] == [
        ("run_0", "counts"),
        ("run_1", "failed"),
        ("run_2", "counts"),
    ]
    assert (folder / "run_0" / "result_0.txt").read_bytes() == before == (folder / "result_0.txt").read_bytes()
    assert (folder / "result_1.txt").read_bytes() == (folder / "run_2" / "result_0.txt").read_bytes()
    assert "ssd_resumed" not in (folder / "result_1.txt").read_text()


def processes_about(folder: Path) -> Iterator[int]:
    """Processes whose command line names a folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile
        if str(folder).encode() in words:
            yield int(path.parent.name)


def test_a_run_ends_with_its_campaign(tmp_path, monkeypatch) -> None:
    """Ctrl-C: the launcher is asked to end, once, and waited for, so that the run's log can say how it ended."""
    script = tmp_path / "run_training.sh"
    script.write_text(
        f"sleep 60 & trap 'echo ended >> {tmp_path}/said; kill $!; exit' TERM\nsleep 0.3\nkill -INT $PPID\nwait\n"
    )
    monkeypatch.setattr("ssd.verbs.campaign._RUN", script)
    with pytest.raises(KeyboardInterrupt):
        ssd.verbs.campaign._launch([], os.environ)
    assert (tmp_path / "said").read_text() == "ended\n"


def test_a_killed_launcher_is_reported_as_a_shell_does(tmp_path, monkeypatch) -> None:
    script = tmp_path / "run_training.sh"
    script.write_text("kill -KILL $$\n")
    monkeypatch.setattr("ssd.verbs.campaign._RUN", script)
    assert ssd.verbs.campaign._launch([], os.environ) == 137
