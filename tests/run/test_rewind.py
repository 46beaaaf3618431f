"""Logs that go back to their checkpoint's place: nothing stands twice, and nothing is lost by a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssd.errors import DataError
from ssd.run import rewind as module
from ssd.run.rewind import METRICS, RESULT_LOG, rewind, set_aside, synced_size

KEPT = {RESULT_LOG: b"run_start\nepoch 1\n", METRICS: b'{"kind": "train"}\n'}
PLACES = {name: len(content) for name, content in KEPT.items()}
RESUMED = b':::MLLOG {"key": "ssd_resumed", "value": true}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / RESULT_LOG).write_bytes(KEPT[RESULT_LOG] + b"epoch 2\nepo")
    (tmp_path / METRICS).write_bytes(KEPT[METRICS] + b'{"kind": "epoch"}\n')
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_cut_is_moved(folder: Path) -> None:
    rewind(folder, PLACES)
    assert contents(folder) == {
        **KEPT,
        "result_0.cut-1.txt": b"epoch 2\nepo",
        "metrics.cut-1.jsonl": b'{"kind": "epoch"}\n',
    }


def test_each_resume_cuts_into_files_of_its_own(folder: Path) -> None:
    rewind(folder, PLACES)
    with (folder / METRICS).open("ab") as file:
        file.write(b"again\n")
    rewind(folder, PLACES)
    found = contents(folder)
    assert found["metrics.cut-2.jsonl"] == b"again\n"
    assert found["metrics.cut-1.jsonl"] == b'{"kind": "epoch"}\n'
    assert "result_0.cut-2.txt" not in found, "nothing was cut from it"


def test_words_of_earlier_resumes_stay(folder: Path) -> None:
    """A run that was resumed, and killed before its next checkpoint, was resumed all the same."""
    (folder / RESULT_LOG).write_bytes(KEPT[RESULT_LOG] + b"epoch 2\n" + RESUMED + b"epoch 2\n")
    rewind(folder, PLACES)
    found = contents(folder)
    assert found[RESULT_LOG] == KEPT[RESULT_LOG] + RESUMED
    assert found["result_0.cut-1.txt"] == b"epoch 2\n" + RESUMED + b"epoch 2\n"
    rewind(folder, PLACES)
    assert contents(folder) == found


@pytest.mark.parametrize("content", [b"run_start\n", b"run_start\nepoch 1, said otherwise\n", None])
def test_a_log_that_was_changed_is_refused_and_all_is_left(folder: Path, content: bytes | None) -> None:
    (folder / RESULT_LOG).unlink()
    if content is not None:
        (folder / RESULT_LOG).write_bytes(content)
    before = contents(folder)
    with pytest.raises(DataError, match=r"result_0\.txt.*[Ss]tart a new run"):
        rewind(folder, PLACES)
    assert contents(folder) == before


def test_killed_at_any_write_it_is_done_by_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each call that changes a file in turn, before and after it takes effect."""
    start = contents(folder)
    fsync, replace = os.fsync, Path.replace
    for stop in range(16):  # four files, each synced and renamed
        for path in folder.iterdir():
            path.unlink()
        for name, content in start.items():
            (folder / name).write_bytes(content)
        calls = 0

        def killed(act, *arguments, stop=stop):
            nonlocal calls
            calls += 2
            if calls - 2 == stop:
                raise KeyboardInterrupt
            act(*arguments)
            if calls - 1 == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(module.os, "fsync", lambda handle, killed=killed: killed(fsync, handle))
        monkeypatch.setattr(Path, "replace", lambda one, other, killed=killed: killed(replace, one, other))
        with pytest.raises(KeyboardInterrupt):
            rewind(folder, PLACES)
        monkeypatch.undo()
        rewind(folder, PLACES)
        found = contents(folder)
        assert {name: found[name] for name in KEPT} == KEPT
        cut = [content for name, content in found.items() if ".cut-" in name and not name.endswith(".part")]
        assert {b"epoch 2\nepo", b'{"kind": "epoch"}\n'} == set(cut), stop


def test_a_size_is_of_what_was_flushed(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        file.write("1234\n")
        file.flush()
        assert synced_size(tmp_path / "log") == 5


def test_a_run_without_a_checkpoint_is_set_aside_whole(folder: Path) -> None:
    (folder / "tensorboard").mkdir()
    (folder / "checkpoint.best.pt").write_bytes(b"best")
    (folder / "run.log").write_bytes(b"said")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    set_aside(folder)
    assert {path.name for path in folder.iterdir()} == {
        *("result_0.cut-1.txt", "metrics.cut-1.jsonl", "tensorboard.cut-1", "checkpoint.best.cut-1.pt", "run.log")
    }
    for name, content in before.items():
        stem, _, suffix = name.rpartition(".")
        assert (folder / (name if name == "run.log" else f"{stem}.cut-1.{suffix}")).read_bytes() == content
    set_aside(folder)
    (folder / METRICS).write_bytes(b"again")
    set_aside(folder)
    assert (folder / "metrics.cut-2.jsonl").read_bytes() == b"again"
    assert (folder / "metrics.cut-1.jsonl").read_bytes() == before[METRICS]
