"""Calls in turn, on a clock of the test's own: what is counted, and what the ratio of two calls is."""

from __future__ import annotations

import pytest

from ssd.measure import Ratio, alternate, ratio_of, spread


def test_calls_take_turns_and_warm_ups_do_not_count() -> None:
    now, order = 0.0, []

    def call(name: str, seconds: float) -> None:
        nonlocal now
        order.append(name)
        now += seconds

    calls = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0 if len(order) > 2 else 50.0)}
    assert alternate(calls, rounds=2, warm_up=1, clock=lambda: now) == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert order == ["a", "b"] * 3


def test_a_ratio_is_that_of_the_medians_and_its_quartiles_are_those_of_the_turns() -> None:
    found = ratio_of([10, 20, 30, 40, 50], [5, 10, 10, 10, 10])
    assert found.value == 3
    assert (found.low, found.high) == (2, 4.5)
    assert str(found) == "3.00 (2.00 to 4.50)"
    assert ratio_of([3], [2]) == Ratio(1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="shorter"):
        ratio_of([1, 2], [1])


def test_the_spread_is_that_of_the_least_steady_call() -> None:
    assert spread({"steady": [1, 1, 1, 1], "not": [1, 2, 3, 4, 5]}) == 1.0
    assert spread({"once": [1]}) is None


def test_two_turns_have_quartiles() -> None:
    assert ratio_of([2, 6], [1, 2]) == Ratio(8 / 3, 1.75, 3.25)
    assert spread({"two": [1, 3]}) == 1.5
