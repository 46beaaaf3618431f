"""Shapes in a row of numbers, on rows short enough to be worked by hand; each bound is met once and missed once."""

from __future__ import annotations

import pytest

from ssd.account.spread import WINDOW, busy, grown, is_rising, shift, spikes, two_groups


@pytest.mark.parametrize(
    ("times", "place"),
    [
        ([], None),
        ([9.0], None),
        ([10.0, 10.0, 16.0], 2),
        ([10.0, 20.0, 16.0], 1),  # by 10 over 10, and by 1 over the median of 10 and 20
        ([10.0, 10.0, 15.0], None),  # no more than 1.5 times
        ([2.0, 2.0, 7.0], None),  # no more than 5 seconds
        ([2.0, 2.0, 7.5], 2),
        ([12.0, 17.5], None),  # more than 5 seconds, and no more than 1.5 times
        ([10.0, 18.0, 10.0, 30.0], 3),
    ],
)
def test_the_time_that_grew_the_most(times: list[float], place: int | None) -> None:
    assert grown(times, 1.5, 5.0) == place


def test_a_spike_is_far_above_the_values_before_it() -> None:
    assert WINDOW == 12
    steady = [10.0, 12.0] * 6  # median 11, median distance 1: 8 of them are 19
    assert spikes([*steady, 19.5, 11.0], 1.5) == [(12, 11.0)]
    assert spikes([*steady, 19.0], 1.5) == []
    assert spikes([*steady, 21.9], 2.0) == []
    assert spikes([*steady, 22.1], 2.0) == [(12, 11.0)]
    assert spikes([99.0, *steady[1:]], 1.5) == [], "what has no twelve values before it is no spike"
    assert spikes([99.0, *steady, 30.0], 1.5) == [(13, 11.0)], "the first value is no longer among the twelve"


def test_four_of_five_steps_up_are_rising() -> None:
    assert is_rising([1, 2, 3, 4])
    assert not is_rising([1, 2, 3])
    assert is_rising([1, 2, 3, 3, 4, 5])
    assert not is_rising([1, 2, 3, 3, 4, 4])
    assert not is_rising([1, 1, 1, 1])


def test_a_shift_is_told_by_thirds() -> None:
    assert shift([1, 2, 3, 50, 50, 50, 7, 9, 8]) == (2, 8)
    assert shift([1] * 8) is None
    assert shift([1, 2, 3, 4, 0, 0, 0, 6, 7, 9, 9]) == (2, 9)


def test_two_groups_that_values_go_between() -> None:
    back_and_forth = [10.0, 20.0] * 6
    assert two_groups(back_and_forth) == (10.0, 20.0, 0.5)
    assert two_groups(back_and_forth[:11]) is None, "too few"
    assert two_groups([10.0] * 6 + [20.0] * 6) is None, "a step, which goes over once"
    turned_four_times = [10.0, 10.0, 20.0, 10.0, 10.0, 20.0, 20.0, 20.0, 10.0, 10.0, 10.0, 10.0]
    assert two_groups(turned_four_times) == (10.0, 20.0, 8 / 12)
    turned_thrice = [10.0, 10.0, 20.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0]
    assert two_groups(turned_thrice) is None
    assert two_groups([17.0, 20.0] * 6) is None, "15% of 20 apart"
    assert two_groups([16.9, 20.0] * 6) == (16.9, 20.0, 0.5)
    # Each value lies 2 from its group's median of 100: the groups are 10 apart, or a little more.
    near = [98.0, 128.0, 98.0, 128.0, 98.0, 128.0, 102.0, 132.0, 102.0, 132.0, 102.0, 132.0]
    assert two_groups(near) == (100.0, 130.0, 0.5)
    wide = [9.3, 12.3] * 3 + [10.7, 13.7] * 3
    assert two_groups(wide) is None, "medians of 10 and 13 are 30% apart, and less than five times 0.7"
    assert two_groups([10.0] * 4 + [20.0] + [10.0] * 5 + [20.0] + [10.0]) is None, "less than a fifth lies in one"
    assert two_groups([10.0, 20.0, 10.0, 20.0, 10.0, *[20.0] * 10]) == (10.0, 20.0, 3 / 15), "a fifth is enough"
    assert two_groups([20.0, 10.0, 20.0, 10.0, 20.0, *[10.0] * 10]) == (10.0, 20.0, 12 / 15)


def test_busy_readings_are_those_of_devices_that_work() -> None:
    records = [
        {"use_percent": [49.9, 50.0], "clock": [1.0, 2.0, 3.0]},
        {"use_percent": [None, 90.0], "clock": [4.0, None]},
        {"clock": [5.0]},
        {"use_percent": [90.0]},
        {"use_percent": None, "clock": None},
    ]
    assert busy(records, "clock") == {1: [2.0], 2: [3.0], 0: [4.0, 5.0]}
