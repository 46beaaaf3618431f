"""The SSD crop: the original's draws number for number and in distribution, and what holds of every crop."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssd.data.annotations import parse_annotations
from ssd.data.crop import FACTOR_RANGES, OPTIONS, Crop, draw_colour, draw_crop, mirror

NONE, HALF, ANY = 0, 3, 6


class PythonRandom:
    """Python's random, as the original used it, behind the two calls a crop makes."""

    def __init__(self, seed):
        self.source = random.Random(seed)

    def random(self):
        return self.source.random()

    def integers(self, high):
        return self.source.randrange(high)


@pytest.fixture(scope="module")
def images(golden):
    """(image id, size, boxes, labels) of the 97 tiny images with a box: train, then val, in file order."""
    found = []
    for split in ("train", "val"):
        index = parse_annotations(golden / f"instances_{split}2017.json")
        found += [(int(index.image_ids[r]), index.sizes[r], *index.image_boxes(r)) for r in index.with_boxes()]
    return found


@pytest.fixture(scope="module")
def expected(golden):
    with np.load(golden / "crop.npz") as arrays:
        return dict(arrays)


def test_the_originals_first_400_draws_are_reproduced(images, expected):
    assert [image_id for image_id, *_ in images] == expected["image_ids_in_order"].tolist()
    rng = PythonRandom(0)
    for draw, row in enumerate(expected["exact_first400_seed0"]):
        image_id, (width, height), boxes, labels = images[draw % len(images)]
        crop = draw_crop(rng, boxes, labels)
        left, top, right, bottom = crop.pixels(width, height)
        ours = [image_id, crop.option, crop.left, crop.top, crop.width, crop.height, len(boxes), len(crop.boxes)]
        np.testing.assert_allclose([*ours, bottom - top, right - left, crop.boxes.sum()], row, rtol=1e-5, atol=1e-5)


def test_draws_are_distributed_as_the_originals(images, expected):
    rng = np.random.default_rng(11)
    crops = [(boxes, draw_crop(rng, boxes, labels)) for _ in range(124) for _, _, boxes, labels in images]
    options = np.array([crop.option for _, crop in crops])
    share = np.bincount(options, minlength=len(OPTIONS)) / len(crops)
    np.testing.assert_allclose(share, expected["option_accepted_share"].mean(0), atol=0.015)
    assert np.mean([crop.tries for _, crop in crops]) == pytest.approx(expected["mean_tries"].mean(), abs=0.1)

    kept = sum(len(crop.boxes) for _, crop in crops) / sum(len(boxes) for boxes, _ in crops)
    assert kept == pytest.approx(expected["boxes_kept_share"].mean(), abs=0.015)
    sides = np.array([(crop.width, crop.height, crop.left, crop.top) for _, crop in crops])
    cropped = sides[options != NONE]
    for column, name in ((0, "w"), (1, "h")):
        all_mean, all_std, mean, std = expected[f"{name}_mean_std_all_then_cropped"].mean(0)
        np.testing.assert_allclose([sides[:, column].mean(), sides[:, column].std()], [all_mean, all_std], atol=0.01)
        np.testing.assert_allclose([cropped[:, column].mean(), cropped[:, column].std()], [mean, std], atol=0.01)
    assert sides[:, 2].mean() == pytest.approx(expected["left_mean"].mean(), abs=0.01)
    assert sides[:, 3].mean() == pytest.approx(expected["top_mean"].mean(), abs=0.01)
    aspect = cropped[:, 0] / cropped[:, 1]
    assert aspect.mean() == pytest.approx(expected["aspect_mean_std_all_cropped_min_max"][:, 2].mean(), abs=0.015)
    assert aspect.min() >= 0.5
    assert aspect.max() <= 2.0
    # golden averages each draw's boxes first, then the draws
    areas = [((b := crop.boxes)[:, 2:] - b[:, :2]).prod(1).mean() for _, crop in crops]
    assert np.mean(areas) == pytest.approx(expected["mean_box_area_after"][:, 0].mean(), abs=0.01)


