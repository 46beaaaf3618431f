"""What is drawn for training samples: crop, boxes and colours. One sample by `draw_sample`, a batch by `draw_samples`.

Both give the same bits. `draw_sample` reads as the rules do (ssd.data.crop) and costs some 100 microseconds of Python a
sample, in which no other thread runs Python. `draw_samples` follows the same random numbers on arrays of all samples
of a batch. It leaves to `draw_sample` the few samples that need more tries than it makes, or one more random number
than usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.data.crop import FACTOR_RANGES, MAX_ASPECT, MIN_SIDE, OPTIONS, ColourDraw, draw_colour, draw_crop, mirror
from ssd.data.index import Index
from ssd.data.streams import LOW, Streams

__all__ = ["Drawn", "Rectangle", "Sample", "draw_colours", "draw_sample", "draw_samples"]

ROUNDS = (8, 32)
"""Tries of each round of `draw_samples`. A round takes the samples that the one before left. A try is accepted about
once in four, so the second round gets one sample in nine, and `draw_sample` one in ten thousand."""
WORDS_OF_A_TRY = 4.5
"""Words of 64 bits that a try takes at most: four sides, and half a word for the option."""
WORDS_OF_COLOURS = 8
"""Words that are read for the colours: one for the mirroring, then halves, which begin within a word or with one."""
MORE_ORDERS = 8
"""How often the second number of an order is drawn here. It is drawn once more in one case of four."""

# How numpy makes numbers of words. A fraction has the upper 53 bits of a word, or the upper 24 of a half. An option, a
# whole number below 7, is the upper half of (a half of a word) * 7 (Lemire 2019). Where the lower half is less than
# 2**32 modulo 7, numpy draws once more. A shuffle of four draws numbers up to 3, 2 and 1: the lowest bits of a half,
# and once more while they say 3 where 2 is the most.
FRACTION, SMALL_FRACTION = 2.0**-53, np.float32(2.0**-24)
HALF = np.uint64(32)

_LEAST = np.array([np.nan if least is None else least for least in OPTIONS], np.float32)
_FACTOR_LOW, _FACTOR_HIGH = np.array(FACTOR_RANGES, np.float32).T

Rectangle = tuple[int, int, int, int]
"""The part of an image that is cut out: left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Sample:
    """A training sample without its pixels.

    boxes: (n, 4) float32 ltrb as fractions of the crop, mirrored already. labels: (n,) int64. colour: the drawn
    mirroring and jitter. row: the image's row in the index.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    colour: ColourDraw
    row: int


Drawn = tuple[Sample, Rectangle]
"""A sample, and the rectangle that its pixels are cut from."""


def draw_sample(index: Index, row: int, rng: np.random.Generator) -> Drawn:
    """Draw the crop and the colours of the image in `row`. `rng` is used for the crop first and then for the colours.

    Raises ValueError for an image without a box.
    """
    width, height = index.sizes[row].tolist()
    crop = draw_crop(rng, *index.image_boxes(row))
    colour = draw_colour(rng)
    boxes = mirror(crop.boxes) if colour.flip else crop.boxes
    return Sample(boxes, crop.labels, colour, row), crop.pixels(width, height)


def draw_samples(index: Index, rows: NDArray[np.int64], streams: Streams) -> list[Drawn]:
    """Draw what `draw_sample` draws for each image of `rows` (n,) int64 and the stream of the same place, to the bit.

    Raises ValueError for an image without a box.
    """
    drawn: dict[int, Drawn] = {}
    left = np.arange(len(rows))
    for tries in ROUNDS:
        if len(left):
            settled, made = _round(index, rows[left], streams.part(left), tries)
            drawn.update(zip(left[settled].tolist(), made, strict=True))
            left = left[~settled]
    for place in left.tolist():
        drawn[place] = draw_sample(index, int(rows[place]), streams.generator(place))
    return [drawn[place] for place in range(len(rows))]


def draw_colours(streams: Streams) -> list[ColourDraw]:
    """What `draw_colour` draws from each stream, to the bit, where nothing was drawn from it before."""
    words, none = streams.words(WORDS_OF_COLOURS), np.zeros(len(streams), np.uint64)
    colours, rejected = _colours(words, np.zeros(len(streams), np.bool_), none)
    for place in np.flatnonzero(rejected).tolist():
        colours[place] = draw_colour(streams.generator(place))
    return colours


@dataclass(frozen=True)
class _Boxes:
    """The boxes of a batch, one image after the other.

    ltrb: (4, m) float32. labels: (m,) int64. owner: (m,) int64, the place of each box's image in the batch. counts,
    starts: (n,) int64, the number of boxes of each image, and where they begin.
    """

    ltrb: NDArray[np.float32]
    labels: NDArray[np.int64]
    owner: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]


@dataclass(frozen=True)
class _Tries:
    """The rectangles that t tries drew for n samples, each array (t, n).

    option: the place in `OPTIONS`. left, top, width, height: float64, fractions of the image. fits: whether the ratio
    of the sides is allowed. at: the number of words read after the try. half: the upper half of the last word that
    options were drawn from. rejected: (n,) bool, whether numpy would have drawn a whole number once more.
    """

    option: NDArray[np.int64]
    left: NDArray[np.float64]
    top: NDArray[np.float64]
    width: NDArray[np.float64]
    height: NDArray[np.float64]
    fits: NDArray[np.bool_]
    at: NDArray[np.int64]
    half: NDArray[np.uint64]
    rejected: NDArray[np.bool_]

    def rectangles(self, tries: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float64]:
        """(4, k) float64: left, top, width and height of the tries (k,) of the samples at `places` (k,)."""
        return np.stack([side[tries, places] for side in (self.left, self.top, self.width, self.height)])


def _round(
    index: Index, rows: NDArray[np.int64], streams: Streams, tries: int
) -> tuple[NDArray[np.bool_], list[Drawn]]:
    """Try `tries` rectangles for each sample. Returns which samples (n,) bool are settled, and what they drew."""
    words = streams.words(int(tries * WORDS_OF_A_TRY) + WORDS_OF_COLOURS)
    tried, boxes = _try(words, tries), _boxes_of(index, rows)
    whole = tried.option == OPTIONS.index(None)
    accepted = whole | _allowed(tried, tried.fits & ~np.logical_or.accumulate(whole, axis=0), boxes)
    settled = accepted.any(0) & ~tried.rejected
    # What follows is done for every sample: an unsettled one has the whole image, and is left out at the end.
    each = np.arange(len(rows))
    first = accepted.argmax(0)
    whole = whole[first, each] | ~settled
    rectangles = tried.rectangles(first, each)
    rectangles[:2, whole], rectangles[2:, whole] = 0, 1
    rest = words.take(tried.at[first, each][:, None] + np.arange(WORDS_OF_COLOURS) + each[:, None] * words.shape[1])
    colours, rejected = _colours(rest, first % 2 == 0, tried.half[first, each])
    settled &= ~rejected
    flips = np.array([colour.flip for colour in colours])
    cut = _cut(boxes, rectangles, whole, flips)
    pixels = _pixels(rectangles, index.sizes[rows])
    made = [
        (Sample(*truth, colour, row), (left, top, right, bottom))
        for (left, top, right, bottom), truth, colour, row, done in zip(
            pixels.tolist(), cut, colours, rows.tolist(), settled.tolist(), strict=True
        )
        if done
    ]
    return settled, made


def _boxes_of(index: Index, rows: NDArray[np.int64]) -> _Boxes:
    """The usable boxes of the images in `rows` (n,) int64. ValueError for an image without one."""
    begins = index.offsets[rows]
    counts = index.offsets[rows + 1] - begins
    owner = np.repeat(np.arange(len(rows)), counts)
    flat = np.arange(len(owner)) + (begins - counts.cumsum() + counts)[owner]
    keep = index.usable[flat]
    flat, owner = flat[keep], owner[keep]
    counts = np.bincount(owner, minlength=len(rows))
    if not counts.all():
        raise ValueError("a crop needs a box: images without one are not trained on")
    return _Boxes(
        np.ascontiguousarray(index.boxes[flat].T), index.labels[flat], owner, counts, counts.cumsum() - counts
    )


def _try(words: NDArray[np.uint64], tries: int) -> _Tries:
    """Draw `tries` options and rectangles from words (n, w) uint64, w >= 4.5 * tries. No box is looked at."""
    samples, length = words.shape
    fractions = (words >> np.uint64(11)) * FRACTION
    start = at = np.arange(samples) * length
    half, rejected = np.zeros(samples, np.uint64), np.zeros(samples, np.bool_)
    kept = []
    for turn in range(tries):
        # Every second option is drawn from the half of a word that the option before left.
        if turn % 2 == 0:
            word = words.take(at)
            at = at + 1
            drawn, half = word & LOW, word >> HALF
        else:
            drawn = half
        product = drawn * np.uint64(len(OPTIONS))
        option = (product >> HALF).astype(np.int64)
        rejected |= (product & LOW) < np.uint64(2**32 % len(OPTIONS))
        width = MIN_SIDE + (1 - MIN_SIDE) * fractions.take(at)
        height = MIN_SIDE + (1 - MIN_SIDE) * fractions.take(at + 1)
        ratio = width / height
        fits = (ratio >= 1 / MAX_ASPECT) & (ratio <= MAX_ASPECT)
        left, top = (1 - width) * fractions.take(at + 2), (1 - height) * fractions.take(at + 3)
        at = at + np.where(option == OPTIONS.index(None), 0, 2 + 2 * fits)
        kept.append((option, left, top, width, height, fits, at - start, half))
    option, left, top, width, height, fits, at, half = (np.stack(values) for values in zip(*kept, strict=True))
    return _Tries(option, left, top, width, height, fits, at, half, rejected)


def _allowed(tried: _Tries, asked: NDArray[np.bool_], boxes: _Boxes) -> NDArray[np.bool_]:
    """Which of the tries `asked` (t, n) overlap every box enough and keep one, as `draw_crop` decides: (t, n) bool."""
    allowed = np.zeros_like(asked)
    places, tries = np.nonzero(asked.T)
    if not len(places):
        return allowed
    rectangles = tried.rectangles(tries, places)
    counts = boxes.counts[places]
    starts = counts.cumsum() - counts
    of = np.repeat(np.arange(len(places)), counts)
    ltrb = boxes.ltrb[:, np.arange(len(of)) + (boxes.starts[places] - starts)[of]]
    left, top, right, bottom = ltrb
    # `draw_crop` computes a rectangle in float64, and compares it with boxes in their float32.
    width, height = rectangles[2:]
    corners = np.concatenate([rectangles[:2], rectangles[:2] + rectangles[2:]]).astype(np.float32)[:, of]
    across = np.minimum(right, corners[2]) - np.maximum(left, corners[0])
    down = np.minimum(bottom, corners[3]) - np.maximum(top, corners[1])
    common = across.clip(0) * down.clip(0)
    areas = (right - left) * (bottom - top) + (width * height).astype(np.float32)[of]
    least = _LEAST[tried.option[tries, places]][of]
    overlaps = (least < 0) | (common > least * (areas - common))
    allowed[tries, places] = np.logical_and.reduceat(overlaps, starts)
    allowed[tries, places] &= np.logical_or.reduceat(_centres_inside(ltrb, corners), starts)
    return allowed


def _centres_inside(ltrb: NDArray[np.float32], corners: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the centre of each box (4, m) lies inside its rectangle (4, m), both ltrb, and not on its border."""
    x, y = (ltrb[0] + ltrb[2]) / 2, (ltrb[1] + ltrb[3]) / 2
    return (x > corners[0]) & (x < corners[2]) & (y > corners[1]) & (y < corners[3])


