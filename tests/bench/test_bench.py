"""Every benchmark runs in its tiny form, and the row it writes says what was measured and on what."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

Bench = Callable[..., tuple[subprocess.CompletedProcess, list[dict]]]

VENDOR = """
from ssd.ops.loss import loss
import ssd.vendor

class Vendor(ssd.vendor.Vendor):
    def overrides(self):
        load = lambda means: loss
        return [
            ssd.vendor.Override("loss", "same", "acme/loss.py", load, lambda: ["hardware"]),
            ssd.vendor.Override("augment", "none", "acme/augment.py", load, lambda: ["emulator"]),
        ]
"""


@pytest.fixture
def bench(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Run bench/NAME.py --quick with more flags, in a folder of its own; the process, and the rows it wrote."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SSD_CACHE_DIR", str(tmp_path / "cache"))

    def run(name: str, *flags: str) -> tuple[subprocess.CompletedProcess, list[dict]]:
        rows = tmp_path / "rows.jsonl"
        command = [sys.executable, str(root / "bench" / f"{name}.py"), "--quick", "--output", str(rows), *flags]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done, [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []

    return run


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


def test_the_metrics_have_something_to_disagree_on(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("bench_metric", root / "bench" / "metric.py")
    sys.path.insert(0, str(root / "bench"))
    try:
        spec.loader.exec_module(metric := importlib.util.module_from_spec(spec))
    finally:
        sys.path.remove(str(root / "bench"))
    truth, rows = metric.drawn(20, seed=0)
    values = metric.bbox_statistics(truth, rows, range(1, 21))
    assert 0.01 < values[0] < 0.9


def test_the_loader_beside_its_peer(bench: Bench, root: Path, tiny_coco: Path) -> None:
    _, [row] = bench("loader", "--data_dir", str(tiny_coco), "--workers", "1")
    check_row(row, "loader", root)
    for kind in ("pixels", "input"):
        rates = row[f"ours_{kind}_images_per_s"], row[f"peer_{kind}_images_per_s"]
        assert row[f"times_faster_{kind}"] == pytest.approx(rates[0] / rates[1], rel=0.02)


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


def test_a_measurement_and_the_run_that_it_predicts(bench: Bench, root: Path) -> None:
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
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "vendor.py").write_text(VENDOR)
    monkeypatch.setenv("SSD_VENDOR_PATH", str(tmp_path))
    done, [row] = bench("ops", "--name", "acme")
    check_row(row, "ops", root)
    assert (row["op"], row["override"], row["batch"]) == ("loss", "same", 1)
    assert "augment none: not timed: this machine lacks the hardware of acme (cpu); it has: emulator" in done.stdout


def test_the_table_of_all_goals(root: Path, tmp_path: Path, tiny_coco: Path) -> None:
    """Two benchmarks of it, without and with images: rows with a status, and a last line that counts them."""
    command = [sys.executable, str(root / "bench" / "table.py"), "--quick", "--only", "images", "detect"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    for data in ([], ["--data_dir", str(tiny_coco)]):
        rows = tmp_path / f"rows{len(data)}.jsonl"
        done = subprocess.run(
            [*command, *data, "--output", str(rows)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env=environ,
        )
        assert done.returncode == 0, done.stderr
        items = [item for line in rows.read_text().splitlines() for item in json.loads(line)["items"]]
        assert len(items) == 5
        counts = [sum(item["status"] == status for item in items) for status in ("met", "missed", "n/a")]
        met, missed, absent = counts
        assert done.stdout.splitlines()[-1] == f"goals: {met} met, {missed} missed, {absent} n/a"
        assert absent >= (1 if data else 3)
        for item in items:
            assert bool(item["reason"]) == (item["status"] != "met")
            assert bool(item["ours"]) == (item["status"] != "n/a")


def test_every_benchmark_of_the_table_is_explained(root: Path) -> None:
    names = re.search(r"^BENCHMARKS = \((.*)\)$", (root / "bench" / "table.py").read_text(), re.MULTILINE)
    page = (root / "docs" / "performance.md").read_text()
    assert names
    found = re.findall(r"\w+", names[1])
    assert len(found) >= 7
    assert [name for name in found if f"`bench/{name}.py`" not in page] == []


def test_a_benchmark_that_fails_is_said(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "bench" / "table.py"), "--quick", "--only", "images", "--output"]
    command += [str(tmp_path / "rows.jsonl"), "--data_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "not run: images: exit code 1" in done.stdout
    assert "instances_train2017.json: cannot be read" in done.stdout
    assert done.stdout.splitlines()[-1] == "goals: 0 met, 0 missed, 0 n/a"


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


def test_a_gpu_day_tried_on_the_cpu(root: Path, tmp_path: Path) -> None:
    """The first part of the script, so that the first day with a card finds it working; what needs a card says so."""
    command = [sys.executable, str(root / "bench" / "gpu_day.py"), "--device", "cpu", "--parts", "1"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "SSD_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "day")], capture_output=True, text=True, timeout=500, env=environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "day" / "gpu-day.jsonl").read_text().splitlines()]
    assert all(row["emulated"] for row in rows)
    ended = {row["name"]: row["status"] for row in rows}
    assert ended.pop("compute-sanitizer memcheck") == "not run"
    assert ended.pop("compute-sanitizer racecheck") == "not run"
    assert set(ended.values()) == {"ok"}
    assert "nothing here was measured on a card" in (tmp_path / "day" / "gpu-day.md").read_text()


def test_a_trial_that_fails_is_listed_with_what_it_said(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "bench" / "gpu_day.py"), "--parts", "3", "--name", "nvidia"]
    environ = {**os.environ, "SSD_VENDOR_PATH": "/no/such"}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "day")], capture_output=True, text=True, timeout=300, env=environ
    )
    assert done.returncode == 1
    assert "SSD_VENDOR_PATH names" in done.stdout + done.stderr
