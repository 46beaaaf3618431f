"""Pictures: boxes stand where they are, best on top, and an untrained network's huge boxes cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ssd.report.picture import (
    COLOURS,
    LEGEND_LINE,
    Box,
    _covers_any,
    _label_places,
    contact_sheet,
    detected,
    draw_boxes,
    truth,
)

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


def test_an_edge_beyond_the_image_is_not_drawn_on_it() -> None:
    """Only the right edge of the first box, and only the left edge of the second, are inside of the image."""
    for box, column in (((-50, -50, 95, 1e9), 95), ((4, -1e9, 150, 130), 4)):
        pixels = np.asarray(draw_boxes(BLACK, [Box(box, colour="#ff0000")]))[..., 0]
        assert np.flatnonzero(pixels.any(0)).tolist() == [column]
        assert pixels[:, column].all()


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
    dark = (with_legend[: 2 * LEGEND_LINE] < 128).any((1, 2))
    assert dark[:LEGEND_LINE].any(), "the first line's words"
    assert dark[LEGEND_LINE:].any(), "those of the second"
    assert not dark[[0, 1, -1]].any(), "and nothing is cut off above or below"


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


def label_places(box: tuple, label: tuple, image: tuple = (200, 100)) -> list[tuple]:
    return list(_label_places(box, label, image))


def test_where_a_label_may_stand() -> None:
    """A box from (50, 30) to (150, 80), a label of 20 x 10: corners, above, below, each 11 pixels of its edge."""
    assert label_places((50, 30, 150, 80), (20, 10)) == [
        (52, 32, 72, 42),
        (52, 68, 72, 78),
        (128, 32, 148, 42),
        (128, 68, 148, 78),
        (50, 19, 70, 29),
        (50, 81, 70, 91),
        (52, 43, 72, 53),
        (52, 54, 72, 64),
        (52, 65, 72, 75),
    ]


def test_a_label_stays_inside_of_the_image() -> None:
    """The box reaches out of all edges; eight labels lie down its left edge."""
    found = label_places((-10, -10, 210, 110), (20, 10))
    assert found[:6] == [
        (0, 0, 20, 10),
        (0, 89, 20, 99),
        (179, 0, 199, 10),
        (179, 89, 199, 99),
        (0, 0, 20, 10),
        (0, 89, 20, 99),
    ]
    assert found[6:] == [(0, top, 20, top + 10) for top in (13, 24, 35, 46, 57, 68, 79, 89)]
    assert label_places((0, 0, 9, 9), (300, 200))[0] == (0, 0, 300, 200), "a label larger than the image"


def test_places_that_touch_cover_each_other() -> None:
    one = (10.0, 10.0, 20.0, 20.0)
    assert _covers_any((20, 20, 30, 30), [(90, 90, 99, 99), one])
    assert _covers_any((0, 0, 10, 10), [one])
    assert not _covers_any((20.1, 10, 30, 20), [one])
    assert not _covers_any((0, 10, 9.9, 20), [one])
    assert not _covers_any((10, 20.1, 20, 30), [one])
    assert not _covers_any((10, 0, 20, 9.9), [one])
    assert not _covers_any(one, [])


def test_a_label_is_as_large_as_its_text_and_a_pixel_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A font whose text begins at (1, 3) and ends at (21, 13) needs 22 x 12 pixels, and begins one further in."""
    drawn: list[tuple] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "textbbox", lambda pen, place, text: (1, 3, 21, 13))
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, place, text, fill: drawn.append((place, text)))
    pixels = np.asarray(draw_boxes(BLACK, [Box((10, 20, 80, 70), "cat", "#00ff00")]))
    assert drawn == [((12, 20), "cat")]  # (10 + 2) + 1 - 1, (20 + 2) + 1 - 3
    assert pixels[22:35, 12:35, 1].all()
    assert not pixels[35, 12:35].any()
    assert not pixels[22:35, 35].any()


def test_colours_begin_again_and_a_score_at_the_bound_is_drawn() -> None:
    names = {n: f"c{n}" for n in range(12)}
    rows = np.array([[1, 0, 0, 5, 5, 0.3 + 0.01 * n, n] for n in range(12)])
    boxes = detected(rows, names, 0.3)
    assert len(boxes) == 12
    assert [box.colour for box in boxes] == [*COLOURS, *COLOURS[:2]]
    assert {box.outline for box in boxes} == {3}
    assert truth([{"bbox": [1, 2, 3, 4], "name": "cat"}]) == [Box((1, 2, 4, 6), "cat")]


def test_a_sheet_is_no_wider_than_its_tiles() -> None:
    tiles = [Image.new("RGB", (30, 20), (n + 1, 0, 0)) for n in range(3)]
    assert contact_sheet(tiles[:2]).size == (60, 20)
    assert contact_sheet(tiles, columns=3).size == (90, 20)
    sheet = np.asarray(contact_sheet(tiles, columns=2, legend="x"))
    assert sheet.shape == (40 + LEGEND_LINE, 60, 3)
    assert sheet[LEGEND_LINE - 1, 59].tolist() == [255, 255, 255]
    assert [int(sheet[LEGEND_LINE, 0, 0]), int(sheet[LEGEND_LINE + 20, 0, 0])] == [1, 3]