def test_ranges_are_the_benchmarks(expected):
    names = ("brightness", "contrast", "saturation", "hue")
    np.testing.assert_allclose(FACTOR_RANGES, [expected[f"jitter_{name}"] for name in names])


def corners():
    """(n, 4) float32 boxes with a size, in 0..1."""
    unit = st.floats(0, 0.75, width=32)
    side = st.floats(0.015625, 0.25, width=32)
    box = st.tuples(unit, unit, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    return st.lists(box, min_size=1, max_size=8).map(lambda rows: np.array(rows, np.float32))


@settings(deadline=None, max_examples=150)
@given(corners(), st.integers(0, 2**32 - 1))
def test_a_crop_keeps_whole_truths(boxes, seed):
    labels = np.arange(1, len(boxes) + 1)
    before = boxes.copy()
    crop = draw_crop(np.random.default_rng(seed), boxes, labels)
    np.testing.assert_array_equal(boxes, before)
    assert len(crop.boxes) == len(crop.labels) >= 1
    assert set(crop.labels) <= set(labels)
    assert (crop.boxes >= 0).all()
    assert (crop.boxes <= 1).all()
    assert (crop.boxes[:, 2:] > crop.boxes[:, :2]).all()
    assert 0 <= crop.left <= crop.left + crop.width <= 1 + 1e-12
    assert 0 <= crop.top <= crop.top + crop.height <= 1 + 1e-12
    # Back in the whole image's frame a kept box is the box it was, cut by the crop.
    scale, shift = np.tile([crop.width, crop.height], 2), np.tile([crop.left, crop.top], 2)
    low, high = np.tile([crop.left, crop.top], 2), np.tile([crop.left + crop.width, crop.top + crop.height], 2)
    np.testing.assert_allclose(crop.boxes * scale + shift, np.clip(boxes[crop.labels - 1], low, high), atol=1e-6)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    strictly = ((centre > low[:2]) & (centre < high[:2])).all(1) | (crop.option == NONE)
    np.testing.assert_array_equal(np.flatnonzero(strictly) + 1, crop.labels)


@settings(deadline=None)
@given(hnp.arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)))
def test_mirroring_twice_changes_nothing(boxes):
    once = mirror(boxes)
    np.testing.assert_allclose(mirror(once), boxes, atol=1e-6)
    np.testing.assert_allclose(once[:, 2] - once[:, 0], boxes[:, 2] - boxes[:, 0], atol=1e-6)


