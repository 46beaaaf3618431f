"""Measurements: what a run's folder says, the file that is kept, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ssd.config import resolve
from ssd.errors import DataError
from ssd.mlperf.system import describe_system
from ssd.plan.measured import Measured, Timed, kept_file, machine_of, read_measured, step_keys, write_measured

FOUND = Measured("measured here", 1, 1, (Timed(8, 200.0, 0.1), Timed(4, 110.0)), 400, 1.5, 6.0, (0.1, 1.9))
ABOUT = {"date": "2026-11-27"}


def test_a_runs_folder(run_folder) -> None:
    folder = run_folder("a", batch=8, rate=40.0, processes=2)
    found = read_measured(folder)
    assert (found.accelerators, found.images, found.epochs, found.set_up_s) == (2, 400, 4, 3.0)
    (timed,) = found.timed
    assert (timed.local_batch, timed.step_ms) == (4, pytest.approx(200.0))
    assert timed.spread == pytest.approx((1 / 0.8 - 1 / 1.25) / 2)
    assert found.start_s == pytest.approx(9.0)
    assert found.evaluation_s == (0.0, pytest.approx(4.0))
    assert found.rank_spread == pytest.approx(0.01), "21 and 23 s of 100 until they wait for each other"


def test_a_run_that_missed_its_target_tells_no_epochs(run_folder) -> None:
    found = read_measured(run_folder("a", batch=8, rate=40.0, exit_code=4))
    assert (found.epochs, found.rank_spread) == (None, None), "one process has no others to differ from"


def test_the_file_gives_back_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.json"
    write_measured(path, FOUND, ABOUT)
    found = read_measured(path)
    assert replace(found, origin="measured here") == FOUND
    assert found.origin == f"measured here (2026-11-27, {path})"


@pytest.mark.parametrize(
    "change",
    [
        {"timed": []},
        {"timed": [{"local_batch": 8, "step_ms": float("nan")}]},
        {"timed": [{"local_batch": 0, "step_ms": 5.0}]},
        {"timed": [{"local_batch": 8, "step_ms": 0.0}]},
        {"timed": [{"batch": 8}]},
        {"evaluation_s": [0.1]},
        {"evaluation_s": [-0.1, 1.0]},
        {"images": 4.5},
        {"start_s": "soon"},
        {"epochs": "4"},
        {"more": 1},
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "kept.json"
    write_measured(path, FOUND, ABOUT)
    content = json.loads(path.read_text())
    content["measured"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"not the folder of a finished run, nor a file of plan --measure"):
        read_measured(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "other"}', "[" * 100_000])
def test_what_is_no_measurement(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(DataError):
        read_measured(path)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError):
        read_measured(tmp_path)


def test_a_run_too_short_to_have_a_rate(run_folder) -> None:
    folder = run_folder("a", batch=8, rate=40.0)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "images_per_s": None}))
    with pytest.raises(DataError, match="two logging intervals"):
        read_measured(folder)


def test_where_a_measurement_is_kept() -> None:
    """The batch is what a measurement varies; another width, or another machine, is another measurement."""
    machine = {"host_processor_model_name": "A"}
    config = resolve(["--config", "demo"]).config
    kept = kept_file(config, machine)
    assert kept.parent == config.cache_dir / "measured"
    assert kept == kept_file(config.model_copy(update={"train_batch_size": 2, "epochs": 3}), machine)
    assert kept != kept_file(config.model_copy(update={"width": 0.5}), machine)
    assert kept != kept_file(config, {"host_processor_model_name": "B"})
    assert {"width", "precision", "data_backend", "num_workers"} <= step_keys(config).keys()


def test_what_a_measurement_says_of_its_machine() -> None:
    told = machine_of({"accelerator_model_name": "A100", "accelerators_per_node": "8", "hw_notes": "cold"})
    whole = describe_system({})
    assert told == {
        "host_processor_model_name": whole["host_processor_model_name"],
        "host_processor_vcpu_count": whole["host_processor_vcpu_count"],
        "accelerators_per_node": "8",
        "accelerator_model_name": "A100",
        "framework": whole["framework"],
    }


def test_what_a_file_holds_is_shown_in_part(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"kind": "x" * 20_000}))
    with pytest.raises(DataError, match="its kind is 'xxx") as refusal:
        read_measured(path)
    assert len(str(refusal.value)) < 500 + len(str(tmp_path))
