"""The records of a run are what docs/metrics.schema.json says, all of them and nothing else."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd.config import resolve
from ssd.run.progress import METRICS_SCHEMA
from ssd.run.telemetry import TELEMETRY
from ssd.train import train

Check = Callable[[dict, object], None]
FLAGS = ["--width", "0.125", "--synthetic_samples", "4", "--train_batch_size", "2", "--seed", "5"]


@pytest.fixture(scope="module")
def kinds(root: Path) -> dict[str, dict]:
    """Kind of record -> its schema."""
    return json.loads((root / "docs" / "metrics.schema.json").read_text())["$defs"]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Those of a run that stopped and went on."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--config", "smoke", *FLAGS, "--record_norms", "--output", str(folder)]
    train(resolve([*words, "--max_steps", "2"], {}))
    train(resolve([*words, "--max_steps", "8", "--resume"], {}))
    return [json.loads(line, parse_constant=pytest.fail) for line in (folder / "metrics.jsonl").open()]


@pytest.mark.slow
def test_every_record_of_a_run_is_as_its_kind_says(records: list[dict], kinds: dict, held_to: Check) -> None:
    for record in records:
        held_to(kinds[record["kind"]], record)
    never = {"telemetry"}  # a CPU has none
    assert {record["kind"] for record in records} == set(kinds) - never
    assert records[0]["schema"] == METRICS_SCHEMA


def test_every_kind_that_the_code_writes_is_in_the_schema(root: Path, kinds: dict) -> None:
    written = {"telemetry"}  # by a thread, through functools.partial
    for path in (root / "base" / "ssd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("metrics.write"):
                written.add(ast.literal_eval(node.args[0]))
    assert written == set(kinds)


def test_telemetry_and_the_version_are_those_of_the_code(kinds: dict, held_to: Check) -> None:
    held_to(kinds["telemetry"], {"kind": "telemetry", "time": 1.0, **{key: [None, 2.0] for key in TELEMETRY}})
    assert kinds["start"]["properties"]["schema"]["const"] == METRICS_SCHEMA


@pytest.mark.parametrize(
    "change",
    [{"kind": "trial"}, {"loss": None}, {"step": "1"}, {"step": True}, {"surprise": 1}, {"images_per_s": [1.0]}],
)
def test_what_is_no_such_record_is_refused(kinds: dict, held_to: Check, change: dict) -> None:
    record = {"kind": "train", "time": 1.0, "step": 1, "epoch": 1, "loss": 1.0, "learning_rate": 0.1, "images": 2}
    record |= {"images_per_s": None}
    held_to(kinds["train"], record)
    with pytest.raises(AssertionError):
        held_to(kinds["train"], {**record, **change})