class Scripted:
    """Gives the numbers it was made with, in order."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self):
        return self.numbers.pop(0)

    def integers(self, high):
        assert high == 7
        return self.numbers.pop(0)


def test_worked_by_hand():
    """Three options fail, each by another rule, and the fourth is accepted; sides are 0.3 + 0.7 times a draw."""
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]], np.float32)
    too_wide = (ANY, 1.0, 0.0)  # 1.0 x 0.3: no corner is drawn
    too_little = (1, 0.0, 0.0, 0.0, 0.0)  # 0.3 x 0.3 at 0, 0: IoU with the second box is 0
    no_centre = (ANY, 0.0, 0.0, 1.0, 0.0)  # 0.3 x 0.3 at 0.7, 0: neither centre, (0.3, 0.3) and (0.75, 0.75), is inside
    accepted = (ANY, 0.5, 0.2, 0.0, 0.25)  # 0.65 x 0.44 at 0, 0.56 * 0.25 = 0.14
    rng = Scripted(*too_wide, *too_little, *no_centre, *accepted)
    crop = draw_crop(rng, boxes, np.array([8, 9]))
    assert (crop.option, crop.tries, crop.labels.tolist(), rng.numbers) == (ANY, 4, [8], [])
    np.testing.assert_allclose((crop.left, crop.top, crop.width, crop.height), (0, 0.14, 0.65, 0.44), rtol=1e-12)
    # 0.1 / 0.65; the top edge is cut to 0; 0.5 / 0.65; (0.5 - 0.14) / 0.44.
    np.testing.assert_allclose(crop.boxes, [[0.1538462, 0.0, 0.7692308, 0.8181818]], rtol=1e-6)


@pytest.mark.parametrize(
    ("box", "option", "numbers", "accepted"),
    [
        # A small box has its centre at 0.5. A side of 0.3 leaves 0.7 for left and top.
        ((0.25, 0.25, 0.75, 0.75), ANY, (3 / 7, 0, 0.5, 0.5), True),  # 0.6 x 0.3: the ratio is 2
        ((0.25, 0.25, 0.75, 0.75), ANY, (0, 3 / 7, 0.5, 0.5), True),  # and 1/2
        ((0.25, 0.25, 0.75, 0.75), ANY, (0, 0, 5 / 7, 0.5), False),  # the left border, 0.5, goes through the centre
        ((0.25, 0.25, 0.75, 0.75), ANY, (0, 0, 2 / 7, 0.5), False),  # the right one, 0.2 + 0.3
        ((0.25, 0.25, 0.75, 0.75), ANY, (0, 0, 0.5, 5 / 7), False),
        ((0.25, 0.25, 0.75, 0.75), ANY, (0, 0, 0.5, 2 / 7), False),
        ((0, 0, 1, 1), HALF, (5 / 7, 3.25 / 7, 0, 0), False),  # 0.8 x 0.625 is half of the whole image
        ((0, 0, 1, 1), HALF, (5.1 / 7, 3.25 / 7, 0, 0), True),
    ],
)
def test_what_lies_on_a_border(box, option, numbers, accepted):
    boxes = np.array([box], np.float32)
    crop = draw_crop(Scripted(option, *numbers, NONE), boxes, np.array([1]))
    assert (crop.option, crop.tries) == ((option, 1) if accepted else (NONE, 2))


def test_the_overlap_must_hold_for_every_box():
    """Two far corners: no rectangle overlaps both by more than 0.1, so only "none" and "any" are ever accepted."""
    boxes = np.array([[0, 0, 0.1, 0.1], [0.9, 0.9, 1, 1]], np.float32)
    rng = np.random.default_rng(3)
    options = {draw_crop(rng, boxes, np.array([1, 2])).option for _ in range(300)}
    assert options == {NONE, ANY}


def test_pixels_are_truncated_and_never_empty():
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    assert Crop(0.1, 0.25, 0.5, 0.33, *empty).pixels(101, 99) == (10, 24, 60, 57)
    assert Crop(0.1, 0.1, 0.3, 0.3, *empty).pixels(1, 1) == (0, 0, 1, 1)


def test_an_image_without_boxes_is_refused():
    with pytest.raises(ValueError, match="needs a box"):
        draw_crop(np.random.default_rng(0), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


def test_colour_draws_cover_their_ranges_and_orders():
    rng = np.random.default_rng(5)
    draws = [draw_colour(rng) for _ in range(4000)]
    factors = np.stack([draw.factors for draw in draws])
    low, high = np.array(FACTOR_RANGES).T
    assert factors.dtype == np.float32
    assert ((factors >= low - 1e-6) & (factors <= high + 1e-6)).all()
    np.testing.assert_allclose(factors.min(0), low, atol=0.01)
    np.testing.assert_allclose(factors.mean(0), (low + high) / 2, atol=0.02)
    assert np.mean([draw.flip for draw in draws]) == pytest.approx(0.5, abs=0.03)
    assert len({tuple(draw.order) for draw in draws}) == 24


def test_inputs_are_left_alone():
    """The original wrote into its caller's boxes, so that an image shrank from epoch to epoch."""
    rng = np.random.default_rng(5)
    boxes, labels = np.array([[0.1, 0.1, 0.9, 0.9], [0.3, 0.3, 0.5, 0.6]], np.float32), np.array([1, 2])
    before = boxes.copy()
    crops = [draw_crop(rng, boxes, labels) for _ in range(200)]
    mirror(boxes)
    np.testing.assert_array_equal(boxes, before)
    assert any(crop.option != NONE for crop in crops)
    next(crop for crop in crops if crop.option == NONE).boxes[:] = 0
    np.testing.assert_array_equal(boxes, before)
