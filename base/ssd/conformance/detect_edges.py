"""Made inputs for `detect`: overlaps, scores and boxes at the edges of its contract, and ties.

Each function makes the positional arguments, on the CPU, always the same. Letters as in `ssd.ops`.
"""

from __future__ import annotations

from typing import Any

import torch

from ssd.boxes import NUM_DEFAULTS, DefaultBoxes, default_boxes, xywh_to_ltrb
from ssd.conformance.inputs import generator, peaks, some_defaults


def same_everywhere(classes: int) -> tuple[Any, ...]:
    """One prediction for all 8,732 default boxes: every class ties with itself everywhere, and two with each other."""
    logits = torch.linspace(1.0, 1.5, classes).view(1, classes, 1).repeat(1, 1, NUM_DEFAULTS)
    logits[:, 1] = logits[:, 2]
    return torch.zeros(1, 4, NUM_DEFAULTS), logits, default_boxes()


def broken(classes: int) -> tuple[Any, ...]:
    """Of the first of two images, some of the best boxes or scores are not finite: none is found, nor takes a place."""
    locations, logits, defaults = peaks([300, 300], classes, seed=21)
    locations[0, 0, 0:1000:3], locations[0, 2, 1000:2000:3] = float("inf"), 1e4
    locations[0, 1, 2000:3000:3], logits[0, 1, 3000:4000:3] = float("nan"), float("nan")
    logits[0, 2, 4000:4100:3] = float("inf")
    return locations, logits, defaults


def one_place(classes: int) -> tuple[Any, ...]:
    """Every box predicted at one place: one survivor a class."""
    _, logits, defaults = peaks([600], classes, seed=20)
    d = defaults.xywh.t()
    target = torch.tensor((0.5, 0.5, 0.3, 0.3)).view(4, 1)
    locations = torch.cat((10 * (target[:2] - d[:2]) / d[2:], 5 * torch.log(target[2:] / d[2:])))
    return locations[None], logits, defaults


def touching() -> tuple[Any, ...]:
    """Two boxes of one class whose overlap is 0.5 to the last bit, the limit at which the second goes; three classes.

    A third box overlaps the first by less than the limit and stays.
    """
    xywh = torch.tensor([(0.25, 0.25, 0.5, 0.5), (0.25, 0.125, 0.5, 0.25), (0.75, 0.25, 0.5, 0.5)])
    logits = torch.zeros(1, 3, 3)
    logits[0, 1], logits[0, 2] = torch.tensor((3.0, 2.0, 1.0)), torch.tensor((1.0, 1.0, 1.0))
    return torch.zeros(1, 4, 3), logits, DefaultBoxes(xywh, xywh_to_ltrb(xywh))


