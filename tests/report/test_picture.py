"""Pictures: boxes stand where they are, best on top, and an untrained network's huge boxes cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ssd.report.picture import COLOURS, LEGEND_LINE, Box, contact_sheet, detected, draw_boxes, truth

BLACK = Image.new("RGB", (100, 80))


def test_a_box_is_outlined_where_it_is() -> None:
    pixels = np.asarray(draw_boxes(BLACK, [Box((10, 20, 40, 60), colour="#ff0000")]))
    rows, columns = np.nonzero(pixels[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 60, 10, 40)
    assert not pixels[40, 25].any()
    assert not np.asarray(BLACK).any(), "the caller's image is left alone"


def test_scale() -> None:
    pixels = np.asarray(draw_boxes(BLACK, [Box((20, 40, 80, 120))], scale=(0.5, 0.5)))
    rows, columns = np.nonzero(pixels[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 60, 10, 40)


def test_boxes_beyond_all_bounds() -> None:
    boxes = [Box((-1e9, -1e9, 1e9, 1e9), "huge")] * 200 + [Box((50, 50, 40, 40))]
    assert draw_boxes(BLACK, boxes).size == (100, 80)


def test_detections_are_named_coloured_by_category_and_best_is_last() -> None:
    rows = np.array([[1, 10, 10, 20, 30, 0.9, 7], [1, 0, 0, 5, 5, 0.1, 3], [1, 1, 2, 3, 4, 0.5, 3]])
    boxes = detected(rows, {3: "cat", 7: "dog"}, score=0.3)
    assert [box.text for box in boxes] == ["cat 0.50", "dog 0.90"]
    assert [box.colour for box in boxes] == [COLOURS[0], COLOURS[1]]
    assert boxes[1].ltrb == (10, 10, 30, 40)
    assert truth([{"bbox": [1, 2, 3, 4]}])[0].ltrb == (1, 2, 4, 6)


def test_a_sheet_holds_every_tile() -> None:
    tiles = [Image.new("RGB", (30, 20), (n + 1, 0, 0)) for n in range(5)]
    sheet = np.asarray(contact_sheet(tiles, columns=2))
    assert sheet.shape == (60, 60, 3)
    assert [int(sheet[row * 20, column * 30, 0]) for row in range(3) for column in range(2)] == [1, 2, 3, 4, 5, 0]
    with_legend = np.asarray(contact_sheet(tiles, columns=2, legend="white: one thing\ncolour: another"))
    assert with_legend.shape == (60 + 2 * LEGEND_LINE, 60, 3)
    assert (with_legend[2 * LEGEND_LINE :] == sheet).all()
    assert with_legend[0, 0].tolist() == [255, 255, 255]
    assert (with_legend[: 2 * LEGEND_LINE] < 128).any(), "its words"


@pytest.mark.parametrize("seed", range(5))
def test_no_label_covers_another_or_leaves_the_picture(seed: int) -> None:
    """Boxes of many sizes, some equal, some beyond the edges: each label's rectangle is seen whole."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-20, 300, (25, 2))
    boxes = [
        Box((x, y, x + w, y + h), f"class {n} 0.{n:02d}", f"#{n + 1:02x}ff{n + 1:02x}", 3)
        for n, ((x, y), (w, h)) in enumerate(zip(corners, rng.uniform(5, 200, (25, 2)), strict=True))
    ]
    boxes += [boxes[3]] * 3
    places: list = []
    original = ImageDraw.ImageDraw.rectangle

    def rectangle(pen: ImageDraw.ImageDraw, place: tuple, **drawn: object) -> None:
        if "outline" not in drawn:
            places.append(place)
        original(pen, place, **drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "rectangle", rectangle)
        draw_boxes(Image.new("RGB", (320, 240)), boxes)
    assert len(places) > 15
    for number, (left, top, right, bottom) in enumerate(places):
        assert 0 <= left < right <= 320
        assert 0 <= top < bottom <= 240
        for a, b, c, d in places[:number]:
            assert right < a or c < left or bottom < b or d < top


def test_the_best_of_two_boxes_has_the_first_place_and_a_label_without_room_is_left_out() -> None:
    boxes = [Box((20, 20, 90, 40), "worse"), Box((20, 20, 90, 40), "best", "#ff0000")]
    pixels = np.asarray(draw_boxes(BLACK, boxes))
    assert pixels[23, 23].tolist() == [255, 0, 0]
    crowd = [Box((0, 0, 100, 80), f"label {n}", "#00ff00") for n in range(100)]
    assert draw_boxes(BLACK, crowd).size == BLACK.size
