"""The SSD crop and the other draws of one training sample, on numbers alone: no pixel is touched here.

Knowing the rectangle before decoding, the loader resizes only that region. The rules are Liu et al. 2016 (SSD),
section 2.2, as the benchmark's reference reads them: the least overlap must hold for *every* box of the image, so about
55% of COCO's images stay whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, SupportsInt

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPTIONS", "ColourDraw", "Crop", "Random", "draw_colour", "draw_crop", "mirror"]

OPTIONS: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, -1.0)
"""None: no crop. Otherwise every box must overlap the crop by more than this (IoU); -1 always holds."""

MIN_SIDE = 0.3
MAX_ASPECT = 2.0

FACTOR_RANGES = ((0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05))
"""Brightness, contrast, saturation, hue in turns: the columns of `TrainBatch.factors`."""

_FACTOR_LOW, _FACTOR_HIGH = np.array(FACTOR_RANGES, np.float32).T


class Random(Protocol):
    """What a crop asks of its random source; numpy's Generator has it."""

    def random(self) -> float:
        """Uniform in 0..1."""
        ...

    def integers(self, high: int, /) -> SupportsInt:
        """Uniform in 0..high - 1."""
        ...


@dataclass(frozen=True)
class Crop:
    """left, top, width, height as fractions of the image, what is left of its ground truth, and how it was drawn.

    boxes (n, 4) float32 ltrb, clipped to the crop, as fractions of it; labels (n,) int64. option: index in `OPTIONS`;
    tries: options drawn until one was accepted.
    """

    left: float
    top: float
    width: float
    height: float
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    option: int = 0
    tries: int = 1

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Rectangle left, top, right, bottom in an image of that size; truncated as in the reference, never empty."""
        left, top = int(self.left * width), int(self.top * height)
        right, bottom = int((self.left + self.width) * width), int((self.top + self.height) * height)
        return left, top, max(right, left + 1), max(bottom, top + 1)


@dataclass(frozen=True)
class ColourDraw:
    """flip: mirror left to right; factors (4,) float32 and order (4,) int64 as in `TrainBatch`."""

    flip: bool
    factors: NDArray[np.float32]
    order: NDArray[np.int64]


def draw_crop(rng: Random, boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> Crop:
    """Draw options until one is accepted, one rectangle an option. boxes (n, 4) ltrb in 0..1, n >= 1; labels (n,).

    The rules, which tests/golden/crop.npz witnesses:
    1. An option of `OPTIONS` is drawn uniformly. "No crop" is accepted as it is.
    2. Width and height are drawn from 0.3..1, fractions of the image. Their ratio must be within 1/2..2. Only then are
       left and top drawn, from 0 to what lets the rectangle fit.
    3. The rectangle's IoU with every box must be above the option's least overlap.
    4. A box is kept if its centre lies inside the rectangle. At least one must be kept. A kept box is clipped to the
       rectangle and given as fractions of it.
    A rectangle that fails a rule is dropped, and the next option is drawn.

    Raises ValueError for an image without a box.
    """
    if not len(boxes):
        raise ValueError("a crop needs a box: images without one are not trained on")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    tries = 0
    while True:
        tries += 1
        option = int(rng.integers(len(OPTIONS)))
        least = OPTIONS[option]
        if least is None:
            return Crop(0.0, 0.0, 1.0, 1.0, boxes.copy(), labels.copy(), option, tries)
        width = MIN_SIDE + (1 - MIN_SIDE) * rng.random()
        height = MIN_SIDE + (1 - MIN_SIDE) * rng.random()
        if not 1 / MAX_ASPECT <= width / height <= MAX_ASPECT:
            continue
        left, top = (1 - width) * rng.random(), (1 - height) * rng.random()
        if least >= 0 and not _all_overlap(boxes, areas, left, top, width, height, least):
            continue
        kept = _centres_inside(boxes, left, top, width, height)
        if kept.any():
            inside = np.clip((boxes[kept] - (left, top, left, top)) / (width, height, width, height), 0, 1)
            return Crop(left, top, width, height, inside.astype(np.float32), labels[kept], option, tries)


def _all_overlap(
    boxes: NDArray[np.float32],
    areas: NDArray[np.float32],
    left: float,
    top: float,
    width: float,
    height: float,
    least: float,
) -> bool:
    """Whether the rectangle's IoU with every box is above `least`."""
    across = np.minimum(boxes[:, 2], left + width) - np.maximum(boxes[:, 0], left)
    down = np.minimum(boxes[:, 3], top + height) - np.maximum(boxes[:, 1], top)
    common = across.clip(0) * down.clip(0)
    return bool((common > least * (areas + width * height - common)).all())


def _centres_inside(
    boxes: NDArray[np.float32], left: float, top: float, width: float, height: float
) -> NDArray[np.bool_]:
    """(n,) bool: the box's centre lies inside the rectangle, not on its border."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return (x > left) & (x < left + width) & (y > top) & (y < top + height)


def draw_colour(rng: np.random.Generator) -> ColourDraw:
    """Mirror with probability 1/2, jitter factors within `FACTOR_RANGES`, and the order they are applied in."""
    flip = rng.random() < 0.5
    factors = _FACTOR_LOW + (_FACTOR_HIGH - _FACTOR_LOW) * rng.random(4, np.float32)
    return ColourDraw(flip, factors, rng.permutation(4))


def mirror(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes (n, 4) ltrb of the image mirrored left to right."""
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 2] = 1 - boxes[:, 2], 1 - boxes[:, 0]
    return mirrored
