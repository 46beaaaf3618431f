"""A run that is killed and resumed tells the same story as one that never was: each step and each event once.

A process that has imported torch, and computed nothing yet, forks a child for each trial. The child trains and kills
itself by SIGKILL at a chosen write.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ssd.config import resolve
from ssd.run.checkpoint import load_checkpoint
from ssd.train import train

Run = Callable[..., tuple[int, Path]]
TrainUntil = Callable[[list[str], int], None]

FLAGS = ["--epochs", "3", "--eval_epochs", "1", "3", "--checkpoint_interval", "1", "--log_freq", "1"]
FLAGS += ["--telemetry_interval", "0"]


SERVER = """
import json, os, signal, sys
from pathlib import Path
from ssd.config import resolve
from ssd.mlperf.events import EventWriter
from ssd.run.progress import Metrics
from ssd.train import train

done = 0

def counted(act, stop):
    def call(*arguments, **values):
        global done
        done += 1
        if done == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*arguments, **values)
    return call

for line in sys.stdin:
    words, stop = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(2, 1)  # what the run tells people is no answer of this server
        for owner, name in ((EventWriter, "_write"), (Metrics, "write"), (Path, "replace")):
            setattr(owner, name, counted(getattr(owner, name), stop))
        train(resolve(words, {}))
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def train_until(root: Path) -> Iterator[Callable[[list[str], int], None]]:
    """Train until a SIGKILL before the n-th write: of an event, a metric, or a finished file."""
    environ = {**os.environ, "PYTHONPATH": str(root / "base")}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin
    assert server.stdout

    def run(words: list[str], stop: int) -> None:
        print(json.dumps([words, stop]), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        assert os.WIFSIGNALED(status), f"the run was over before write {stop}"
        assert os.WTERMSIG(status) == signal.SIGKILL

    yield run
    server.stdin.close()
    server.stdout.close()
    server.wait(60)


def events(folder: Path) -> list[tuple]:
    """Key, value and metadata of each event but the words about a resume."""
    found = []
    for line in (folder / "result_0.txt").read_text().splitlines():
        event = json.loads(line.removeprefix(":::MLLOG "))
        metadata = {key: value for key, value in event["metadata"].items() if key not in ("file", "lineno")}
        if event["key"] != "ssd_resumed":
            found.append((event["key"], event["value"], metadata))
    return found


def metrics(folder: Path) -> list[dict]:
    """Records without times and rates; without the words about a resume, and those about each process of a run."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    timed = ("time", "images_per_s", "seconds", "sampled", "ranks")
    return [
        {key: value for key, value in record.items() if key not in timed}
        for record in records
        if record["kind"] not in ("resumed", "set_up", "account", "checkpoint")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """The same run, never killed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(resolve([*small, *FLAGS, "--output", str(folder)], {})) == 4
    return folder


def assert_same_story(folder: Path, whole: Path, resumes: int) -> None:
    assert events(folder) == events(whole)
    assert metrics(folder) == metrics(whole)
    log = (folder / "result_0.txt").read_text()
    assert log.count("ssd_resumed") == resumes
    assert (folder / "metrics.jsonl").read_text().count('"kind": "resumed"') == resumes
    one, other = load_checkpoint(folder / "checkpoint.pt"), load_checkpoint(whole / "checkpoint.pt")
    assert (one.step, one.evaluations) == (other.step, other.evaluations)
    assert all(torch.equal(tensor, other.model[name]) for name, tensor in one.model.items())
    for key, state in one.optimizer["state"].items():
        assert torch.equal(state["momentum_buffer"], other.optimizer["state"][key]["momentum_buffer"])


@pytest.mark.slow
@pytest.mark.parametrize("writes", [50, 53, 55, 66, 70])
def test_killed_at_a_write(train_until: TrainUntil, whole: Path, tmp_path: Path, small: list[str], writes: int) -> None:
    """In the middle of an epoch, at its end, before a checkpoint, in an evaluation, at the very end."""
    words = [*small, *FLAGS, "--output", str(tmp_path / "run")]
    train_until(words, writes)
    assert train(resolve([*words, "--resume"], {})) == 4
    assert_same_story(tmp_path / "run", whole, 1)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["resumed"]
    assert summary["seconds"]["run"] >= summary["seconds"]["lost"] > 0


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(
    train_until: TrainUntil, whole: Path, tmp_path: Path, small: list[str]
) -> None:
    """The same command, given again and again, begins anew; once there is a checkpoint, it goes on."""
    folder = tmp_path / "run"
    words = [*small, *FLAGS, "--output", str(folder), "--restart", "auto"]
    for write in (1, 30, 44):
        train_until(words, write)
    assert train(resolve(words, {})) == 4
    assert_same_story(folder, whole, 0)
    assert {path.name for path in folder.glob("*.cut-*")} == {
        *("result_0.cut-1.txt", "result_0.cut-2.txt", "metrics.cut-1.jsonl", "metrics.cut-2.jsonl")
    }
    assert not json.loads((folder / "summary.json").read_text())["resumed"]
    log = (folder / "result_0.txt").read_bytes()
    assert train(resolve(words, {})) == 4, "a run that has ended says so"
    assert (folder / "result_0.txt").read_bytes() == log


@pytest.mark.slow
def test_killed_again_and_again(train_until: TrainUntil, whole: Path, tmp_path: Path, small: list[str]) -> None:
    """What was cut lies beside the log, and what stands in log and cut files together is all that was ever written."""
    folder = tmp_path / "run"
    words = [*small, *FLAGS, "--output", str(folder)]
    train_until(words, 56)
    train_until([*words, "--resume"], 7)
    train_until([*words, "--resume"], 18)
    assert train(resolve([*words, "--resume"], {})) == 4
    assert_same_story(folder, whole, 3)
    cut = sorted(path.name for path in folder.glob("metrics.cut-*"))
    assert len(cut) >= 2
    assert cut == [f"metrics.cut-{number + 1}.jsonl" for number in range(len(cut))]
    steps: Counter[int] = Counter()
    for path in folder.glob("metrics*.jsonl"):
        steps.update(record["step"] for record in map(json.loads, path.open()) if record["kind"] == "train")
    assert set(steps) == set(range(1, 13))
    assert sum(steps.values()) > 12, "steps that were trained twice are told in the cut files"


@pytest.mark.slow
def test_a_run_that_goes_on_has_one_start_and_one_stop(small_run: Run) -> None:
    """By max_steps in the middle of an epoch, at its end, and on to more epochs than were meant."""
    flags = ["--eval_epochs", "2", "4", "--telemetry_interval", "0"]
    _, whole = small_run("--epochs", "4", *flags, folder="whole")
    for more in (["--max_steps", "3"], ["--max_steps", "8"], ["--max_steps", "16"]):
        resume = [] if more == ["--max_steps", "3"] else ["--resume"]
        _, parts = small_run("--epochs", "4", *flags, *more, *resume, folder="parts")
    assert events(parts) == events(whole)
    assert metrics(parts)[-1] == metrics(whole)[-1]
    _, longer = small_run("--epochs", "2", *flags, folder="longer")
    small_run("--epochs", "4", *flags, "--resume", folder="longer")
    assert events(longer) == events(whole)
