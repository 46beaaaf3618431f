"""Where the time of published logs went: 20 real logs of four systems, none of them unusual, and one made so."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ssd.mlperf.commands import results_command
from ssd.mlperf.records import Record
from ssd.mlperf.results import read_result
from ssd.mlperf.times import TIMES, account_fields, account_table

A100 = "v1.1_NVIDIA_dgxa100_ngc21.09_mxnet"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The result logs of four published packages."""
    folder = tmp_path_factory.mktemp("published")
    with zipfile.ZipFile(Path(__file__).with_name("published_packages.zip")) as archive:
        archive.extractall(folder)
    return sorted(folder.rglob("result_*.txt"))


@pytest.fixture
def stretched(logs: list[Path], tmp_path: Path) -> Callable[[float], Path]:
    """A copy of an A100 log, from whose first epoch_stop on everything happens later by so many seconds."""

    def make(seconds: float) -> Path:
        lines, late = [], 0
        for line in next(log for log in logs if A100 in str(log)).read_text().splitlines(keepends=True):
            late = late or round(1000 * seconds * ('"epoch_stop"' in line))
            lines.append(re.sub(r'(?<="time_ms": )\d+', lambda time, by=late: str(int(time[0]) + by), line))
        path = tmp_path / "stretched.txt"
        path.write_text("".join(lines))
        return path

    return make


def test_no_published_log_is_unusual_and_each_adds_up(logs: list[Path]) -> None:
    assert len(logs) == 20
    for log in logs:
        row = read_result(log)
        assert row.unusual == "", log
        assert row.time_to_train_min is not None
        assert row.epoch_s is not None
        known = [row.start_s, row.first_epoch_excess_s, row.evaluation_s, row.rest_s]
        epochs = row.time_to_train_min * 60 - sum(part for part in known if part is not None)
        assert epochs / row.epoch_s == pytest.approx(float(row.epochs or 0), abs=1.5), "the rest is epochs"


def test_a_first_epoch_stretched_by_17_seconds_is_named(
    stretched: Callable[[float], Path], logs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_result(next(log for log in logs if A100 in str(log)))
    row = read_result(stretched(17))
    assert row.unusual.startswith("first epoch long: Epoch 1 took 26.9 s")
    assert (before.first_epoch_excess_s, row.first_epoch_excess_s) == (0.34, 17.34)
    assert results_command([stretched(17)]) == 0
    assert "stretched.txt: first epoch long: Epoch 1 took 26.9 s" in capsys.readouterr().out
    assert results_command([stretched(17)], json=True) == 0
    assert json.loads(capsys.readouterr().out)[0]["unusual"] == row.unusual


def test_a_first_epoch_stretched_by_little_is_not(stretched: Callable[[float], Path]) -> None:
    assert read_result(stretched(3)).unusual == ""


def test_the_seconds_of_each_row_as_a_table() -> None:
    """A figure that a log does not have is an empty cell."""
    told = {"time_to_train_min": 20.25, "start_s": 1.5, "first_epoch_excess_s": 0.0, "epoch_s": 9.504}
    rows = [
        ("a.txt", {**told, "evaluation_s": 1234.5, "rest_s": 2.0}),
        ("b.txt", dict.fromkeys(["time_to_train_min", *TIMES])),
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(account_table(rows))
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "seconds  run_start to run_stop  start  first epoch's excess  a steady epoch  evaluations  the rest",
        "a.txt                 1,215.00   1.50                  0.00            9.50     1,234.50      2.00",
        "b.txt",
    ]


def test_a_log_without_a_run_and_one_without_epochs() -> None:
    start, stop = Record("run_start", None, {}, 1000, 1), Record("run_stop", None, {}, 9000, 2)
    assert account_fields([start]) == {"unusual": ""}
    assert account_fields([start, stop]) == {
        "start_s": 0.0,
        "first_epoch_excess_s": None,
        "epoch_s": None,
        "evaluation_s": 0.0,
        "rest_s": 8.0,
        "unusual": "",
    }
