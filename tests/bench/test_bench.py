"""Every benchmark runs in its tiny form, and the row it writes says what was measured and on what."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ssd.config import resolve
from ssd.errors import EXIT_MAX_STEPS
from ssd.measure import short_run
from ssd.train import train
from ssd.verbs import measure as measuring

pytestmark = pytest.mark.slow

Bench = Callable[..., tuple[str, list[dict]]]

VENDOR = """
from ssd.ops.loss import loss
import ssd.vendor

class Vendor(ssd.vendor.Vendor):
    def overrides(self):
        load = lambda means: loss
        return [
            ssd.vendor.Override("loss", "same", "zenith/loss.py", load, lambda: ["hardware"]),
            ssd.vendor.Override("augment", "none", "zenith/augment.py", load, lambda: ["emulator"]),
        ]
"""


def check_row(row: dict, benchmark: str, root: Path) -> None:
    """What every row says, and what none may."""
    assert row["benchmark"] == benchmark
    assert row["quick"] is True
    assert row["framework"].startswith("PyTorch ")
    assert {"date", "commit", "host_processor_model_name", "accelerator_model_name"} <= set(row)
    assert str(root) not in json.dumps(row)
    assert "NaN" not in json.dumps(row)


def test_the_metrics_agree(bench: Bench, root: Path) -> None:
    _, [row] = bench("metric")
    check_row(row, "metric", root)
    assert (row["images"], row["detections"]) == (20, 4000)
    assert row["largest_difference"] < 1e-15  # older releases of pycocotools or numpy add up in another order
    assert row["times_faster"] == pytest.approx(row["pycocotools_s"] / row["hotcoco_s"], rel=0.02)


def test_the_metrics_have_something_to_disagree_on(loaded: Callable[[str], ModuleType]) -> None:
    metric = loaded("metric")
    truth, rows = metric.drawn(20, seed=0)
    values = metric.bbox_statistics(truth, rows, range(1, 21))
    assert 0.01 < values[0] < 0.9


def test_the_loader_beside_its_peer(bench: Bench, root: Path, tiny_coco: Path) -> None:
    _, [row] = bench("loader", "--data_dir", str(tiny_coco), "--workers", "1")
    check_row(row, "loader", root)
    for kind in ("pixels", "input"):
        rates = row[f"ours_{kind}_images_per_s"], row[f"peer_{kind}_images_per_s"]
        assert row[f"times_faster_{kind}"] == pytest.approx(rates[0] / rates[1], rel=0.02)


def test_pythons_time_an_image(bench: Bench, root: Path) -> None:
    _, [row] = bench("loader_python", "--batch", "16", "--workers", "2")
    check_row(row, "loader_python", root)
    assert (row["images"], row["batch"], row["rounds"]) == (32, 16, 1)
    assert row["ours_us_an_image"] > 0
    [item] = row["items"]
    assert item["goal"] == "at most 40 us"


def test_how_long_training_waits_for_files(bench: Bench, root: Path) -> None:
    _, [row] = bench("data_wait", "--workers", "1")
    check_row(row, "data_wait", root)
    assert (row["images"], row["batch"], row["steps"], row["prefetch"]) == (200, 2, 3, 2)
    assert row["step_s"] == pytest.approx(1.25 * 2 / row["decoding_images_per_s"], rel=0.02)
    assert 0 < row["wait_ms"]["median"] <= row["wait_ms"]["largest"]
    assert row["first_batch_s"] > 0
    assert row["loader_mb"] >= 0, "batches of two images may find their memory free already"
    assert [item["goal"] for item in row["items"]][:2] == ["at most 1 s", "at most 1 %"]


def test_processes_beside_threads(
    loaded: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of two cores are not started. What one of them does is done here, once."""
    processes, asked = loaded("processes"), []

    def together(words: Sequence[str], count: int, *_: Any, grouped: bool = True) -> list[str]:
        asked.append((words, count, grouped))
        return {(1, False): ["3.0"], (2, True): ["2.0", "2.4"], (2, False): ["2.2", "1.0"]}[count, grouped]

    monkeypatch.setattr(processes, "run_together", together)
    monkeypatch.setattr(processes, "all_reduced", lambda argv, count: 0.4)
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda pid: {0, 1})
    rows = tmp_path / "rows.jsonl"
    assert processes.main(["--batch", "7", "--rounds", "2", "--output", str(rows)]) == 0
    row = json.loads(rows.read_text())
    assert (row["batch"], row["one_process_step_s"], row["processes_step_s"]) == (6, 3.0, 2.4)
    assert (row["processes_nothing_averaged_step_s"], row["averaging_s"], row["averaging_hidden"]) == (2.2, 0.4, 0.5)
    assert row["items"][0]["ratio"]["value"] == 1.25
    assert [count for _, count, _ in asked] == [1, 2, 2] * 2
    steps = {processes.PROCESSES: 2.0, processes.APART: 2.0}
    assert [processes.hidden(0.1, steps, spread) for spread in (None, 0.05, 0.049)] == [None, None, 1.0]
    assert processes.hidden(0.1, {**steps, processes.APART: 1.5}, 0.0) == 0.0
    batches = [words[words.index("--train_batch_size") + 1] for words, _, _ in asked]
    assert batches == ["6", "3", "3"] * 2


