"""Which steps of an epoch are sampled, and what is said of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssd.run.sampling import Sampling, read_laps

HOST: Any = SimpleNamespace(timed_events=False)


def sampled(steps_per_epoch: int) -> list[int]:
    sampling = Sampling(HOST, steps_per_epoch)
    for place in range(steps_per_epoch):
        sampling.begin(100 + place, place)
        sampling.mark("")
        sampling.mark("forward")
    return read_laps(*sampling.take())["steps"]


@pytest.mark.parametrize(("steps", "places"), [(1, []), (2, [101]), (4, [101, 102, 103]), (60, [110, 130, 150])])
def test_a_few_steps_spread_over_the_epoch_and_never_the_first(steps: int, places: list[int]) -> None:
    found = sampled(steps)
    assert 100 not in found
    assert len(found) <= 3
    assert found == places


def test_what_is_taken_is_gone_and_other_steps_cost_nothing() -> None:
    sampling = Sampling(HOST, 2)
    sampling.begin(1, 0)
    sampling.mark("forward")
    assert read_laps(*sampling.take()) == {"steps": [], "seconds": {}}
    sampling.begin(2, 1)
    for name in ("", "forward", "backward", "optimizer"):
        sampling.mark(name)
    taken = read_laps(*sampling.take())
    assert taken["steps"] == [2]
    assert taken["seconds"].keys() == {"forward", "backward", "optimizer"}
    assert read_laps(*sampling.take()) == {"steps": [], "seconds": {}}


def test_a_captured_step_is_one_piece() -> None:
    """Its forward pass is never marked."""
    sampling = Sampling(HOST, 2)
    sampling.begin(2, 1)
    for name in ("", "backward", "", "communication", "optimizer"):
        sampling.mark(name)
    assert read_laps(*sampling.take())["seconds"].keys() == {"forward and backward", "communication", "optimizer"}
