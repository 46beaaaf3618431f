"""Default boxes, overlaps and offsets: published numbers, golden parity, invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.boxes import (
    NUM_DEFAULTS,
    DefaultBoxes,
    decode_offsets,
    default_boxes,
    encode_offsets,
    iou,
    ltrb_to_xywh,
    xywh_to_ltrb,
)


def test_there_are_8732_of_them_and_the_first_and_last_are_known():
    boxes = default_boxes()
    assert NUM_DEFAULTS == 8732
    assert boxes.xywh.shape == boxes.ltrb.shape == (8732, 4)
    assert boxes.xywh.dtype == boxes.ltrb.dtype == torch.float32
    # Map 0, shape 0, cell (0, 0): centre 4/300, side 21/300.
    torch.testing.assert_close(boxes.xywh[0], torch.tensor([4 / 300, 4 / 300, 0.07, 0.07]))
    # Columns run fastest, then rows, then shapes.
    torch.testing.assert_close(boxes.xywh[1], torch.tensor([12 / 300, 4 / 300, 0.07, 0.07]))
    torch.testing.assert_close(boxes.xywh[38], torch.tensor([4 / 300, 12 / 300, 0.07, 0.07]))
    torch.testing.assert_close(boxes.xywh[1444, 2:], torch.tensor([1.0, 1.0]) * (21 * 45) ** 0.5 / 300)
    # The last: one cell of 300 pixels, 261 / sqrt 2 wide and 261 * sqrt 2 high, clamped to the image's height.
    torch.testing.assert_close(boxes.xywh[-1], torch.tensor([0.5, 0.5, 261 / 300 / 2**0.5, 1.0]))


# Index -> centre x, centre y, width, height in pixels of 300. The maps begin at 0, 5776, 7942, 8542, 8692 and 8728.
BY_HAND = {
    0: (4, 4, 21, 21),  # map 0, cell (0, 0): a square of the map's scale
    1444: (4, 4, 945**0.5, 945**0.5),  # after 38 * 38 cells, the square between two scales: sqrt(21 * 45)
    2888: (4, 4, 21 * 2**0.5, 21 / 2**0.5),  # twice as wide as high
    4332: (4, 4, 21 / 2**0.5, 21 * 2**0.5),  # twice as high as wide
    5775: (300, 300, 21 / 2**0.5, 21 * 2**0.5),  # the map's last: centre 37.5 * 8
    5776: (8, 8, 45, 45),  # map 1, steps of 16
    7220: (8, 8, 45 * 3**0.5, 45 / 3**0.5),  # its fifth shape, after 4 * 361 boxes: thrice as wide as high
    7942: (16, 16, 99, 99),  # map 2, steps of 32
    8542: (32, 32, 153, 153),  # map 3, steps of 64
    8692: (50, 50, 207, 207),  # map 4, steps of 100
    8728: (150, 150, 261, 261),  # map 5, one cell
    8729: (150, 150, (261 * 315) ** 0.5, (261 * 315) ** 0.5),
}


@pytest.mark.parametrize("index", BY_HAND)
def test_worked_by_hand(index):
    pixels = default_boxes().xywh[index].double() * 300
    torch.testing.assert_close(pixels, torch.tensor(BY_HAND[index]).double(), rtol=1e-6, atol=1e-5)


def test_golden(golden):
    numbers = np.load(golden / "default_boxes.npz")
    boxes = default_boxes()
    np.testing.assert_allclose(boxes.xywh.numpy(), numbers["xywh"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(boxes.ltrb.numpy(), numbers["ltrb"], rtol=0, atol=1e-7)
    outside = ((boxes.ltrb < 0) | (boxes.ltrb > 1)).any(1).sum()
    assert outside == 2221 == numbers["n_ltrb_outside"]


def test_made_once_and_moved_whole():
    assert default_boxes() is default_boxes()
    moved = default_boxes().to("meta")
    assert isinstance(moved, DefaultBoxes)
    assert moved.xywh.device.type == moved.ltrb.device.type == "meta"


def test_iou_of_known_pairs():
    a = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0]])
    b = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.3, 0.2], [0.2, 0.2, 0.4, 0.4]])
    torch.testing.assert_close(iou(a, b), torch.tensor([[1.0, 1 / 3, 0.0], [0.0, 0.0, 0.0]]))
    batch = iou(a.expand(5, 2, 4), b)
    assert batch.shape == (5, 2, 3)
    assert torch.equal(batch[3], iou(a, b))


def test_iou_without_area_is_zero_and_never_nan():
    point = torch.tensor([0.3, 0.3, 0.3, 0.3])
    inverted = torch.tensor([0.6, 0.6, 0.2, 0.2])
    broken = torch.tensor([float("nan"), 0.0, 1.0, 1.0])
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    boxes = torch.stack((point, inverted, broken, whole))
    expected = torch.zeros(4, 4)
    expected[3, 3] = 1
    assert torch.equal(iou(boxes, boxes), expected)


def test_iou_leaves_its_inputs_alone():
    a, b = torch.rand(3, 4), torch.rand(2, 4)
    kept = a.clone(), b.clone()
    iou(a, b)
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])


coordinate = st.integers(0, 900).map(lambda n: n / 1000)
size = st.integers(10, 1000).map(lambda n: n / 1000)


@settings(deadline=None, max_examples=50)
@given(coordinate, coordinate, size, size)
def test_round_trips(x, y, width, height):
    box = torch.tensor([x, y, width, height])
    torch.testing.assert_close(ltrb_to_xywh(xywh_to_ltrb(box)), box, rtol=0, atol=1e-6)
    defaults = default_boxes().xywh
    offsets = encode_offsets(box.expand_as(defaults), defaults)
    assert offsets.isfinite().all()
    torch.testing.assert_close(decode_offsets(offsets, defaults), box.expand_as(defaults), rtol=1e-5, atol=1e-5)


def test_offsets_of_a_known_box():
    default = torch.tensor([0.5, 0.5, 0.2, 0.4])
    box = torch.tensor([0.52, 0.46, 0.2 * 2.718281828, 0.4])
    torch.testing.assert_close(encode_offsets(box, default), torch.tensor([1.0, -1.0, 5.0, 0.0]), rtol=1e-5, atol=1e-5)
    assert encode_offsets(default, default, epsilon=1e-5)[2].item() == pytest.approx(
        5 * np.log(0.2 / (0.2 + 1e-5) + 1e-5), rel=1e-3
    )


def test_offsets_leave_their_inputs_alone():
    """Trap of the original: decoding overwrote the caller's locations."""
    offsets, defaults = torch.randn(7, 4), torch.rand(7, 4)
    kept = offsets.clone(), defaults.clone()
    encode_offsets(decode_offsets(offsets, defaults), defaults)
    assert torch.equal(offsets, kept[0])
    assert torch.equal(defaults, kept[1])
