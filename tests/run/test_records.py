"""The files of a run: made by rank 0 alone, set aside or cut back before they are written, synced where they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd.account.timeline import Timeline
from ssd.compute.ranks import Ranks
from ssd.config import Config, Resolved
from ssd.config.resolved import read_resolved
from ssd.errors import MachineError
from ssd.run import records as records_module
from ssd.run.checkpoint import Checkpoint
from ssd.run.records import open_records
from ssd.run.start import Start, start_run
from ssd.vendor import load_vendor

KEYS = {"data_backend": "synthetic", "synthetic_samples": 4, "num_classes": 4, "pretrained": False, "seed": 7}


def start(folder: Path, saved: Checkpoint | None = None, ranks: Ranks | None = None, **keys: Any) -> Start:
    config = Config(**{**KEYS, "telemetry_interval": 0.0, "output": folder, **keys})
    resolved = Resolved(config, dict.fromkeys(Config.model_fields, "default"))
    folder.mkdir(exist_ok=True)
    return replace(
        start_run(resolved, load_vendor("cpu"), torch.device("cpu"), Ranks(), folder, saved, Timeline()),
        ranks=ranks or Ranks(),
    )


def test_a_new_run_s_files(tmp_path: Path) -> None:
    begun = start(tmp_path / "run")
    (begun.folder / "checkpoint.pt.part").touch()
    with open_records(begun) as records:
        records.metrics.write("start", seed=7)
        records.events.init_start()
        places = records.places()
    names = {path.name for path in begun.folder.iterdir()}
    assert {"config.json", "system.json", "metrics.jsonl", "result_0.txt"} <= names
    assert "checkpoint.pt.part" not in names
    assert places == {name: (begun.folder / name).stat().st_size for name in ("result_0.txt", "metrics.jsonl")}
    assert min(places.values()) > 0
    assert json.loads((begun.folder / "system.json").read_text())["number_of_nodes"] == "1"
    assert read_resolved(begun.folder / "config.json").config == begun.config


def test_what_a_run_left_that_was_killed_early_is_set_aside(tmp_path: Path) -> None:
    begun = start(tmp_path / "run")
    (begun.folder / "metrics.jsonl").write_text("old\n")
    with open_records(begun):
        pass
    assert (begun.folder / "metrics.jsonl").read_text() == ""
    assert (begun.folder / "metrics.cut-1.jsonl").read_text() == "old\n"


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    begun = start(tmp_path / "run", ranks=Ranks(rank=1, world_size=2))
    (begun.folder / "a.part").touch()
    with open_records(begun) as records:
        records.metrics.write("start")
        assert records.events.path is None
    assert [path.name for path in begun.folder.iterdir()] == ["a.part"]


def test_a_resumed_run_goes_on_in_its_files(tmp_path: Path, checkpoint: Callable[..., Checkpoint]) -> None:
    """They are cut back to the checkpoint's places; config.json is written anew where a key has changed."""
    first = start(tmp_path / "run")
    with open_records(first) as records:
        records.metrics.write("start", seed=7)
        records.events.run_start()
        places = records.places()
        records.metrics.write("train", step=9)
    lines = (first.folder / "metrics.jsonl").read_text()
    saved = checkpoint(seed=7, logs=places, evaluations=[(1, 0.125)])
    written = (first.folder / "config.json").stat().st_mtime_ns
    seen: list[dict] = []
    original = records_module.ProgressLine

    def line(*words: Any, **how: Any) -> Any:
        seen.append(how)
        return original(*words, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "ProgressLine", line)
        for keys in ({}, {"log_freq": 3}):
            with open_records(start(first.folder, saved, resume=True, **keys)) as records:
                records.metrics.write("resumed", step=1)
            kept = read_resolved(first.folder / "config.json").config
            assert (kept.resume, kept.log_freq) == (False, keys.get("log_freq", first.config.log_freq))
            assert ((first.folder / "config.json").stat().st_mtime_ns == written) == (not keys)
    assert [how["mean_ap"] for how in seen] == [0.125, 0.125]
    assert [how["target"] for how in seen] == [0.23, 0.23]
    said = (first.folder / "metrics.jsonl").read_text()
    assert said.startswith(lines.splitlines()[0])
    assert '"train"' not in said
    assert said.count('"resumed"') == 2, "each resume leaves its line"


def test_a_log_that_is_removed_ends_the_run(tmp_path: Path) -> None:
    with open_records(start(tmp_path / "run")) as records:
        (tmp_path / "run" / "result_0.txt").unlink()
        with pytest.raises(MachineError, match=r"result_0\.txt was removed during the run, which cannot be resumed"):
            records.places()


def test_telemetry_is_of_each_device_and_of_rank_0_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    original = records_module.recorded

    def recorded(read: Callable, devices: int, write: Callable, interval: float) -> Any:
        asked.append((devices, interval))
        return original(read, devices, write, 0)

    monkeypatch.setattr(records_module, "recorded", recorded)
    keys = {"nproc_per_node": 2, "telemetry_interval": 5.0}
    for rank in (0, 1):
        with open_records(start(tmp_path / "run", ranks=Ranks(rank=rank, world_size=2), **keys)):
            pass
    assert asked == [(2, 5.0), (2, 0)]
