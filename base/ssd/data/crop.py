"""The random crop of SSD, and the other random numbers of one training sample. No pixel is touched here.

The loader knows the rectangle before it decodes an image, so it resizes only that region. The rules are those of Liu et
al. 2016 (SSD), section 2.2, as the benchmark's reference interprets them: the least overlap must hold for *every* box
of the image. As a result about 55% of COCO's images are not cropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, SupportsInt

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPTIONS", "ColourDraw", "Crop", "Random", "draw_colour", "draw_crop", "mirror"]

OPTIONS: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, -1.0)
"""None means no crop. Otherwise the IoU of the crop with every box must be more than this number; -1 always holds."""

MIN_SIDE = 0.3
"""Least width and height of a crop, as fractions of the image."""
MAX_ASPECT = 2.0
"""Largest ratio of a crop's longer to its shorter side, both as fractions of the image."""

FACTOR_RANGES = ((0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05))
"""Ranges of brightness, contrast, saturation, and hue in turns. They are the columns of `TrainBatch.factors`."""

_FACTOR_LOW, _FACTOR_HIGH = np.array(FACTOR_RANGES, np.float32).T


class Random(Protocol):
    """The random numbers that a crop needs. numpy's Generator has these methods."""

    def random(self) -> float:
        """A number that is uniform in 0..1."""
        ...

    def integers(self, high: int, /) -> SupportsInt:
        """A whole number that is uniform in 0..high - 1."""
        ...


@dataclass(frozen=True)
class Crop:
    """A crop: its rectangle, the boxes that are left, and how it was drawn.

    left, top, width, height: fractions of the image. boxes: (n, 4) float32 ltrb, clipped to the crop, as fractions of
    the crop. labels: (n,) int64. option: the index in `OPTIONS`. tries: the number of options drawn, this one included.
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
        """The rectangle left, top, right, bottom in an image of `width` x `height` pixels.

        Numbers are truncated, as in the benchmark's reference. The rectangle is never empty.
        """
        left, top = int(self.left * width), int(self.top * height)
        right, bottom = int((self.left + self.width) * width), int((self.top + self.height) * height)
        return left, top, max(right, left + 1), max(bottom, top + 1)


@dataclass(frozen=True)
class ColourDraw:
    """The mirroring and colour jitter of one sample. flip: whether to mirror left to right.

    factors: (4,) float32. order: (4,) int64. Both are one row of `ssd.ops.augment.ColourDraws`.
    """

    flip: bool
    factors: NDArray[np.float32]
    order: NDArray[np.int64]


def draw_crop(rng: Random, boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> Crop:
    """Draw a crop of an image with boxes (n, 4) float32 ltrb in 0..1 and labels (n,) int64, n >= 1.

    The rules are those of the original; tests/golden/crop.npz holds its results.
    1. An option of `OPTIONS` is drawn uniformly. The option "no crop" is accepted as it is.
    2. Width and height of a rectangle are drawn from 0.3..1, as fractions of the image. Their ratio must be within
       1/2..2. Only then left and top are drawn, from the range in which the rectangle lies inside the image.
    3. The rectangle's IoU with every box must be above the option's least overlap.
    4. A box is kept if its centre lies inside the rectangle. At least one box must be kept. A kept box is clipped to
       the rectangle and given as fractions of it.
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
    """Whether the rectangle's IoU with every box (n, 4) ltrb is above `least`. areas: (n,), those of the boxes."""
    across = np.minimum(boxes[:, 2], left + width) - np.maximum(boxes[:, 0], left)
    down = np.minimum(boxes[:, 3], top + height) - np.maximum(boxes[:, 1], top)
    common = across.clip(0) * down.clip(0)
    return bool((common > least * (areas + width * height - common)).all())


def _centres_inside(
    boxes: NDArray[np.float32], left: float, top: float, width: float, height: float
) -> NDArray[np.bool_]:
    """Whether the centre of each box (n, 4) ltrb lies inside the rectangle and not on its border, (n,) bool."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return (x > left) & (x < left + width) & (y > top) & (y < top + height)


def draw_colour(rng: np.random.Generator) -> ColourDraw:
    """Draw the mirroring (probability 1/2), the jitter's factors within `FACTOR_RANGES`, and their order."""
    flip = rng.random() < 0.5
    factors = _FACTOR_LOW + (_FACTOR_HIGH - _FACTOR_LOW) * rng.random(4, np.float32)
    return ColourDraw(flip, factors, rng.permutation(4))


def mirror(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The boxes (n, 4) float32 ltrb of an image after it is mirrored left to right. Returns a copy."""
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 2] = 1 - boxes[:, 2], 1 - boxes[:, 0]
    return mirrored
