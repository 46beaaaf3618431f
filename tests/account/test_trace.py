"""trace.json: what a viewer needs, the account's seconds, and slices that nest."""

from __future__ import annotations

import json

import pytest

from ssd.account.trace import make_trace


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
