"""Who takes which sample: every one once an epoch, steps full, and nothing depends on how the work is shared out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.data.sampler import Sampled, Sampler


def step_of(samplers, epoch, accumulation):
    """Samples of each optimizer step over all ranks, each as a sorted list of (position, sample)."""
    shares = [list(sampler.micro_batches(epoch)) for sampler in samplers]
    steps = []
    for first in range(0, len(shares[0]), accumulation):
        steps.append(
            sorted(pair for share in shares for batch in share[first : first + accumulation] for pair in batch)
        )
    return steps


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_an_epoch_sees_every_sample(samples, batch, world_size, accumulation, epoch):
    samplers = [Sampler(samples, batch, 5, rank, world_size, accumulation) for rank in range(world_size)]
    steps = step_of(samplers, epoch, accumulation)
    assert len(steps) == samplers[0].steps
    assert {len(step) for step in steps} == {batch * world_size * accumulation}
    flat = [pair for step in steps for pair in step]
    assert [position for position, _ in flat] == list(range(len(flat)))
    drawn = [sample for _, sample in flat]
    assert sorted(drawn[:samples]) == list(range(samples))
    assert drawn[samples:] == [drawn[i % samples] for i in range(samples, len(drawn))], (
        "repeats: head of the same order"
    )
    assert len(drawn) - samples == samplers[0].repeats
    assert max(Counter(drawn).values()) - min(Counter(drawn).values()) <= 1


@pytest.mark.parametrize(("batch", "world_size", "accumulation"), [(12, 1, 1), (3, 4, 1), (3, 1, 4), (2, 2, 3)])
def test_a_step_is_the_same_however_it_is_shared_out(batch, world_size, accumulation):
    whole = step_of([Sampler(50, 12, 5)], 3, 1)
    assert (
        step_of([Sampler(50, batch, 5, rank, world_size, accumulation) for rank in range(world_size)], 3, accumulation)
        == whole
    )


def test_positions_by_hand():
    sampler = Sampler(11, 2, 5, rank=1, world_size=2, accumulation=2)
    order = sampler.order(1)
    positions = [[position for position, _ in batch] for batch in sampler.micro_batches(1)]
    assert positions == [[2, 3], [6, 7], [10, 11], [14, 15]]
    assert [sample for _, sample in list(sampler.micro_batches(1))[2]] == [order[10], order[0]]


def test_an_epoch_can_start_anywhere():
    sampler = Sampler(50, 3, 5, rank=1, world_size=2, accumulation=2)
    whole = list(sampler.micro_batches(2))
    for first in range(sampler.steps + 1):
        assert list(sampler.micro_batches(2, first)) == whole[2 * first :]
    with pytest.raises(ValueError, match="an epoch has 5 steps"):
        list(sampler.micro_batches(2, 6))


def test_orders_and_streams_differ_by_seed_epoch_and_position():
    a, b = Sampler(1000, 1, 1), Sampler(1000, 1, 2)
    assert not np.array_equal(a.order(1), a.order(2))
    assert not np.array_equal(a.order(1), b.order(1))
    np.testing.assert_array_equal(a.order(1), Sampler(1000, 7, 1, 1, 3).order(1))
    firsts = [s.stream(e, p).random() for s in (a, b) for e in range(3) for p in range(3)]
    firsts += [a.stand_in(e, p, k)[1].random() for e in range(3) for p in range(3) for k in range(3)]
    assert len(set(firsts)) == len(firsts)
    assert a.stream(2, 2).random() == a.stream(2, 2).random()


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"batch": 0}, {"rank": 2}, {"rank": -1}, {"accumulation": 0}])
def test_impossible_shares_are_refused(wrong):
    with pytest.raises(ValueError, match="rank below world_size"):
        Sampler(**{"samples": 5, "batch": 1, "seed": 0, "rank": 0, "world_size": 2, "accumulation": 1} | wrong)


def test_a_loader_has_its_sampler_s_numbers() -> None:
    loader = Sampled()
    loader.sampler = Sampler(50, 4, 5, rank=1, world_size=2, accumulation=3)
    assert (loader.samples, loader.steps_per_epoch) == (50, 3)


def test_what_a_loader_says_of_its_sampler() -> None:
    class Loader(Sampled):
        sampler = Sampler(10, 4, seed=3)

    assert (Loader().samples, Loader().steps_per_epoch, Loader().repeats) == (10, 3, 2)


def test_streams_are_the_stream_of_each_sample() -> None:
    sampler = Sampler(10, 4, seed=3)
    streams = sampler.streams(2, np.array([7, 0]))
    for place, position in enumerate((7, 0)):
        assert streams.generator(place).random() == sampler.stream(2, position).random()
