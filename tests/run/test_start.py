"""Before a run writes anything: whose folder it is, and who is told so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd.account.timeline import Timeline
from ssd.compute.ranks import Ranks
from ssd.config import Config, Resolved
from ssd.errors import ConfigError, DataError
from ssd.run import start
from ssd.run.checkpoint import CHECKPOINT, Checkpoint, save_checkpoint
from ssd.run.inputs import Input
from ssd.run.start import ended, own_folder, saved_run
from ssd.vendor import load_vendor

HOLDER = """
import sys
from pathlib import Path
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.run.start import own_folder
with own_folder(Config(output=Path(sys.argv[1])), Ranks()) as folder:
    (folder / "result_0.txt").write_text("being written")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("resume", [False, True])
def test_the_second_of_two_runs_is_told_who_has_the_folder(root: Path, tmp_path: Path, resume: bool) -> None:
    """And not to remove what the first is writing."""
    folder = tmp_path / "run"
    environ = {**os.environ, "PYTHONPATH": str(root / "base")}
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=f"output = {folder} is in use by process {holder.pid} on host") as caught,
            own_folder(Config(output=folder, resume=resume), Ranks()),
        ):
            pass
        assert "remove" not in str(caught.value)
        assert (folder / "result_0.txt").read_text() == "being written"
        holder.communicate("", timeout=60)
    assert [path.name for path in folder.iterdir()] == ["result_0.txt"], "the lock goes with its holder"


def test_a_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), own_folder(Config(output=tmp_path / "runs" / "one"), Ranks()):
        _ = 1 / 0
    assert not (tmp_path / "runs" / "one").exists()


def test_an_empty_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with own_folder(Config(output=tmp_path / "mine"), Ranks()) as folder:
        assert folder == tmp_path / "mine"
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_lock_that_a_killed_run_left_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text('{"pid": 1, "host": "gone"}')
    with own_folder(Config(output=tmp_path), Ranks()):
        pass


def test_another_run_s_folder(tmp_path: Path) -> None:
    (tmp_path / "result_0.txt").touch()
    with (
        pytest.raises(ConfigError, match="ended before its first checkpoint"),
        own_folder(Config(output=tmp_path), Ranks()),
    ):
        pass
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(ConfigError, match="--resume to continue"), own_folder(Config(output=tmp_path), Ranks()):
        pass
    with pytest.raises(ConfigError, match="output is missing"), own_folder(Config(), Ranks()):
        pass


KILLED = ("config.json", "system.json", "result_0.txt", "result_0.cut-1.txt", "metrics.jsonl", "run.log")
KILLED += ("tensorboard", "checkpoint.best.pt", "checkpoint.pt.part", "config.json.part")


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    for name in KILLED:
        (tmp_path / name).touch()
    with own_folder(Config(output=tmp_path, restart="auto"), Ranks()):
        assert {path.name for path in tmp_path.iterdir()} == {*KILLED, ".lock"}, "nothing is moved yet"
    assert saved_run(Config(output=tmp_path, restart="auto"), Ranks(), tmp_path) is None


@pytest.mark.parametrize(
    "name", ["summary.json", "thesis.pdf", "checkpoint.pt", "checkpoint.previous.pt", "result_1.txt"]
)
def test_what_no_killed_run_has_left_is_not_written_over(name: str, tmp_path: Path) -> None:
    """A run that has ended, other people's files, and a checkpoint that came after this command looked for one."""
    for one in (*KILLED, name):
        (tmp_path / one).touch()
    words = "--resume to continue" if name.startswith("checkpoint") else f"take out what .*: {name}"
    with pytest.raises(ConfigError, match=words), own_folder(Config(output=tmp_path, restart="auto"), Ranks()):
        pass


# What a resumed run may be told anew


@pytest.mark.parametrize(
    "given",
    [
        {"num_workers": 9, "prefetch": 3, "log_freq": 7, "telemetry_interval": 0.0},
        {"numa_binding": "node", "collective_timeout": 30.0, "checkpoint_interval": 1},
        {"data_dir": "/elsewhere", "cache_dir": "/cache", "backbone_path": "/b.pth", "seed": 3, "master_port": 4000},
        {"epochs": 200, "max_steps": 9},
    ],
)
def test_place_pace_and_length_may_change_on_a_resume(
    given: dict[str, Any], tmp_path: Path, checkpoint: Callable[..., Checkpoint]
) -> None:
    save_checkpoint(tmp_path / CHECKPOINT, checkpoint(step=3))
    found = saved_run(Config(output=tmp_path, resume=True, **given), Ranks(), tmp_path)
    assert found is not None
    assert found.step == 3


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("precision", "bf16", "precision was fp32 and is bf16"),
        ("coco_metric", "pycocotools", "coco_metric was hotcoco and is pycocotools"),
        ("warmup", 9, "warmup was 300 and is 9"),
        ("train_batch_size", 8, "train_batch_size was 32 and is 8"),
        ("threshold", 0.2, "threshold was 0.23 and is 0.2"),
        ("eval_interval", 3, "eval_interval was 5 and is 3"),
    ],
)
def test_what_a_run_computes_and_is_stays_on_a_resume(
    key: str, value: Any, words: str, tmp_path: Path, checkpoint: Callable[..., Checkpoint]
) -> None:
    save_checkpoint(tmp_path / CHECKPOINT, checkpoint())
    with pytest.raises(ConfigError, match=words):
        saved_run(Config(output=tmp_path, resume=True, **{key: value}), Ranks(), tmp_path)


