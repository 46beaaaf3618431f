"""A run that stopped goes on bit for bit: 2N steps, and N steps, an end, and N more, give the same model."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd.config import Config, resolve
from ssd.config.resolved import read_resolved
from ssd.data.annotations import sha256_of
from ssd.errors import ConfigError, DataError, MachineError
from ssd.prepare.drawn import draw_set
from ssd.run.checkpoint import load_checkpoint, save_checkpoint
from ssd.run.schedule import learning_rate_at
from ssd.train import train

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
    before = read_resolved(parts / "config.json")
    assert train(resolve(["--resume", "--output", str(parts), "--max_steps", "6"], {})) == 5
    assert_same_run(whole, parts)
    after = read_resolved(parts / "config.json")
    assert after.config == before.config.model_copy(update={"max_steps": 6}), "a later resume goes on with these"
    assert {key for key, origin in after.provenance.items() if origin != before.provenance[key]} <= {"output"}


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


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do something in the middle of a step, from 1."""

    def rate(config: Config, step: int, epoch: int) -> float:
        if step + 1 == number:
            act()
        return learning_rate_at(config, step, epoch)

    monkeypatch.setattr("ssd.train.learning_rate_at", rate)


SIGNALLED = ["--epochs", "2", "--eval_epochs", "1", "2", "--telemetry_interval", "0", "--log_freq", "1"]


@pytest.fixture(scope="module")
def never_asked(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """The folder of a run that no signal stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(resolve([*small, *SIGNALLED, "--output", str(folder)], {})) == 4
    return folder


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGTERM, 6), (signal.SIGUSR1, 4), (signal.SIGTERM, 8)],
    ids=["in an epoch", "before an evaluation", "before the last"],
)
def test_a_signal_finishes_the_step_and_leaves_a_checkpoint(
    small_run: Run, monkeypatch: pytest.MonkeyPatch, never_asked: Path, number: signal.Signals, step: int
) -> None:
    """The run stops with the code of the signal, and goes on to the same tensors, events and steps."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        code, folder = small_run(*SIGNALLED)
    assert code == 128 + number
    assert load_checkpoint(folder / "checkpoint.pt").step == step
    assert json.loads((folder / "summary.json").read_text())["exit_code"] == 128 + number
    stop = json.loads((folder / "result_0.txt").read_text().splitlines()[-1].removeprefix(":::MLLOG "))
    assert (stop["key"], stop["metadata"]["status"]) == ("run_stop", "aborted")
    assert small_run(*SIGNALLED, "--resume")[0] == 4
    assert_same_run(never_asked, folder)
    assert told(folder) == told(never_asked)


def told(folder: Path) -> tuple[list[tuple], list[int], list[int]]:
    """The events of a run without the words about a resume; the steps and epochs of its records."""
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in (folder / "result_0.txt").open()]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return (
        [(e["key"], e["value"], e["metadata"].get("epoch_num")) for e in events if e["key"] != "ssd_resumed"],
        [one["step"] for one in records if one["kind"] == "train"],
        [one["epoch"] for one in records if one["kind"] == "epoch"],
    )


def test_a_checkpoint_by_the_time(
    small_run: Run, monkeypatch: pytest.MonkeyPatch, never_asked: Path, tmp_path: Path
) -> None:
    """One in the middle of an epoch. A run that is cut off goes on from there."""
    with monkeypatch.context() as patch:
        asked = iter([False] * 4 + [True] + [False] * 100)
        patch.setattr("ssd.run.saves.Saves.due", lambda saves, minutes: minutes == 7 and next(asked))

        def cut_off() -> None:
            raise KeyboardInterrupt

        at_step(patch, 8, cut_off)
        with pytest.raises(KeyboardInterrupt):
            small_run(*SIGNALLED, "--checkpoint_minutes", "7")
    folder = tmp_path / "run"
    assert load_checkpoint(folder / "checkpoint.pt").step == 5
    assert small_run(*SIGNALLED, "--resume")[0] == 4
    assert_same_run(never_asked, folder)
    assert told(folder) == told(never_asked)


