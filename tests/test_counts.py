"""Sizes and counts of a run, by hand."""

from __future__ import annotations

import pytest

from ssd import boxes
from ssd.compute import memory
from ssd.config import Config
from ssd.counts import IMAGE_SIZE, evaluation_epochs, last_step, steps_per_epoch
from ssd.data.sampler import Sampler

COCO_TRAIN_IMAGES = 117_266


def test_the_networks_input_is_300_pixels_wide() -> None:
    assert IMAGE_SIZE == boxes.IMAGE_SIZE == 300
    more = memory.required_bytes(Config(prefetch=12)) - memory.required_bytes(Config(prefetch=2))
    assert more == pytest.approx(10 * Config().train_batch_size * 270_000, abs=1)


@pytest.mark.parametrize(
    ("samples", "global_batch", "steps"), [(COCO_TRAIN_IMAGES, 960, 123), (8, 8, 1), (9, 8, 2), (16, 8, 2), (1, 8, 1)]
)
def test_a_partial_last_batch_is_a_step(samples: int, global_batch: int, steps: int) -> None:
    assert steps_per_epoch(samples, global_batch) == steps
    assert Sampler(samples, global_batch, seed=0).steps == steps


@pytest.mark.parametrize(
    ("epochs", "max_steps", "last"), [(3, None, 30), (3, 40, 30), (3, 30, 30), (3, 29, 29), (3, 1, 1)]
)
def test_a_run_ends_with_its_epochs_or_with_max_steps(epochs: int, max_steps: int | None, last: int) -> None:
    assert last_step(epochs, 10, max_steps) == last


@pytest.mark.parametrize(
    ("epochs", "listed", "interval", "expected"),
    [
        (12, (), 5, (5, 10, 12)),
        (10, (), 5, (5, 10)),
        (6, (), 5, (5, 6)),
        (3, (), 5, (3,)),
        (9, (4, 2, 4), 5, (2, 4, 9)),
        (50, (40, 50, 55), 5, (40, 50)),
        (50, (55,), 5, (50,)),
        (6, (2, 4), 5, (2, 4, 6)),
    ],
)
def test_the_last_epoch_is_always_evaluated(
    epochs: int, listed: tuple[int, ...], interval: int, expected: tuple[int, ...]
) -> None:
    assert evaluation_epochs(epochs, listed, interval) == expected
