"""Which runs are of one result: their configs may differ in place and pace, and in nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssd.config import Config
from ssd.config.roles import VARYING_KEYS
from ssd.errors import DataError
from ssd.mlperf.keys import RESUMED
from ssd.mlperf.runs import RecordedRun, config_fingerprint, difference, outcome, read_run, why_not_a_result

CONFIG = Config().model_dump(mode="json")


def recorded(**values: Any) -> RecordedRun:
    config = CONFIG | values
    return RecordedRun(
        folder=Path("run"), log=None, config=config, origins=dict.fromkeys(config, "default"), summary={}, system={}
    )


def another(key: str) -> Any:
    """A value that the key does not have."""
    return "other" if CONFIG[key] != "other" else "another"


@pytest.mark.parametrize("key", sorted(VARYING_KEYS))
def test_place_and_pace_make_no_difference(key: str) -> None:
    assert config_fingerprint(CONFIG | {key: another(key)}) == config_fingerprint(CONFIG)
    assert difference(recorded(**{key: another(key)}), recorded()) is None


@pytest.mark.parametrize("key", sorted(set(CONFIG) - VARYING_KEYS))
def test_every_other_key_does_and_is_named(key: str) -> None:
    assert config_fingerprint(CONFIG | {key: another(key)}) != config_fingerprint(CONFIG)
    said = difference(recorded(**{key: another(key)}), recorded())
    assert said is not None
    assert f": {key} differ" in said


@pytest.mark.parametrize(
    "key", ["num_workers", "prefetch", "log_freq", "telemetry_interval", "numa_binding", "collective_timeout"]
)
def test_the_pace_of_the_host_is_free(key: str) -> None:
    assert key in VARYING_KEYS


# Reading a folder, and what became of a run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder, as far as it is read."""
    files = {
        "config.json": {key: {"value": value, "from": "default"} for key, value in CONFIG.items()},
        "summary.json": {"exit_code": 0, "commit": "c0ffee1"},
        "system.json": {"accelerators_per_node": "8"},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "result_0.txt").write_text("")
    return tmp_path


def test_a_folder_is_read(folder: Path) -> None:
    run = read_run(folder)
    assert (run.folder, run.config, run.commit) == (folder, CONFIG, "c0ffee1")
    assert set(run.origins.values()) == {"default"}
    assert run.origins.keys() == CONFIG.keys()
    assert run.system == {"accelerators_per_node": "8"}
    assert run.fingerprint == config_fingerprint(CONFIG)
    assert recorded().commit == ""


@pytest.mark.parametrize("entry", [5, {"from": "default"}, {"value": 5}, {"value": 5, "from": 7}])
def test_a_key_that_is_not_a_value_and_its_origin_is_named(folder: Path, entry: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "momentum": entry}))
    with pytest.raises(DataError, match=r"config\.json: momentum is not a value and where it came from"):
        read_run(folder)


def test_a_config_that_lacks_a_key_is_of_another_version(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    del content["pretrained"]
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no pretrained: it was changed, or is of another version"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("result_0.txt", None, "is missing: this is no folder of a run"),
        ("summary.json", None, "a finished run leaves this file, and it cannot be read: No such file"),
        ("summary.json", "{", "a finished run leaves this file, and it cannot be read: Expecting"),
        ("system.json", "[1]", r"system\.json: not a JSON object"),
    ],
)
def test_a_file_that_is_missing_or_no_record_is_named(folder: Path, name: str, text: str | None, words: str) -> None:
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_run(folder)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "exit code 0: "),
        (137, "exit code 137: killed by signal 9"),
        (129, "exit code 129: killed by signal 1"),
        (77, "exit code 77: not one of ours"),
        (None, "exit code None: not one of ours"),
        (True, "its exit code is True, which is no number"),
        ("4", "its exit code is '4', which is no number"),
    ],
)
def test_exit_codes_in_words(code: Any, said: str) -> None:
    assert outcome(code).startswith(said)


def ended(status: str | None = "success", values: dict | None = None, **summary: Any) -> RecordedRun:
    log = SimpleNamespace(status=status, values=values or {})
    return replace(recorded(), log=log, summary={"exit_code": 0, **summary})


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (ended(), None),
        (ended(exit_code=4, status="aborted"), None),
        (ended(exit_code=6, status="aborted"), None),
        (ended(exit_code=5), "exit code 5: "),
        (ended(exit_code=None), "exit code None: "),
        (ended(resumed=True), "it was resumed: a result is one run without a break"),
        (ended(values={RESUMED: True}), "it was resumed: a result is one run without a break"),
        (ended(status=None), "its log has no run_stop"),
        (ended(status="fine"), "its log has no run_stop"),
    ],
)
def test_why_a_run_is_no_result(run: RecordedRun, why: str | None) -> None:
    said = why_not_a_result(run)
    assert (said is None) == (why is None)
    assert (said or "").startswith(why or "")


def test_commits_and_machines_make_a_difference() -> None:
    def one(commit: str = "", **system: str) -> RecordedRun:
        return replace(recorded(), summary={"commit": commit}, system=system)

    assert difference(one("a"), one("b")) == "were made by different commits of the code: a and b"
    assert difference(one("a"), one()) is difference(one(), one("b")) is difference(one("a"), one("a")) is None
    said = difference(one(accelerators_per_node="8"), one(accelerators_per_node="4"))
    assert said == "ran on different machines: accelerators_per_node is '8' and '4'"
