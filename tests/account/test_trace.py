"""trace.json: what a viewer needs, the account's seconds, and slices that nest."""

from __future__ import annotations

import json

import pytest

from ssd.account.trace import _nested, make_trace


@pytest.fixture
def timed(records):
    """Records of a run with the moments at which they were written, rounded to the millisecond as the file has them."""
    now, found = 1000.0, records()
    found[1]["parts"] = {"imports": 4.0, "set_up": 1.5}
    for record in found:
        if record["kind"] == "epoch":
            now += record["ranks"][0]["data_wait"] + record["ranks"][0]["step"] + 0.0004
        elif record["kind"] == "evaluation":
            record["ranks"] = [record["seconds"]] * 2
            now += sum(record["seconds"].values())
        elif record["kind"] == "checkpoint":
            now += record["seconds"]
        record["time"] = round(now, 3)
    return found


def slices(trace: dict, rank: int) -> list[dict]:
    return [one for one in trace["traceEvents"] if one["ph"] == "X" and one["tid"] == rank]


def test_a_track_a_rank_with_the_account_s_seconds(timed) -> None:
    trace = json.loads(json.dumps(make_trace(timed, "run")))
    threads = [one["args"]["name"] for one in trace["traceEvents"] if one["name"] == "thread_name"]
    assert threads == ["rank 0", "rank 1"]
    assert min(one.get("ts", 0) for one in trace["traceEvents"]) == 0
    imports = slices(trace, 0)[0]
    assert (imports["name"], imports["ts"], imports["dur"]) == ("imports", 0.0, 4e6)
    for rank in range(2):
        named = [one["name"] for one in slices(trace, rank)]
        assert named.count("data wait, summed") == named.count("step, summed") == 12
        assert named.count("evaluation: metric") == 3
    waits = [one["dur"] for one in slices(trace, 1) if one["name"] == "data wait, summed"]
    assert waits == [pytest.approx(1.2e6, rel=1e-3)] * 12
    losses = [one["args"]["loss"] for one in trace["traceEvents"] if one["ph"] == "C" and one["name"] == "loss"]
    assert losses == [one["loss"] for one in timed if one["kind"] == "train"]


def test_slices_of_a_track_lie_in_each_other_or_apart(timed) -> None:
    for rank in range(2):
        found = slices(make_trace(timed, "run"), rank)
        open_ends: list[float] = []
        for one in found:
            while open_ends and open_ends[-1] <= one["ts"] + 0.2:
                open_ends.pop()
            assert not open_ends or one["ts"] + one["dur"] <= open_ends[-1] + 0.2, one
            open_ends.append(one["ts"] + one["dur"])


def test_nothing_recorded_is_an_empty_trace() -> None:
    assert [one["ph"] for one in make_trace([], "run")["traceEvents"]] == ["M"]


def test_every_record_is_drawn_where_it_was() -> None:
    """Times in microseconds from the first slice: the run began at 90 s, as set-up of 10 s ended at 100 s."""
    evaluation = {"eval_images": 1.0, "eval_metric": 2.0}
    records = [
        {"kind": "run"},
        {"kind": "set_up", "time": 100.0, "parts": {"set_up": 4.0, "imports": 6.0}},
        {"kind": "epoch", "epoch": 1, "time": 110.0, "ranks": [{"data_wait": 3.0, "step": 5.0, "images": 7}]},
        {"kind": "epoch", "epoch": 2, "time": 110.5},
        {"kind": "evaluation", "epoch": 1, "time": 113.0, "ranks": [evaluation, {"eval_images": 3.0}]},
        {"kind": "checkpoint", "time": 113.5, "seconds": 0.25},
        {"kind": "train", "time": 109.0, "loss": 4.5, "learning_rate": None},
    ]
    drawn = make_trace(records, "run")["traceEvents"]
    names = [(one["name"], one.get("tid"), one["args"]["name"]) for one in drawn if one["ph"] == "M"]
    assert names == [("process_name", None, "run"), ("thread_name", 0, "rank 0"), ("thread_name", 1, "rank 1")]
    assert [(one["name"], one["ts"], one["args"]) for one in drawn if one["ph"] == "C"] == [
        ("loss", 19e6, {"loss": 4.5})
    ]
    assert [(one["tid"], one["name"], one["ts"], one["dur"]) for one in drawn if one["ph"] == "X"] == [
        (0, "imports", 0.0, 6e6),
        (0, "other set-up", 6e6, 4e6),
        (0, "epoch 1", 12e6, 8e6),
        (0, "data wait, summed", 12e6, 3e6),
        (0, "step, summed", 15e6, 5e6),
        (0, "evaluation, epoch 1", 20e6, 3e6),
        (1, "evaluation, epoch 1", 20e6, 3e6),
        (1, "evaluation: images", 20e6, 3e6),
        (0, "evaluation: images", 20e6, 1e6),
        (0, "evaluation: metric", 21e6, 2e6),
        (0, "checkpoint", 23.25e6, 0.25e6),
    ]
    assert {one["pid"] for one in drawn} == {0}


def test_a_slice_that_overlaps_by_rounding_begins_later() -> None:
    records = [
        {"kind": "checkpoint", "time": 10.0, "seconds": 2.0},
        {"kind": "checkpoint", "time": 11.0, "seconds": 1.5},
        {"kind": "checkpoint", "time": 11.0, "seconds": 0.5},
    ]
    slices = [(one["ts"], one["dur"]) for one in make_trace(records, "run")["traceEvents"] if one["ph"] == "X"]
    assert slices == [(0.0, 2e6), (2e6, 1e6), (2.5e6, 0.5e6)]


def test_a_slice_inside_of_one_that_is_left_lies_in_the_one_around_it() -> None:
    """The third begins after the second has ended and within the first; the fourth begins where the first ends."""
    found = _nested([{"tid": 0, "ts": at, "dur": long} for at, long in ((0, 10), (1, 2), (4, 3), (9.5, 3))])
    assert [(one["ts"], one["dur"]) for one in found] == [(0, 10), (1, 2), (4, 3), (10, 2.5)]
