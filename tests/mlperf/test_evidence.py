"""What proves that two logs are one run, and what chance can explain."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest

from ssd.mlperf.evidence import copy_findings
from ssd.mlperf.logs import ResultLog
from ssd.mlperf.records import Record

KEYS = ("run_start", "epoch_start", "epoch_stop", "eval_start", "eval_stop", "epoch_start", "run_stop")


def log(name: str, begin_ms: float, intervals_ms: list[float]) -> ResultLog:
    times = accumulate(intervals_ms, initial=begin_ms)
    records = [
        Record(key, None, {}, time_ms, line)
        for line, (key, time_ms) in enumerate(zip(KEYS, times, strict=False), start=1)
    ]
    return ResultLog(name, Path(name), tuple(records), {})


@pytest.mark.parametrize(
    ("intervals_ms", "copies"),
    [
        ([1, 350, 2, 45, 3], 0),  # a smoke run: equal by chance in one pair of four
        ([100.0] * 6, 0),  # no interval says more than chance
        ([1000.0] * 5, 0),  # one pair in 10**5
        ([1000.0] * 6, 1),  # one pair in 10**6
        ([1, 100_000_000.0, 3], 1),  # one long part is enough: a day to the millisecond
    ],
)
def test_equal_intervals_show_a_copy_where_chance_cannot(intervals_ms: list[float], copies: int) -> None:
    logs = [log("result_0.txt", 1e12, intervals_ms), log("result_1.txt", 2e12, intervals_ms)]
    assert len(list(copy_findings(logs))) == copies


def test_one_millisecond_of_difference_is_another_run() -> None:
    logs = [log("result_0.txt", 1e12, [60_000.0] * 6), log("result_1.txt", 2e12, [60_000.0] * 5 + [60_001.0])]
    assert list(copy_findings(logs)) == []