def near_the_limit(smallest: float, largest: float, gap: float) -> tuple[Any, ...]:
    """80 classes with two pairs of boxes each: one pair overlaps by 0.5 + gap, the other by 0.5 - gap.

    smallest, largest: sides of the boxes, at most 0.3. Whoever keeps boxes in few bits sees other overlaps than these.
    Each may be background or one class: two terms of the softmax count. Eighty equal ones, added up in a row, are all
    rounded the same way, which makes a score wrong by up to 4e-6.
    """
    draw, pair = generator(47), torch.arange(160)
    side = smallest + (largest - smallest) * torch.rand((160, 2), generator=draw)
    centre = torch.stack((0.2 + 0.4 * (pair % 2), 0.3 + 0.4 * torch.rand(160, generator=draw)), dim=1)
    overlap = 0.5 + gap * (1 - 2 * (pair % 2))
    beside = centre + torch.stack((side[:, 0] * (1 - overlap) / (1 + overlap), 0.0 * pair), dim=1)
    xywh = torch.cat((torch.cat((centre, side), 1), torch.cat((beside, side), 1)))
    logits = torch.full((1, 81, 320), -20.0)
    logits[0, 0], logits[0, 1 + torch.arange(320) // 2 % 80, torch.arange(320)] = 0.0, torch.linspace(3, 1, 320)
    return torch.zeros(1, 4, 320), logits, DefaultBoxes(xywh, xywh_to_ltrb(xywh))


def chain(count: int) -> tuple[Any, ...]:
    """Boxes in a row, each better than the next and over half of it: which ones stay is settled one after the other."""
    row = torch.arange(count)
    xywh = torch.stack((0.1 + 0.006 * row, 0.5 + 0 * row, 0.02 + 0 * row, 0.1 + 0 * row), dim=1)
    logits = torch.zeros(1, 2, count)
    logits[0, 1] = torch.linspace(4, 2, count)
    return torch.zeros(1, 4, count), logits, DefaultBoxes(xywh, xywh_to_ltrb(xywh))


def even_scores() -> tuple[Any, ...]:
    """Every other default box is undecided between background and one class: its score is 0.5 to the last bit."""
    locations, logits, defaults = torch.zeros(1, 4, 301), torch.zeros(1, 2, 301), some_defaults(301)
    logits[0, 1, ::2] = 1.0
    return locations, logits, defaults


def undecided(boxes: int, classes: int, scale: float = 1.0) -> tuple[Any, ...]:
    """Two images of default boxes that may be of any class: most of the classes have a score that counts.

    Scores are equal across classes near by and far off, and every third default box has those of the one before.
    """
    draw, place = generator(51), torch.arange(boxes)
    locations = torch.randn((2, 4, boxes), generator=draw)
    logits = (scale * 4 * torch.randn((2, classes, boxes), generator=draw)).round() / 4
    return locations, logits[:, :, place - (place % 3 == 2).long()], some_defaults(boxes)


def many_excluded(classes: int) -> tuple[Any, ...]:
    """Peaks of few default boxes. In many of these, classes are excluded: the first 16, or half of all.

    A tile of 16 classes or more has nothing but minus infinity there, the first tile or the last ones.
    """
    locations, logits, defaults = peaks([60], classes, seed=16, defaults=64)
    logits[:, :16, 2::7] = logits[:, classes // 2 :, ::7] = float("-inf")
    return locations, logits, defaults


def rising() -> tuple[Any, ...]:
    """Every default box is a candidate of one class, and each is better than the one before."""
    logits = torch.zeros(1, 2, NUM_DEFAULTS)
    logits[0, 1] = torch.linspace(-2, 4, NUM_DEFAULTS)
    return torch.zeros(1, 4, NUM_DEFAULTS), logits, default_boxes()


def several_classes() -> tuple[Any, ...]:
    """Two images of few default boxes, most of them with two or three classes over the threshold.

    Equal columns of logits repeat: scores are equal across classes and default boxes, also where 200 are enough.
    """
    columns = torch.tensor([
        (2.0, 4.0, 0.0, 4.0, 0.0, 4.0), (2.0, 3.0, 4.0, 0.0, 4.0, 0.0), (2.0, 4.0, 0.0, 0.0, 0.0, 4.0),
        (9.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ])  # fmt: skip
    which = torch.stack((torch.arange(301) % 4, torch.arange(301) // 2 % 4))
    locations = torch.randn((2, 4, 301), generator=generator(42))
    return locations, columns[which].transpose(1, 2).contiguous(), some_defaults(301)


def certain() -> tuple[Any, ...]:
    """Two images: 60 scores of exactly 1 beside excluded classes (minus infinity); logits in thousands."""
    locations, logits, defaults = peaks([40, 90], 4, seed=43, defaults=301)
    chosen = torch.randperm(301, generator=generator(44))[:60]
    logits[0, 1 + torch.arange(60) % 3, chosen] = 200.0
    logits[0, 2, 1::2].masked_fill_(logits[0, 2, 1::2] < 100, float("-inf"))
    return locations, torch.stack((logits[0], logits[1] * 1000)), defaults


def far_sizes() -> tuple[Any, ...]:
    """An image of boxes without a width, of boxes whose area is infinite, of boxes far away, and of equal ones."""
    locations, logits, defaults = peaks([64], 3, seed=45, defaults=64)
    locations[0, 2, :16], locations[0, 2:, 16:32], locations[0, 0, 32:48] = -1000.0, 250.0, 1e4
    locations[0, :, 48:] = 0.0
    return locations, logits, DefaultBoxes(*(x[[*range(48), *[50] * 16]] for x in (defaults.xywh, defaults.ltrb)))
