"""Folders of runs, as far as a plan reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nothing_measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No measurement of this machine, which its user may have made, is found."""
    monkeypatch.setenv("SSD_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make the folder of a run of 200 steps: 2 evaluations of 2 s each, and 9 s besides steps and evaluations."""

    def make(name: str, *, batch: int, rate: float, exit_code: int = 0, epoch: int = 4, processes: int = 1) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        summary = {"images_per_s": rate, "global_batch": batch, "steps": 200, "exit_code": exit_code}
        summary |= {"seconds": {"run": 200 * batch / rate + 9.0 + 4.0, "evaluation": 4.0}}
        summary |= {"evaluations": [[epoch - 1, 0.2], [epoch, 0.25]], "account": {"parts": {"imports": 3.0, "step": 9}}}
        (folder / "summary.json").write_text(json.dumps(summary))
        config = {"nproc_per_node": {"value": processes, "from": "default"}, "nodes": {"value": 1, "from": "default"}}
        (folder / "config.json").write_text(json.dumps(config))
        about = {"kind": "train", "time": 1, "step": 1, "epoch": 1, "loss": 1}
        lines = [{**about, "images_per_s": rate * one} for one in (0, 1.25, 1, 0.8)]
        told = [{"data_wait": 1.0 + 2 * rank, "step": 99.0 - 2 * rank, "forward": 0.1} for rank in range(processes)]
        lines += [{"kind": "epoch", "time": 2, "step": 200, "epoch": 1, "ranks": told}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        logged = {"namespace": "", "time_ms": 1, "event_type": "POINT_IN_TIME", "key": "train_samples", "value": 400}
        (folder / "result_0.txt").write_text(f":::MLLOG {json.dumps({**logged, 'metadata': {}})}\n")
        return folder

    return make
