"""The reference of `crop`, held to PIL's resize in float32 and to a loop over the definition of its weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.conformance.inputs import stored
from ssd.ops import crop
from ssd.ops.crop import Plane, unrounded

BOUNDS = {"height": 50, "width": 60}


@pytest.mark.parametrize("rectangle", [(0, 0, 60, 50), (3, 7, 50, 9), (11, 0, 12, 1), (1, 1, 14, 33), (59, 49, 60, 50)])
@pytest.mark.parametrize("size", [1, 13, 64])
def test_it_is_pils_resize_before_the_rounding(rectangle: tuple[int, ...], size: int) -> None:
    """PIL resizes an image of float32 by the same filter, and does not round between the two directions."""
    slots, rectangles, planes = stored([(7, 5), (60, 50)], [(1, *rectangle)])
    image = planes[0].pixels[35:].view(50, 60, 3).numpy()
    for channel in range(3):
        part = Image.fromarray(image[..., channel].astype(np.float32)).crop(rectangle)
        right = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
        found = unrounded(slots, rectangles, planes, **BOUNDS, size=size)[0, ..., channel]
        np.testing.assert_allclose(found, right, atol=2e-3)


def weights(low: int, high: int, step: int, size: int, i: int) -> dict[int, float]:
    """The weight of each cell of a line for output pixel i, by the words of the contract."""
    scale = (high - low) / step / size
    centre, reach = low / step + scale * (i + 0.5), max(scale, 1)
    cells = range(low // step, math.ceil(high / step))
    heights = {cell: max(0.0, 1 - abs(cell + 0.5 - centre) / reach) for cell in cells}
    return {cell: height / sum(heights.values()) for cell, height in heights.items()}


@pytest.mark.parametrize("rectangle", [(0, 0, 11, 9), (3, 1, 8, 8), (5, 4, 6, 5), (2, 8, 11, 9), (1, 0, 10, 7)])
def test_chroma_of_half_size_and_odd_corners_is_what_the_contract_says(rectangle: tuple[int, ...]) -> None:
    left, top, right, bottom = rectangle
    slots, rectangles, planes = stored([(4, 3), (11, 9)], [(1, *rectangle)], yuv=True, seed=3)
    luma, chroma = planes[0].pixels[12:].view(9, 11).double(), planes[1].pixels[4:].view(5, 6, 2).double()
    found = unrounded(slots, rectangles, planes, **BOUNDS, size=4)[0]
    for row in range(4):
        for column in range(4):
            y, cb, cr = (
                sum(
                    down * across * float(plane[cell_y, cell_x])
                    for cell_y, down in weights(top, bottom, step, 4, row).items()
                    for cell_x, across in weights(left, right, step, 4, column).items()
                )
                for plane, step in ((luma, 1), (chroma[..., 0], 2), (chroma[..., 1], 2))
            )
            rgb = y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)
            np.testing.assert_allclose(found[row, column], np.clip(rgb, 0, 255), atol=2e-3)


def test_halves_are_rounded_to_the_even_number_and_once() -> None:
    pixels = torch.tensor([[0, 1, 254], [1, 2, 255]], dtype=torch.uint8)
    plane = Plane(pixels, torch.tensor([0]), torch.tensor([2]))
    found = crop(torch.tensor([0]), torch.tensor([[0, 0, 2, 1]]), (plane,), height=1, width=2, size=1)
    assert found.tolist() == [[[[0, 2, 254]]]]
    assert found.dtype == torch.uint8


def test_bounds_that_no_rectangle_reaches_change_nothing() -> None:
    slots, rectangles, planes = stored([(30, 20)], [(0, 2, 3, 28, 19), (0, 0, 0, 9, 9)])
    least, more = ({"height": height, "width": width, "size": 12} for height, width in ((16, 26), (37, 300)))
    exact = unrounded(slots, rectangles, planes, **least)
    torch.testing.assert_close(unrounded(slots, rectangles, planes, **more), exact, rtol=0, atol=1e-3)


def test_the_size_is_the_networks_unless_another_is_asked_for() -> None:
    assert crop(*stored([(5, 4)], [(0, 0, 0, 5, 4)]), height=4, width=5).shape == (1, 300, 300, 3)