# A saved run that may have ended


@pytest.mark.parametrize(
    ("changed", "flags", "code", "more"),
    [
        ({"step": 3, "evaluations": [(1, 0.23)]}, {}, 0, "changed"),
        ({"step": 3, "evaluations": [(1, 0.25), (2, 0.1)]}, {"epochs": 5}, 0, "changed"),
        ({"step": 8}, {"epochs": 2, "max_steps": 8}, 4, "larger --epochs"),
        ({"step": 9}, {"epochs": 2}, 4, "larger --epochs"),
        ({"step": 7}, {"epochs": 2, "max_steps": 7}, 5, "larger --max_steps"),
        ({"step": 7}, {"epochs": 2, "max_steps": 6}, 5, "larger --max_steps"),
        ({"step": 7}, {"epochs": 2, "max_steps": 8}, None, ""),
        ({"step": 7, "evaluations": [(1, 0.2299)]}, {"epochs": 2}, None, ""),
    ],
)
def test_a_run_with_nothing_left_to_do_has_ended(
    changed: dict, flags: dict, code: int | None, more: str, tmp_path: Path, checkpoint: Callable, caplog
) -> None:
    caplog.set_level("INFO")
    saved = checkpoint(**changed)
    (tmp_path / "summary.json").write_text(json.dumps({"steps": saved.step, "exit_code": code}))
    assert ended(Config(**flags), Ranks(), tmp_path, saved) == code
    assert [more in line for line in caplog.messages] == [True] * (code is not None)
    if code is not None:
        assert f"has ended (exit code {code}: " in caplog.text
        assert ("reached the target" in caplog.text) == (code == 0)


@pytest.mark.parametrize(
    "summary",
    [None, "{", "[8]", "{}", '{"steps": 8}', '{"steps": 7, "exit_code": 4}', '{"steps": 8, "exit_code": 143}'],
)
def test_a_run_without_the_summary_of_its_last_step_has_not_ended(
    summary: str | None, tmp_path: Path, checkpoint: Callable
) -> None:
    """Nor has one that a signal stopped after its last step: its evaluation is still to be made."""
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary)
    assert ended(Config(epochs=2), Ranks(), tmp_path, checkpoint(step=8)) is None


def test_the_seed_is_the_checkpoint_s_the_key_s_or_drawn(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Callable[..., Checkpoint]
) -> None:
    monkeypatch.setattr(start.secrets, "randbits", lambda bits: bits + 1000)
    assert start._pick_seed(Config(seed=7), checkpoint(seed=9)) == 9
    assert start._pick_seed(Config(seed=7), None) == 7
    assert start._pick_seed(Config(seed=0), None) == 0
    assert start._pick_seed(Config(), None) == 1032


def synthetic_start(saved: Checkpoint | None = None, **values: Any) -> start.Start:
    keys = {"data_backend": "synthetic", "synthetic_samples": 6, "num_classes": 4, "train_batch_size": 2, **values}
    resolved = Resolved(Config(**keys, pretrained=False), {})
    vendor = load_vendor("cpu")
    return start.start_run(resolved, vendor, torch.device("cpu"), Ranks(), Path("runs"), saved, Timeline())


def test_what_a_run_is_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = synthetic_start(seed=7, epochs=3)
    assert (begun.seed, begun.saved, begun.folder) == (7, None, Path("runs"))
    assert (begun.loader.steps_per_epoch, begun.last_step) == (3, 9)
    assert begun.config.epochs == 3
    assert begun.abilities.device == torch.device("cpu")
    assert begun.inputs == {}, "keys describe a synthetic set"
    assert begun.timeline.totals().keys() == {"imports", "index"}
    assert synthetic_start(seed=7, epochs=3, max_steps=5).last_step == 5


def test_data_other_than_the_checkpoint_s_are_refused(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Callable[..., Checkpoint]
) -> None:
    monkeypatch.setattr(start, "inputs_of", lambda *arguments: [Input("annotations", Path("a.json"), "5e")])
    assert synthetic_start(seed=7).inputs == {"annotations": "5e"}
    assert synthetic_start(checkpoint(seed=9, inputs={"annotations": "5e"})).seed == 9
    with pytest.raises(DataError):
        synthetic_start(checkpoint(inputs={"annotations": "0f"}))
