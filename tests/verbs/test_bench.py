"""`bench` on a narrow model: every part is measured, a row is kept, and a second one is compared with it.

Quick tests give it the measured numbers, and hold what it makes of them.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomllib
import torch
from torch import nn

from ssd.cli import main
from ssd.compute.device import Abilities
from ssd.config import Config, Resolved
from ssd.errors import DataError
from ssd.measure.disk import DiskRead
from ssd.measure.limits import Figures
from ssd.measure.settings import Option, Trial
from ssd.verbs import bench

NARROW = ["bench", "--quick", "--config", "smoke", "--width", "0.0625", "--train_batch_size", "2"]
MEASURED = ("decode_core", "decode_all", "read", "step", "data_step", "evaluation")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and with one setting to try."""
    monkeypatch.setenv("SSD_VARIABLES", "cpu")
    monkeypatch.delenv("SSD_DATA_DIR", raising=False)
    monkeypatch.setattr(bench, "options", lambda *about: iter([Option("nhwc", True), Option("compile", True, "slow")]))


@pytest.mark.slow
def test_a_machine_is_measured_kept_and_compared_with_its_reference(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [*NARROW, "--data_dir", str(coco), "--cache_dir", str(tmp_path / "cache")]
    before = sorted(coco.rglob("*"))
    assert main([*keys, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert all(found["figures"][name] > 0 for name in MEASURED)
    assert (found["figures"]["copy"], found["figures"]["all_reduce"], found["reference"]) == (None, None, None)
    assert (found["images"], found["quick"], found["keys"]["width"]) == ("of data_dir", True, 0.0625)
    assert min(found["images_per_s_of_host"].values()) > 0
    assert [one["key"] for one in found["trials"]] == ["nhwc", "compile"]
    assert found["set"]["num_workers"] >= 1
    kept = tmp_path / "cache" / "measured" / "bench-quick.jsonl"
    (row,) = map(json.loads, kept.read_text().splitlines())
    assert row["figures"] == found["figures"]
    assert sorted(coco.rglob("*")) == before, "nothing is written into data_dir"

    faster = {**row, "figures": {**row["figures"], "evaluation": 1e9, "read": 1e-9}}
    reference = tmp_path / "reference.jsonl"
    reference.write_text(json.dumps(faster) + "\n")
    assert main([*keys, "--reference", str(reference)]) == 0
    said = capsys.readouterr().out
    assert "evaluation (0%)" in said.partition("Below 95% of the row of ")[2].partition("\n")[0]
    assert "tried compile = true: slow" in said
    (line,) = [line for line in said.splitlines() if line.startswith("reading files")]
    assert "behind" not in line
    config = tomllib.loads(said[said.index("# config/mine.toml") :])
    assert config["extends"] == "smoke"
    assert config["num_workers"] >= 1
    assert len(kept.read_text().splitlines()) == 2

    reference.write_text(json.dumps({**row, "machine": {"host_processor_model_name": "another"}}) + "\n")
    measured = bench._measure
    monkeypatch.setattr(bench, "_measure", lambda *about: pytest.fail("it was measured first") and measured)
    assert main([*keys, "--reference", str(reference)]) == 3
    assert "none of its 1 rows is of this kind of machine" in capsys.readouterr().err


@pytest.mark.slow
def test_without_images_pictures_are_made_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NARROW, "--cache_dir", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == "made"
    assert all(found["figures"][name] > 0 for name in MEASURED)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["measured"]


FIGURES = Figures(
    cores=8,
    devices=2,
    shares_cores=True,
    batch=12,
    decode_core=5.0,
    decode_all=40.0,
    read=3.0,
    copy=None,
    step=6.0,
    data_step=4.0,
    evaluation=3.0,
    all_reduce=72.0,
    all_reduce_s=0.5,
)
DISK = DiskRead(3, 600.0, 200.0, None)


def test_what_is_timed_becomes_rates(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device takes 12 images a step: 2 s without the loader, 3 s with it, and 1 s where nhwc is set."""
    config = Config(data_dir=coco, cache_dir=tmp_path, train_batch_size=4, gradient_accumulation_steps=3, num_workers=3)
    config = config.model_copy(update={"nproc_per_node": 2, "data_backend": "synthetic"})
    opened: list[Config] = []
    read: list[tuple[list[Path], int]] = []

    def open_run(resolved: Resolved, folder: Path) -> SimpleNamespace:
        opened.append(resolved.config)
        source = SimpleNamespace(rows=range(12))
        return SimpleNamespace(
            config=resolved.config, source=source, model=nn.Linear(2, 3), abilities=Abilities(torch.device("cpu"))
        )

    def step_seconds(run: SimpleNamespace, seconds: float) -> list[float]:
        middle = 1.0 if run.config.nhwc else 3.0 if run.config.data_backend == "threads" else 2.0
        return [0.25, middle, 100.0]

    def read_files(paths: list[Path], threads: int, seconds: float) -> DiskRead:
        read.append((paths, threads))
        return DISK

    def decoded(workers: int, seconds: float, clock: object = time.perf_counter) -> tuple[float, int]:
        return (5.0 if (workers, clock) == (1, time.process_time) else 40.0 if workers == 8 else 0.0), 1

    made = {
        "open_run": open_run,
        "step_seconds": step_seconds,
        "read_files": read_files,
        "jpeg_loader": lambda index, folder, workers, batch: workers,
        "decoded_per_second": decoded,
        "evaluation_seconds": lambda *about: [(1.0, 2.0), (1.0, 3.0), (5.0, 5.0)],
        "copied_per_second": lambda *about: None,
        "all_reduced": lambda argv, processes: 0.25 * processes,
        "make_folder": lambda *about: pytest.fail("data_dir has pictures"),
    }
    for name, one in made.items():
        monkeypatch.setattr(bench, name, one)
    monkeypatch.setattr(bench.os, "sched_getaffinity", lambda process: range(8))
    figures, disk, trials, chosen = bench._measure(Resolved(config, {}), [], tmp_path, bench.QUICK, True)
    assert (figures, disk) == (FIGURES, DISK)
    assert chosen == {"nhwc": True}
    assert [(one.key, one.images_per_s) for one in trials] == [("nhwc", 12.0), ("compile", None)]
    assert [one.data_backend for one in opened] == ["synthetic", "threads", "synthetic"]
    assert {(one.pretrained, one.nproc_per_node, one.output) for one in opened} == {(False, 1, tmp_path)}
    ((paths, threads),) = read
    assert threads == 3
    assert len(paths) > 1
    assert all(path.is_file() for path in paths)

    config = config.model_copy(update={"nproc_per_node": 1})
    figures, *_ = bench._measure(Resolved(config, {}), [], tmp_path, bench.QUICK, True)
    assert figures == replace(FIGURES, devices=1, all_reduce=None, all_reduce_s=None)


def test_a_row_is_compared_with_the_last_of_its_own_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bench.Times, bool]] = []
    figures = FIGURES

    def measure(resolved: Resolved, argv: list[str], folder: Path, times: bench.Times, quick: bool) -> tuple[Any, ...]:
        asked.append((times, quick))
        assert folder.parent == tmp_path / "new"
        return figures, DISK, [Trial("nhwc", True, 12.0, True)], {"nhwc": True}

    def taken(quick: bool, reference: Path | None = None) -> dict[str, Any]:
        resolved = Resolved(Config(name="cpu", cache_dir=tmp_path / "new"), {})
        assert bench.bench_command(resolved, [], reference=reference, quick=quick, json_wanted=True) == 0
        shown: dict[str, Any] = json.loads(capsys.readouterr().out)
        return shown

    monkeypatch.setattr(bench, "_measure", measure)
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (1.26, 0.0, 0.0))
    assert (taken(quick=False)["reference"], taken(quick=True)["reference"]) == (None, None)
    assert asked == [(bench.Times(), False), (bench.QUICK, True)]
    kept = tmp_path / "new" / "measured" / "bench.jsonl"
    row = json.loads(kept.read_text())
    assert (row["quick"], row["images"], row["load"]) == (False, "made", 1.3)
    figures = replace(FIGURES, step=3.0)
    again = taken(quick=False)
    assert again["reference"]["figures"] == row["figures"]
    assert taken(quick=False, reference=tmp_path / "new" / "measured" / "bench-quick.jsonl")["quick"] is False
    assert [len(path.read_text().splitlines()) for path in (kept, kept.with_name("bench-quick.jsonl"))] == [3, 1]
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**row, "images": "of data_dir"}) + "\n")
    with pytest.raises(DataError, match="none of its 1 rows is of this kind of machine"):
        taken(quick=False, reference=other)
