"""The summary of a run: what people are told of its end, and what programs read."""

from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ssd.console import StderrHandler
from ssd.report.summary import RunSummary, show_summary, source_commit, write_summary


def summary(**values: Any) -> RunSummary:
    known: dict[str, Any] = {
        "name": "cpu",
        "config": "a config with a name of many words, as a user may call it",
        "exit_code": 4,
        "target": 0.23,
        "seed": 5,
        "steps": 1,
        "global_batch": 1,
        "width": 1.0,
        "backbone_sha256": "",
        "resumed": False,
        "commit": "c0ffee",
        "images_per_s": None,
        "seconds": {"run": 2.0},
        "evaluations": [],
    }
    return RunSummary(**{**known, **values})


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        (0, "success", "reached the target"),
        (4, "aborted", "trained all its epochs without reaching the target"),
        (5, "aborted", "ended by max_steps"),
        (143, "aborted", "stopped by signal 15"),
    ],
)
def test_an_end_in_mlperf_s_words_and_in_people_s(
    code: int, status: str, outcome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_summary(tmp_path / "summary.json", summary(exit_code=code))
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (written["status"], written["outcome"], written["images_per_s"]) == (status, outcome, None)
    show_summary(summary(exit_code=code), tmp_path)
    said = capsys.readouterr().out
    assert outcome in said
    assert ("MLPerf's words: aborted" in said) == (code != 0)


def test_what_is_shown_is_whole_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(summary(picture="detections.jpg", seconds={"run": 9.0, "data": 0.5, "lost": 3.0}), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cpu / a config with a name of many words, as a user may call it"
    assert "too short a run to say" in "\n".join(lines)
    assert "1, 1 image each" in "\n".join(lines)
    assert "data 0.5 s, from a checkpoint to the resume 3.0 s" in "\n".join(lines)
    assert lines[-2:] == [f"run's folder:  {tmp_path}", f"detections:    {tmp_path}/detections.jpg"]
    show_summary(summary(images_per_s=12.34, images_per_s_per_device=6.17, steps=1200, global_batch=8), tmp_path)
    said = capsys.readouterr().out
    assert "12.3 images/s while training, 6.2 a device" in said
    assert "1,200, 8 images each" in said
    assert [line.split("│")[2].strip() for line in said.splitlines() if "taken" in line] == ["unknown"]
    show_summary(
        summary(max_memory_allocated_mib=71234.5, compile_s=31.25, host_cores=12.5, launches_per_step=650), tmp_path
    )
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        "taken device memory 71,234 MiB at most, compiling 31.2 s, 12.50 cores a process, 650 launches a step" in said
    )


def test_quiet_shows_nothing_and_the_run_s_log_has_it_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handler = StderrHandler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, "ssd"):
            show_summary(summary(), tmp_path)
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().out == ""
    assert "trained all its epochs" in caplog.text


def shown(folder: Path, capsys: pytest.CaptureFixture[str], **values: Any) -> tuple[dict[str, str], list[str]]:
    """The rows of the table by their names, and the lines below it."""
    show_summary(summary(**values), folder)
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    return dict(rows), lines[len(rows) + 3 :]


def test_all_that_is_known_of_a_run_that_reached_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").touch()
    rows, below = shown(
        tmp_path,
        capsys,
        exit_code=0,
        seconds={"run": 9.0, "evaluation": 2.0, "data": 0.5},
        images_per_s=800.0,
        images_per_s_per_device=100.0,
        mfu=0.25,
        peak="400 TFLOP/s",
        steps=1200,
        global_batch=8,
        steps_beyond=1000,
        evaluations=[(1, 0.125), (2, 0.25)],
        anomalies=[{"name": "epoch stalled", "words": "Epoch [7] took 9 s."}],
    )
    assert rows == {
        "result": "reached the target",
        "time to target": "9.0 s from run_start to mAP >= 0.23",
        "throughput": "800.0 images/s while training, 100.0 a device: 25.0% of 400 TFLOP/s",
        "steps": "1,200, 8 images each, 1,000 of them beyond the target",
        "of which": "data 0.5 s, evaluation 2.0 s",
        "taken": "unknown",
        "mAP by evaluation": "epoch 1: 0.1250  epoch 2: 0.2500",
        "seed": "5",
        "unusual": "epoch stalled: Epoch [7] took 9 s.",
    }
    assert below == [f"run's folder:  {tmp_path}", f"report:        {tmp_path}/report.html"]


def test_a_run_that_did_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, below = shown(tmp_path, capsys, exit_code=5, steps=0, launches_per_step=0.0)
    assert rows == {
        "result": "ended by max_steps (in MLPerf's words: aborted)",
        "trained for": "2.0 s from run_start; target mAP 0.23",
        "throughput": "too short a run to say",
        "steps": "0, 1 image each",
        "of which": "-",
        "taken": "0 launches a step",
        "mAP by evaluation": "not evaluated",
        "seed": "5",
    }
    assert below == [f"run's folder:  {tmp_path}"]


def test_the_lines_below_are_not_wrapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / ("long-" * 30)
    folder.mkdir()
    (folder / "report.html").touch()
    _, below = shown(folder, capsys, picture="detections.jpg")
    assert below == [
        f"run's folder:  {folder}",
        f"report:        {folder}/report.html",
        f"detections:    {folder}/detections.jpg",
    ]


def test_the_commit_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def git(command: list[str], **how: Any) -> subprocess.CompletedProcess:
        asked.append((command, how))
        return subprocess.CompletedProcess(command, 0, "c0ffee+changed\n", "")

    root = str(Path(__file__).resolve().parents[2])
    described = ["git", "-C", root, "describe", "--always", "--abbrev=40", "--dirty=+changed", "--exclude=*"]
    monkeypatch.setattr(subprocess, "run", git)
    assert source_commit() == "c0ffee+changed"
    assert asked == [(described, {"capture_output": True, "text": True, "check": True})]
    for error in (FileNotFoundError("no git"), subprocess.CalledProcessError(128, described)):
        monkeypatch.setattr(subprocess, "run", lambda *command, error=error, **how: throw(error))
        assert source_commit() == "unknown"


def throw(error: Exception) -> None:
    raise error