def test_one_process_takes_the_steps_of_a_run(
    loaded: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    processes = loaded("processes")
    assert processes.one(1, processes.keys(1, 1, 0.0625)) == 0
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0


def test_the_wheels_of_a_machine_with_torch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch and torchvision bring themselves is left out, and what another Python needs is there."""
    monkeypatch.syspath_prepend(str(root / "bench"))
    found = {
        python: [one.partition("==")[0] for one in importlib.import_module("gpu_wheels").wheels(python)]
        for python in ("3.10", "3.12")
    }
    assert {"msgspec", "pydantic-core", "tyro", "hotcoco", "nvidia-ml-py"} <= set(found["3.12"])
    assert not {"torch", "torchvision", "triton", "numpy", "pillow"} & set(found["3.12"])
    assert set(found["3.10"]) - set(found["3.12"]) >= {"tomli"}


def test_a_training_rate_and_the_parts_of_a_step(bench: Bench, root: Path) -> None:
    _, [row] = bench("train", "--name", "cpu", "--config", "smoke", "--width", "0.125", "--train_batch_size", "2")
    check_row(row, "train", root)
    assert (row["vendor"], row["config"], row["global_batch"], row["steps"]) == ("cpu", "smoke", 2, 5)
    assert row["data_backend"] == "synthetic"
    changes = {"train_batch_size": "2", "width": "0.125"}
    assert row["changed"] == changes | {"synthetic_samples": "117266", "synthetic_batches": "4"}
    assert row["images_per_s"] > 0
    assert row["mfu"] is None
    parts = ["copy", "augment", "encode", "forward", "loss", "loss, backward", "backward", "optimizer"]
    assert list(row["share_of_step"]) == parts
    assert sum(row["share_of_step"].values()) == pytest.approx(1, abs=0.1)


def test_a_measurement_and_the_run_that_it_predicts(bench: Bench, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is started as users start one. What is timed before it is trained here, as it saves six imports of torch;
    the test above starts such a run."""

    def timed_here(keys: Sequence[str], steps: int, folder: Path) -> dict[str, Any]:
        flags = [*keys, *short_run.ENDLESS, "--max_steps", str(steps), "--log_freq", "1", "--output", str(folder)]
        assert train(resolve(flags, {})) == EXIT_MAX_STEPS
        return json.loads((folder / "summary.json").read_text())

    monkeypatch.setattr(short_run, "timed_run", timed_here)
    monkeypatch.setattr(measuring, "timed_run", timed_here)
    _, [row] = bench("plan", "--width", "0.125", "--train_batch_size", "2", "--epochs", "1", "--eval_epochs", "1")
    check_row(row, "plan", root)
    (run,) = row["each"]
    assert (run["exit_code"], run["epochs"], row["epochs_spans"]) == (4, 1, [[None, None]])
    assert run["predicted_s"] > 8 * run["predicted_step_ms"] / 1000, "8 steps of 2 images, and an evaluation"
    assert run["seconds"] > 0
    assert row["near"] == (abs(run["predicted_s"] / run["seconds"] - 1) <= 0.15)


def test_overrides_are_timed_where_their_hardware_is(
    bench: Bench, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zenith").mkdir()
    (tmp_path / "zenith" / "vendor.py").write_text(VENDOR)
    monkeypatch.setenv("SSD_VENDOR_PATH", str(tmp_path))
    said, [row] = bench("ops", "--name", "zenith")
    check_row(row, "ops", root)
    assert (row["op"], row["override"], row["batch"]) == ("loss", "same", 1)
    assert "augment none: not timed: this machine lacks the hardware of zenith (cpu); it has: emulator" in said


def test_the_original_loop_finds_what_ours_finds(bench: Bench, root: Path) -> None:
    _, [row] = bench("detect")
    check_row(row, "detect", root)
    assert row["same"]
    assert row["detections"] == 200


def test_a_file_of_cocos_size_in_small(bench: Bench, root: Path) -> None:
    _, [row] = bench("annotations")
    check_row(row, "annotations", root)
    assert (row["images"], row["boxes"]) == (500, 4000)
    assert [item["goal"] for item in row["items"]] == ["6 x", "at most 1000 MB", "at most 0.1 s", "at most 50 MB"]


def test_rows_kept_here_can_be_read_and_name_no_place(root: Path) -> None:
    files = sorted((root / "bench" / "results").glob("*.jsonl"))
    assert files
    for path in files:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert row["benchmark"] == path.stem
            assert row["quick"] is False
            assert "/home" not in line
            assert "/tmp" not in line