def test_several_processes_stop_after_the_same_step(
    small: list[str], tmp_path: Path, root: Path, warm_python: str
) -> None:
    """The launcher gets the signal while they train. It ends with the signal's code, and says how to go on."""
    folder = tmp_path / "run"
    words = ["--nproc_per_node", "2", *small, "--epochs", "100000", "--output", str(folder), "--log_freq", "1"]
    started = [warm_python, "-m", "ssd", "launch", *words]
    with subprocess.Popen(started, cwd=root / "base", stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if re.search(r"step 3/", line):
                process.send_signal(signal.SIGUSR1)
    text = "".join(said)
    assert process.returncode == 128 + signal.SIGUSR1, text
    assert "SIGUSR1: the run stops after this step, with a checkpoint" in text
    saved = load_checkpoint(folder / "checkpoint.pt")
    assert f"holds the run after step {saved.step} (" in text


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file: when it was written, and what is in it."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (["--epochs", "1"], 4, r"exit code 4: trained all its epochs.*larger --epochs"),
        (["--epochs", "3", "--max_steps", "5"], 5, r"exit code 5: .*larger --max_steps"),
        (["--epochs", "3", "--threshold", "0.0001"], 0, r"exit code 0: reached the target.*nothing in it is changed"),
    ],
)
def test_a_run_that_has_ended_says_so_and_touches_nothing(
    small_run: Run,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    end: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr("ssd.run.evaluation.bbox_statistics", lambda *arguments: np.full(12, 0.01))
    if code:
        monkeypatch.setattr("ssd.run.evaluation.bbox_statistics", lambda *arguments: np.zeros(12))
    ended, folder = small_run(*end, "--eval_epochs", "1")
    assert ended == code
    before = contents(folder)
    with caplog.at_level(logging.INFO):
        caplog.clear()
        assert small_run(*end, "--eval_epochs", "1", "--resume")[0] == code
    assert contents(folder) == before
    assert re.search(words, caplog.text)


def test_a_damaged_checkpoint_and_the_one_before(small_run: Run) -> None:
    """The damaged one ends the run by name. The one before is used where it is asked for, and ends in the same run."""
    flags = ["--epochs", "3", "--eval_epochs", "3", "--checkpoint_interval", "1"]
    _, whole = small_run(*flags, folder="whole")
    _, folder = small_run(*flags, "--max_steps", "10")
    newest, before = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"
    assert (load_checkpoint(newest).step, load_checkpoint(before).step) == (10, 8)
    content = bytearray(newest.read_bytes())
    content[5000] ^= 4
    newest.write_bytes(content)
    was = contents(folder)
    flags += ["--max_steps", "12", "--resume"]
    with pytest.raises(DataError, match=r"checkpoint\.pt: .*damaged.*of step 8: --resume --resume_from previous"):
        small_run(*flags)
    assert contents(folder) == was
    assert small_run(*flags, "--resume_from", "previous")[0] == 4
    assert_same_run(folder, whole)
    assert load_checkpoint(before).step == 8, "the damaged one is not kept"
    config = read_resolved(folder / "config.json").config
    assert (config.resume, config.resume_from) == (False, "newest")


def test_a_run_killed_before_its_summary_has_not_ended(small_run: Run) -> None:
    """Only its last words are missing, and a resume says them."""
    code, folder = small_run("--epochs", "1")
    (folder / "summary.json").unlink()
    log = folder / "result_0.txt"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if "run_stop" not in line))
    assert small_run("--epochs", "1", "--resume")[0] == code == 4
    assert json.loads((folder / "summary.json").read_text())["exit_code"] == 4
    assert log.read_text().count('"key": "run_stop"') == 1


def test_other_data_is_refused_and_leaves_the_run_as_it_was(small: list[str], tmp_path: Path) -> None:
    """Half of the training images taken out of the annotations between a run and its resume."""
    data, folder = tmp_path / "data", tmp_path / "run"
    draw_set(data, train=8, val=2, seed=1)
    words = [word.replace("synthetic", "threads") for word in small if word not in ("--synthetic_samples", "8")]
    words += ["--data_backend", "threads", "--data_dir", str(data), "--cache_dir", str(tmp_path / "cache")]
    words += ["--output", str(folder), "--epochs", "2", "--checkpoint_interval", "1"]
    assert train(resolve([*words, "--max_steps", "4"], {})) == 5
    path = data / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"] = content["images"][:4]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    trained_on = sha256_of(path)
    path.write_text(json.dumps(content))
    before = contents(folder)
    with pytest.raises(DataError, match=f"{path} .*{sha256_of(path)}.*{trained_on}") as caught:
        train(resolve([*words, "--resume", "--max_steps", "8"], {}))
    assert caught.value.exit_code == 3
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: {"model": {**saved.model, "surprise": torch.zeros(1)}}, "surprise"),
        (
            lambda saved: {"model": {name: one[:0] for name, one in saved.model.items() if one.dim()}},
            "tensors do not fit",
        ),
        (lambda saved: {"optimizer": {**saved.optimizer, "state": {}}}, "no momentum"),
        (lambda saved: {"optimizer": {"state": {}, "param_groups": [{"params": [0]}]}}, "tensors do not fit"),
        (lambda saved: {"rng": torch.zeros(3)}, "tensors do not fit"),
        (lambda saved: {"scaler": {}}, "tensors do not fit"),
        (lambda saved: {"config": saved.config.replace('"epochs"', '"epochs_of_old"')}, "epochs_of_old"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_bad_data(small_run: Run, change: Callable, words: str) -> None:
    _, folder = small_run("--max_steps", "1")
    saved = load_checkpoint(folder / "checkpoint.pt")
    save_checkpoint(folder / "checkpoint.pt", saved.model_copy(update=change(saved)))
    with pytest.raises(DataError, match=words):
        small_run("--max_steps", "2", "--resume")


def test_a_folder_that_is_removed_during_a_run(small_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is left to resume from, and nobody is told to."""

    def removing(*arguments: object) -> None:
        shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr("ssd.train.average_batch_norm", removing)
    with pytest.raises(MachineError, match=r"removed during the run.*start anew") as caught:
        small_run("--max_steps", "1")
    assert "--resume" not in str(caught.value)


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
