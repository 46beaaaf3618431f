"""`bench` on a narrow model: every part is measured, a row is kept, and a second one is compared with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomllib

from ssd.cli import main
from ssd.measure.settings import Option
from ssd.verbs import bench

pytestmark = pytest.mark.slow

NARROW = ["bench", "--quick", "--config", "smoke", "--width", "0.0625", "--train_batch_size", "2"]
MEASURED = ("decode_core", "decode_all", "read", "step", "data_step", "evaluation")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and with one setting to try."""
    monkeypatch.setenv("SSD_VARIABLES", "cpu")
    monkeypatch.delenv("SSD_DATA_DIR", raising=False)
    monkeypatch.setattr(bench, "options", lambda *about: iter([Option("nhwc", True), Option("compile", True, "slow")]))


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


def test_without_images_pictures_are_made_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NARROW, "--cache_dir", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == "made"
    assert all(found["figures"][name] > 0 for name in MEASURED)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["measured"]
