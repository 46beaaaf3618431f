"""A run's folder as a finished run leaves it, made of records whose numbers the tests know."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NASTY = "<script>alert('x')</script>"


def write_run(folder: Path, **changed: Any) -> Path:
    """A run of 6 epochs of 100 steps that reached its target, with names of classes, hosts and files that attack."""
    folder.mkdir(parents=True)
    begun = 1_700_000_000.0
    records: list[dict[str, Any]] = [{"kind": "start", "time": begun - 9, "seed": 7}]
    records.append({"kind": "set_up", "time": begun, "parts": {"imports": 6.0, "model": 2.0, "set_up": 1.0}})
    now, step = begun, 0
    for epoch in range(1, 7):
        for _ in range(10):
            step += 10
            now += 6.0 if epoch > 1 else 6.4
            rate = 133.3 + math.sin(step)
            record = {"step": step, "epoch": epoch, "learning_rate": 0.01, "images_per_s": rate, "images": step * 8}
            records.append({"kind": "train", "time": now, "loss": 9.0 / (1 + step / 100), **record})
            usage = {
                "power_w": [250.0 + step % 7],
                "clock_mhz": [1400.0],
                "temperature_c": [61.5],
                "use_percent": [99.0],
            }
            records.append({"kind": "telemetry", "time": now, **usage, "memory_mib": [11_000.0]})
        told = {"data_wait": 2.0, "step": 58.0 if epoch > 1 else 62.0, "forward": 0.2, "memory_mib": 900.0}
        sampled = {
            "steps": [step - 50],
            "seconds": {"forward": 0.2, "backward": 0.3, "optimizer": 0.1},
            "clock": "host",
        }
        records.append(
            {"kind": "epoch", "time": now, "epoch": epoch, "step": step, "ranks": [told], "sampled": sampled}
        )
        if epoch % 2 == 0:
            now += 5.0
            parts = {"eval_images": 0.5, "eval_forward": 3.0, "eval_detect": 1.0, "eval_metric": 0.5}
            score = {"AP": 0.04 * epoch + 0.0123456, "AP50": 0.08 * epoch}
            records.append({"kind": "evaluation", "time": now, "epoch": epoch, "step": step, **score, "seconds": parts})
    now += 1.0
    records.append({"kind": "checkpoint", "time": now, "step": step, "seconds": 1.0, "bytes": 160_000_000})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    parts = {"imports": 6.0, "model": 2.0, "set_up": 1.0, "start": 0.2, "first_epoch_excess": 4.0, "data_wait": 12.0}
    parts |= {"step": 348.0, "eval_images": 1.5, "eval_forward": 9.0, "eval_detect": 3.0, "eval_metric": 1.5}
    parts |= {"checkpoint": 1.0, "between": 0.3, "end": 0.5}
    sampled = {"steps": 6, "clock": "host", "seconds_per_step": {"forward": 0.2, "backward": 0.3}}
    summary = {
        "name": "cpu",
        "config": "demo",
        "exit_code": 0,
        "target": 0.23,
        "seed": 7,
        "steps": step,
        "global_batch": 8,
        "commit": "0123abc",
        "images_per_s": 133.25,
        "images_per_s_per_device": 133.25,
        "mfu": None,
        "peak": "",
        "seconds": {"run": 380.5},
        "time_to_target_s": 380.5,
        "max_memory_allocated_mib": None,
        "host_cores": 1.875,
        "launches_per_step": 650.0,
        "evaluations": [[epoch, 0.04 * epoch + 0.0123456] for epoch in (2, 4, 6)],
        "picture": "detections.jpg",
        "account": {
            "wall_s": sum(parts.values()),
            "parts": parts,
            "first_epoch": {"step": 4.0},
            "sampled": sampled | {"share": {"forward": 0.4, "backward": 0.6}},
            "ranks": {"seconds": [20.0, 31.0], "slowest": 1, "spread_s": 11.0, "waited_s": 11.0},
        },
        **changed,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    config = {"epochs": {"value": 6, "from": "demo"}, "data_dir": {"value": NASTY, "from": "command line"}}
    config["momentum"] = {"value": 0.9, "from": "default"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "system.json").write_text(json.dumps({"host_processor_model_name": NASTY, "accelerator_model_name": ""}))
    categories = [
        {"name": NASTY, "id": 1, "AP": 0.31, "AP50": 0.5, "boxes": 40, "detections": 900},
        {"name": "square", "id": 2, "AP": None, "AP50": None, "boxes": 0, "detections": 12},
    ]
    counts = dict.fromkeys(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), 3)
    errors = {
        "counts": counts,
        "delta_ap": dict.fromkeys(counts, 0.0125),
        "ap_base": 0.5,
        "pos_thr": 0.5,
        "bg_thr": 0.1,
    }
    interval = {"AP": 0.2523456, "low": 0.2345, "high": 0.2711, "samples": 300, "confidence": 0.95}
    details = {"categories": categories, "errors": errors, "interval": interval}
    (folder / "evaluation.json").write_text(json.dumps(details))
    Image.new("RGB", (60, 30), (10, 200, 30)).save(folder / "detections.jpg")
    return folder


@pytest.fixture
def write() -> Callable[..., Path]:
    """Write a run's folder: (folder, fields of its summary that differ)."""
    return write_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """The run's folder."""
    return write_run(tmp_path / "run")
