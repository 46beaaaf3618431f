"""A batch that is drawn at once: for every sample the bits that are drawn one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ssd.data import draws
from ssd.data.annotations import index_of, parse_annotations
from ssd.data.crop import ColourDraw, draw_colour, draw_crop
from ssd.data.draws import Drawn, draw_colours, draw_sample, draw_samples
from ssd.data.index import Index
from ssd.data.sampler import Sampler
from ssd.data.streams import Streams


@pytest.fixture(scope="module")
def index(golden: Path) -> Index:
    return parse_annotations(golden / "instances_train2017.json")


def same(one: Drawn, other: Drawn) -> bool:
    """Whether two samples have the same bits, of the same types."""
    (sample, rectangle), (expected, other_rectangle) = one, other
    arrays = [(getattr(sample, name), getattr(expected, name)) for name in ("boxes", "labels")]
    return (
        rectangle == other_rectangle
        and (sample.row, type(sample.row)) == (expected.row, int)
        and all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in arrays)
        and same_colour(sample.colour, expected.colour)
    )


def same_colour(one: ColourDraw, other: ColourDraw) -> bool:
    arrays = (one.factors, other.factors), (one.order, other.order)
    equal = all((a.dtype, a.tobytes()) == (b.dtype, b.tobytes()) for a, b in arrays)
    return equal and (one.flip, type(one.flip)) == (other.flip, bool)


def one_by_one(index: Index, rows: NDArray[np.int64], streams: Streams) -> list[Drawn]:
    return [draw_sample(index, int(row), streams.generator(place)) for place, row in enumerate(rows)]


def all_same(drawn: Sequence[Drawn], expected: Sequence[Drawn]) -> bool:
    return all(same(*pair) for pair in zip(drawn, expected, strict=True))


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1])
def test_a_batch_is_drawn_as_its_samples_are(index: Index, seed: int) -> None:
    """Images with 1 to 30 boxes, among them crowded ones that need many tries."""
    with_boxes, positions = index.with_boxes(), np.arange(1000, 1600)
    sampler = Sampler(len(with_boxes), 600, seed)
    rows = with_boxes[positions % len(with_boxes)]
    drawn = draw_samples(index, rows, sampler.streams(3, positions))
    expected = [
        draw_sample(index, int(row), sampler.stream(3, int(at))) for row, at in zip(rows, positions, strict=True)
    ]
    assert all_same(drawn, expected)
    kept = [len(sample.boxes) for sample, _ in drawn]
    assert min(kept) == 1
    assert max(kept) > 10


def test_a_sample_does_not_depend_on_its_batch(index: Index) -> None:
    rows = index.with_boxes()
    whole = draw_samples(index, rows, Streams((2, 1, 1), np.arange(len(rows))))
    parts = [
        draw_samples(index, rows[at : at + 5], Streams((2, 1, 1), np.arange(len(rows))[at : at + 5]))
        for at in range(0, len(rows), 5)
    ]
    assert all_same([one for part in parts for one in part], whole)


@pytest.mark.parametrize("rounds", [(), (1,), (2, 3)])
def test_what_a_round_leaves_is_drawn_in_the_next_and_at_last_one_by_one(
    index: Index, monkeypatch: pytest.MonkeyPatch, rounds: tuple[int, ...]
) -> None:
    rows = np.tile(index.with_boxes(), 3)
    streams, left = Streams((2, 4, 1), np.arange(len(rows))), []
    monkeypatch.setattr(draws, "ROUNDS", rounds)
    monkeypatch.setattr(draws, "draw_sample", lambda *a: left.append(1) or draw_sample(*a))
    drawn = draw_samples(index, rows, streams)
    assert all_same(drawn, one_by_one(index, rows, streams))
    crops = [draw_crop(streams.generator(place), *index.image_boxes(row)) for place, row in enumerate(rows)]
    assert len(left) == sum(crop.tries > max(rounds, default=0) for crop in crops) > 0


class Words(Streams):
    """Streams whose words are given, for what numpy draws once in a thousand million samples."""

    given: NDArray[np.uint64]

    def part(self, places: NDArray[np.int64]) -> Streams:
        made = Words(self.prefix, self.last[places])
        made.given = self.given[places]
        return made

    def words(self, count: int) -> NDArray[np.uint64]:
        return self.given[:, :count].copy()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0, 0),  # the option is drawn from a half that numpy rejects: 0 * 7 is below 2**32 modulo 7
        (slice(2, None), 2**64 - 1),  # the order's second number is always 3, where 2 is the most
    ],
)
def test_numbers_that_numpy_would_draw_once_more_are_left_to_it(index: Index, word: int | slice, value: int) -> None:
    rows = index.with_boxes()[:6]
    streams = Words((2, 9, 1), np.arange(6))
    streams.given = Streams((2, 9, 1), np.arange(6)).words(200)
    streams.given[2, 0] = 1000 * 2**32 + 1000  # "no crop" twice, so the colours follow
    streams.given[2, word] = value
    drawn, expected = draw_samples(index, rows, streams), one_by_one(index, rows, streams)
    assert all_same(drawn, expected)  # sample 2 comes from the generator, which knows nothing of the words given


@pytest.mark.parametrize(
    ("box", "option", "numbers", "accepted"),
    [
        # The crops of tests/data/test_crop.py whose sides, centre or overlap lie on a border
        ((0.25, 0.25, 0.5, 0.5), 6, (3 / 7, 0, 0.5, 0.5), (200, 350, 800, 650)),
        ((0.25, 0.25, 0.5, 0.5), 6, (0, 3 / 7, 0.5, 0.5), (350, 200, 650, 800)),
        ((0.25, 0.25, 0.5, 0.5), 6, (0, 0, 5 / 7, 0.5), None),
        ((0.25, 0.25, 0.5, 0.5), 6, (0, 0, 2 / 7, 0.5), None),
        ((0.25, 0.25, 0.5, 0.5), 6, (0, 0, 0.5, 5 / 7), None),
        ((0.25, 0.25, 0.5, 0.5), 6, (0, 0, 0.5, 2 / 7), None),
        ((0, 0, 1, 1), 3, (5 / 7, 3.25 / 7, 0, 0), None),
        ((0, 0, 1, 1), 3, (5.1 / 7, 3.25 / 7, 0, 0), (0, 0, 810, 625)),
    ],
)
def test_what_lies_on_a_border(
    box: tuple[float, ...], option: int, numbers: tuple[float, ...], accepted: tuple[int, ...] | None
) -> None:
    """What is not accepted is followed by the option "no crop"."""
    index = one_image(1000, [1000 * side for side in box])
    streams = Words((2, 9, 1), np.arange(1))
    streams.given = np.full((1, 400), 1000 * 2**32 + 1000, np.uint64)  # each half is the option "no crop"
    streams.given[0, 0] += option * 2**32 // 7
    streams.given[0, 1:5] = [round(number * 2**53) << 11 for number in numbers]
    ((_, rectangle),) = draw_samples(index, np.zeros(1, np.int64), streams)
    assert rectangle == pytest.approx(accepted or (0, 0, 1000, 1000), abs=1)


@pytest.mark.parametrize(("word", "flip"), [(2**63, False), (2**63 - 2**11, True)])
def test_half_of_the_images_are_mirrored(word: int, flip: bool) -> None:
    """A fraction below 0.5 mirrors; 2**63 is 0.5, and the word before it the largest fraction below."""
    streams = Words((2, 9, 1), np.arange(1))
    streams.given = np.full((1, 20), 2**62, np.uint64)
    streams.given[0, 0] = word
    (colour,) = draw_colours(streams)
    assert colour.flip is flip


def test_a_rectangle_of_one_pixel_is_never_empty() -> None:
    index, rows = one_image(1, [0, 0, 1, 1]), np.zeros(40, np.int64)
    streams = Streams((2, 5, 1), np.arange(40))
    drawn = draw_samples(index, rows, streams)
    assert all_same(drawn, one_by_one(index, rows, streams))
    assert {rectangle for _, rectangle in drawn} == {(0, 0, 1, 1)}


def test_an_order_that_takes_more_words_is_left_to_numpy() -> None:
    streams = Words((2, 9, 1), np.arange(3))
    streams.given = Streams((2, 9, 1), np.arange(3)).words(20)
    streams.given[1, 1:] = 2**64 - 1
    for place, colour in enumerate(draw_colours(streams)):
        assert same_colour(colour, draw_colour(streams.generator(place)))


def test_colours_alone() -> None:
    streams = Streams((2, 6, 1), np.arange(500))
    for place, colour in enumerate(draw_colours(streams)):
        assert same_colour(colour, draw_colour(streams.generator(place)))


def one_image(side: int, box: Sequence[float]) -> Index:
    """An image of side x side pixels with one box: left, top, width and height in pixels."""
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": side, "height": side}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": list(box), "area": 1, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "class"}],
    }
    return index_of(content, "made here")


def test_a_crowd_that_no_crop_but_two_kinds_fits() -> None:
    """Boxes in all corners: a hundred tries are common, and boxes without a size are not among them."""
    corners = [[0, 0, 5, 5], [95, 0, 5, 5], [0, 95, 5, 5], [95, 95, 5, 5], [50, 50, 0, 0]]
    boxes = [
        {"id": at, "image_id": 1, "category_id": 1 + at % 3, "bbox": box, "area": 25, "iscrowd": 0}
        for at, box in enumerate(corners)
    ]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 100}],
        "annotations": boxes,
        "categories": [{"id": at, "name": f"class {at}"} for at in (1, 2, 3)],
    }
    index = index_of(content, "made here")
    rows, streams = np.zeros(400, np.int64), Streams((2, 8, 1), np.arange(400))
    drawn = draw_samples(index, rows, streams)
    assert all_same(drawn, one_by_one(index, rows, streams))
    assert max(len(sample.labels) for sample, _ in drawn) == 4


def test_an_image_without_a_usable_box_is_refused(index: Index) -> None:
    rows = np.arange(len(index))
    assert len(rows) > len(index.with_boxes())
    with pytest.raises(ValueError, match="needs a box"):
        draw_samples(index, rows, Streams((2,), rows))
