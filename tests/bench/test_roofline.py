"""The roofline of a step: its arithmetic by hand, today's page, and the counts of a network of one block."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

Loaded = Callable[[str], ModuleType]


@pytest.fixture
def roofline(loaded: Loaded) -> ModuleType:
    """bench/roofline.py."""
    return loaded("roofline")


def test_the_page_has_the_table_of_todays_counts(roofline: ModuleType) -> None:
    page = roofline.PAGE.read_text(encoding="utf-8")
    assert roofline.drawn(page) == page, "run `python bench/roofline.py` and commit docs/nvidia.md"


def test_the_counts_are_of_todays_code(roofline: ModuleType) -> None:
    head, _ = roofline.kept()
    assert head.split("sources ")[1] == roofline.digest(), "run `make roofline` and commit bench/roofline.csv"


def test_a_kernel_takes_the_longer_of_its_bytes_and_its_arithmetic(roofline: ModuleType) -> None:
    on = roofline.Card(tflops=1000, gb_s=2000)
    moves = roofline.Row("one", launches=3, kernels=3, mb=10, gflop=1)
    assert roofline.microseconds(moves, on, 1, 1) == pytest.approx(3 * 5)  # 10 MB at 2 MB/us; 1 GFLOP takes 1 us
    assert roofline.microseconds(moves, on, 0.1, 0.5) == pytest.approx(3 * 10)
    assert roofline.microseconds(moves, on, 0.05, 1) == pytest.approx(3 * 20)
    rows = [moves, roofline.Row("two", launches=253, kernels=1, mb=0, gflop=20)]
    assert roofline.started(rows) == pytest.approx(256 * 2 / 256)
    assert roofline.whole(rows, on, 0.5, 1) == pytest.approx(2 + 3 * 5 + 40)


def test_the_share_that_a_goal_needs_gives_the_goal(roofline: ModuleType) -> None:
    on = roofline.Card(tflops=1000, gb_s=2000)
    rows = [
        roofline.Row(f"{roofline.NORMS}, forward", 128, 1, mb=20, gflop=0),
        roofline.Row("convolutions", 128, 1, mb=0, gflop=30),
    ]
    # 2 us to start, 10 us for the bytes, and 38 us are left for 30 GFLOP
    assert roofline.needed(rows, on, 1e6 / 50, 1) == pytest.approx(30 / 38)
    assert roofline.needed(roofline.halved(rows), on, 1e6 / 50, 1) == pytest.approx(30 / 43)
    assert roofline.needed(rows, on, 1e6 / 41, 1) is None


def test_the_kept_rows_are_the_convolutions_that_a_plan_counts(roofline: ModuleType) -> None:
    """base/published/constants.json has 94.7 GFLOP with separate heads; the joint ones are padded."""
    _, rows = roofline.kept()
    heads = 3 * 2 * 9 * sum(  # three passes; weights of 3x3; channels that a joint head is padded by
        inside * padded * cells**2
        for inside, padded, cells in (
            (256, 44, 38), (512, 2, 19), (512, 2, 10), (256, 2, 5), (256, 44, 3), (256, 44, 1)
        )
    )  # fmt: skip
    assert sum(row.kernels * row.gflop for row in rows) == pytest.approx(94.7 + heads / 1e9, abs=0.2)
    assert all(row.mb > 0 for row in rows if row.part in ("optimizer", "loss, forward", "loss, backward", "augment"))


@pytest.mark.slow
def test_kernels_of_one_block_as_counted_by_hand(loaded: Loaded) -> None:
    """A convolution of 8 to 16 channels with a bias, and ReLU: 4 images of 32 x 32."""
    generated = loaded("generated")
    network = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()).to(memory_format=torch.channels_last)
    images = torch.empty((4, 8, 32, 32), dtype=torch.bfloat16, device="meta").to(memory_format=torch.channels_last)
    kernels = generated.generated(network, images)
    forward, backward = ([one for one in kernels if one.backward is way and one.flop] for way in (False, True))
    assert len(forward) == len(backward) == 1
    pixels, weights = 4 * 32 * 32, 16 * 8 * 9
    assert forward[0].flop == 2 * pixels * weights
    assert backward[0].flop == 2 * pixels * weights  # images need no gradient
    assert forward[0].biased
    assert backward[0].launches == 2
    assert forward[0].bytes == 2 * (pixels * (8 + 16) + weights)
    rest = [one for one in kernels if not one.backward and not one.flop and any("relu" in name for name in one.origins)]
    # ReLU reads the convolution's output and its bias, and writes the result, or the mask beside it
    assert 2 * pixels * 16 * 2 <= sum(one.bytes for one in rest) <= 2 * pixels * 16 * 3
