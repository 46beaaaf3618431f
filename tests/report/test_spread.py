"""Ratios of sets of runs: the interval is the Mann-Whitney test's, and its confidence is counted."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from ssd.report.spread import _left_out, _ways, ratio_of, spread_text


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 4), (2, 3), (4, 3)])
def test_ways_are_those_of_all_orders(one: int, other: int) -> None:
    orders = set(permutations([0] * one + [1] * other))
    counted = [0] * (one * other + 1)
    for order in orders:
        counted[sum(a > b for i, a in enumerate(order) for b in order[i + 1 :])] += 1
    assert _ways(one, other) == counted


@pytest.mark.parametrize(
    ("one", "other", "left_out", "confidence"),
    [(1, 5, 0, 2 / 3), (2, 2, 0, 2 / 3), (3, 3, 0, 0.9), (4, 4, 0, 34 / 35), (5, 5, 2, 0.9683), (6, 6, 5, 0.9589)],
)
def test_intervals_of_tables(one: int, other: int, left_out: int, confidence: float) -> None:
    """Critical values of U at 5%, two-sided, from tables: 2 for (5, 5), 5 for (6, 6); none for fewer than 4 and 4."""
    found = _left_out(one, other)
    assert found[0] == left_out
    assert found[1] == pytest.approx(confidence, abs=1e-4)


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        ratio = ratio_of((2 * rng.lognormal(0, 0.1, 5)).tolist(), rng.lognormal(0, 0.1, 5).tolist())
        assert ratio
        held += ratio.low <= 2 <= ratio.high
    assert held / 2000 == pytest.approx(0.9683, abs=0.015)


def test_many_runs_are_left_to_the_normal_distribution() -> None:
    ratio = ratio_of([float(n) for n in range(100, 300)], [100.0] * 200)
    assert ratio
    assert ratio.confidence == 0.95
    assert ratio.low == pytest.approx(1.88, abs=0.05)
    assert ratio.high == pytest.approx(2.11, abs=0.05)


def test_no_difference_without_its_n() -> None:
    assert str(ratio_of([3.0], [2.0])) == "1.500 (n 1 and 1: no interval)"
    assert str(ratio_of([2.0, 4.0], [2.0])) == "1.500 (1.000 to 2.000, 33% interval, n 2 and 1)"


@pytest.mark.parametrize(("values", "others"), [([], [1.0]), ([1.0], []), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_no_ratio(values: list[float], others: list[float]) -> None:
    assert ratio_of(values, others) is None


def test_a_spread_in_words() -> None:
    assert spread_text([], ".1f") == ""
    assert spread_text([2.0], ".1f") == "2.0"
    assert spread_text([3.0, 1.0, 2.5], ".1f") == "2.5 (1.0 to 3.0)"