def _cut(
    boxes: _Boxes, rectangles: NDArray[np.float64], whole: NDArray[np.bool_], flips: NDArray[np.bool_]
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Each sample's boxes, clipped to its rectangle (4, n) and mirrored where it `flips` (n,) bool; and their labels.

    whole: (n,) bool, the samples that keep all their boxes as they are.
    """
    corners = np.concatenate([rectangles[:2], rectangles[:2] + rectangles[2:]]).astype(np.float32)
    kept = _centres_inside(boxes.ltrb, corners[:, boxes.owner]) | whole[boxes.owner]
    owner = boxes.owner[kept]
    before = boxes.ltrb[:, kept].T
    shift, scale = (np.concatenate([pair, pair]).T[owner] for pair in (rectangles[:2], rectangles[2:]))
    cut = np.clip((before - shift) / scale, 0, 1).astype(np.float32)
    cut = np.where(whole[owner, None], before, cut)
    cut = np.where(flips[owner, None], np.stack([1 - cut[:, 2], cut[:, 1], 1 - cut[:, 0], cut[:, 3]], 1), cut)
    labels, ends = boxes.labels[kept], np.bincount(owner, minlength=len(whole)).cumsum().tolist()
    return [(cut[start:end], labels[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _pixels(rectangles: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """`Crop.pixels` of rectangles (4, n) in images of sizes (n, 2), width and height: (n, 4) int64."""
    near, far = (corners.T * sizes for corners in (rectangles[:2], rectangles[:2] + rectangles[2:]))
    near, far = near.astype(np.int64), far.astype(np.int64)
    return np.concatenate([near, np.maximum(far, near + 1)], 1)


def _colours(
    words: NDArray[np.uint64], has_half: NDArray[np.bool_], half: NDArray[np.uint64]
) -> tuple[list[ColourDraw], NDArray[np.bool_]]:
    """Mirroring, factors and order of words (n, 8) uint64, and whether numpy would read more words (n,) bool.

    has_half: (n,) bool, whether `half` (n,), of a word before these, is still to be read.
    """
    flips = (words[:, 0] >> np.uint64(11)) * FRACTION < 0.5
    halves = np.empty((len(words), 2 * WORDS_OF_COLOURS - 1), np.uint64)
    halves[:, 0], halves[:, 1::2], halves[:, 2::2] = half, words[:, 1:] & LOW, words[:, 1:] >> HALF
    read = np.where(has_half[:, None], halves[:, :-1], halves[:, 1:])
    fractions = (read[:, :4] >> np.uint64(8)).astype(np.float32) * SMALL_FRACTION
    factors = _FACTOR_LOW + (_FACTOR_HIGH - _FACTOR_LOW) * fractions
    each = np.arange(len(words))
    seconds = read[:, 5 : 5 + MORE_ORDERS] & np.uint64(3)
    fits = seconds < 3
    again = fits.argmax(1)
    numbers = read[:, 4] & np.uint64(3), seconds[each, again], read[each, 6 + again] & np.uint64(1)
    orders = np.tile(np.arange(4), (len(words), 1))
    for place, other in zip((3, 2, 1), numbers, strict=True):
        orders[each, place], orders[each, other] = orders[each, other], orders[:, place].copy()
    return [ColourDraw(*one) for one in zip(flips.tolist(), factors, orders, strict=True)], ~fits.any(1)
