"""The result log: one record a line in a file of its own, whole after any end, and silent on other ranks."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ssd.errors import ConfigError
from ssd.mlperf.events import EventWriter, RunFacts

FACTS = RunFacts(
    submitter="Org",
    system="box",
    division="open",
    seed=7,
    global_batch=1024,
    batch_norm_span=128,
    gradient_accumulation_steps=1,
    base_learning_rate=0.08,
    weight_decay=5e-4,
    momentum=0.9,
    warmup_steps=300,
    warmup_factor=0,
    decay_epochs=(40, 50),
    decay_factor=0.1,
    train_samples=117266,
    eval_samples=4952,
    target_map=0.23,
)


def records(path: Path) -> list[dict]:
    lines = path.read_text().splitlines()
    assert all(line.startswith(":::MLLOG {") and line.count(":::MLLOG") == 1 for line in lines)
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]


def begin(events: EventWriter, facts: RunFacts = FACTS) -> None:
    events.submission_info(facts)
    events.cache_clear(done=True)
    events.init_start()
    events.hyperparameters(facts)
    events.init_stop()
    events.run_start()


def test_a_run_is_logged_in_the_order_of_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    with EventWriter(path) as events:
        begin(events)
        events.block_start(1, 2)
        events.epoch_start(1)
        events.epoch_stop(1)
        events.block_stop(1)
        events.eval_start(1)
        events.eval_accuracy(1, 0.25)
        events.eval_stop(1)
        events.run_stop("success")
    keys = [record["key"] for record in records(path)]
    assert keys[:8] == [
        "submission_benchmark",
        "submission_org",
        "submission_division",
        "submission_status",
        "submission_platform",
        "cache_clear",
        "init_start",
        "seed",
    ]
    assert keys[keys.index("init_stop") :] == [
        "init_stop",
        "run_start",
        "block_start",
        "epoch_start",
        "epoch_stop",
        "block_stop",
        "eval_start",
        "eval_accuracy",
        "eval_stop",
        "run_stop",
    ]
    by_key = {record["key"]: record for record in records(path)}
    assert by_key["global_batch_size"]["value"] == 1024
    assert by_key["opt_learning_rate_decay_boundary_epochs"]["value"] == [40, 50]
    assert by_key["block_start"]["metadata"].items() >= {"first_epoch_num": 1, "epoch_count": 2}.items()
    assert by_key["eval_accuracy"]["value"] == 0.25
    assert by_key["eval_accuracy"]["metadata"]["epoch_num"] == 1
    assert by_key["run_stop"]["metadata"]["status"] == "success"
    assert [r["event_type"] for r in records(path)].count("INTERVAL_START") == 5


def test_a_record_names_the_line_that_logged_it_and_seeds_share_one(tmp_path: Path) -> None:
    seeds = []
    for run in range(2):
        path = tmp_path / f"result_{run}.txt"
        with EventWriter(path) as events:
            begin(events, replace(FACTS, seed=run))
        seeds += [record for record in records(path) if record["key"] == "seed"]
    assert [seed["value"] for seed in seeds] == [0, 1]
    assert Path(seeds[0]["metadata"]["file"]).name == "test_events.py"
    assert seeds[0]["metadata"]["lineno"] == seeds[1]["metadata"]["lineno"]


def test_a_record_from_the_package_names_its_file_without_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    import ssd.mlperf.events as module

    program = compile("def log(events):\n    events.event('x', 1)\n", str(module._BASE / "ssd/train.py"), "exec")
    scope: dict = {}
    exec(program, scope)
    with EventWriter(path) as events:
        scope["log"](events)
    assert records(path)[0]["metadata"] == {"file": "ssd/train.py", "lineno": 2}


def test_an_exception_ends_the_log_with_aborted(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    events = EventWriter(path)
    begin(events)
    with pytest.raises(RuntimeError), events:
        raise RuntimeError("the power failed")
    assert records(path)[-1]["key"] == "run_stop"
    assert records(path)[-1]["metadata"]["status"] == "aborted"


def test_a_log_that_is_closed_is_released(tmp_path: Path) -> None:
    events = EventWriter(tmp_path / "result_0.txt")
    file = events._file
    assert file is not None
    events.close()
    assert file.closed


def test_run_stop_is_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    with EventWriter(path) as events:
        begin(events)
        events.run_stop("success")
    assert [record["key"] for record in records(path)].count("run_stop") == 1


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with EventWriter(None) as events:
        begin(events)
        events.run_stop("success")
    assert list(tmp_path.iterdir()) == []


def test_a_result_log_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    path.write_text("somebody's result\n")
    with pytest.raises(ConfigError, match="exists"):
        EventWriter(path)
    assert path.read_text() == "somebody's result\n"


def test_a_resumed_run_appends_is_marked_and_repeats_no_set_up(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    first = EventWriter(path)
    begin(first)
    first.epoch_start(1)
    first.close()  # as after SIGKILL: no run_stop
    with path.open("a") as file:
        file.write(':::MLLOG {"namespace": "", "time_')  # killed in the middle of a line
    with EventWriter(path, append=True) as events:
        assert events.resumed
        begin(events)
        events.epoch_start(1)
        events.run_stop("success")
    keys = [record["key"] for record in records(path)]
    assert keys.count("run_start") == keys.count("seed") == keys.count("init_start") == 1
    assert keys[-3:] == ["ssd_resumed", "epoch_start", "run_stop"]


def test_each_tensor_of_the_rules_is_named_once_and_not_again_on_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    parameters = ["trunk.conv1.weight", "location_heads.0.weight", "class_heads.0.weight"]
    for resumed in (False, True):
        with EventWriter(path, append=resumed) as events:
            begin(events)
            events.weights_initialization(parameters)
            events.close()
        named = [one["metadata"]["tensor"] for one in records(path) if one["key"] == "weights_initialization"]
        assert named == ["ssd0_resnetmlperf0_conv0_weight", "ssd0_convpredictor0_conv0_weight"]


def test_where_decoded_images_lie_is_logged_of_a_run_that_keeps_them() -> None:
    kept = replace(FACTS, decoded_cache="ext4").records()
    assert kept == FACTS.records() | {"ssd_decoded_cache": "ext4"}
    assert "ssd_decoded_cache" not in FACTS.records()


def test_a_log_that_never_started_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    first = EventWriter(path)
    first.submission_info(FACTS)
    first.close()
    with EventWriter(path, append=True) as events:
        assert not events.resumed
        begin(events)
    assert [record["key"] for record in records(path)].count("submission_benchmark") == 1


def test_a_value_that_json_cannot_hold_is_an_error_and_not_a_line(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    with EventWriter(path) as events, pytest.raises(ValueError, match="result log"):
        events.event("value", object())
    assert path.read_text() == ""


def test_a_newline_in_a_value_stays_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    with EventWriter(path) as events:
        events.event("submission_org", "two\nlines")
    assert [record["value"] for record in records(path)] == ["two\nlines"]


def test_runs_in_one_process_stay_apart_and_leave_nothing_registered(tmp_path: Path, capsys) -> None:
    before = set(logging.root.manager.loggerDict)
    with EventWriter(tmp_path / "a.txt") as one, EventWriter(tmp_path / "b.txt") as two:
        one.event("x", 1)
        two.event("y", 2)
    assert [r["key"] for r in records(tmp_path / "a.txt")] == ["x"]
    assert [r["key"] for r in records(tmp_path / "b.txt")] == ["y"]
    assert set(logging.root.manager.loggerDict) == before
    assert capsys.readouterr() == ("", "")


def test_a_clock_replays_times(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    times = iter(range(1000, 2000))
    with EventWriter(path, clock=lambda: next(times)) as events:
        events.event("x")
        events.event("y", time_ms=5)
        events.event("z")
    assert [record["time_ms"] for record in records(path)] == [1000, 5, 1001]
