"""Made inputs: the edges and the ties of the contracts.

Each function makes the positional arguments of one op, on the CPU, always the same. Letters as in `ssd.ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from ssd.boxes import NUM_DEFAULTS, DefaultBoxes, default_boxes, iou, xywh_to_ltrb
from ssd.conformance.inputs import generator, images, peaks, predictions, some_defaults, truth
from ssd.ops.augment import ColourDraws


def extremes() -> tuple[Tensor, ColourDraws]:
    """Three images (3, 300, 300, 3) uint8 with jitter far beyond what a run draws.

    Factors are 0 or very large, the hue makes half a turn, and contrast comes first or last.
    """
    pixels, _ = images(3, seed=1)
    factors = torch.tensor([(0.0, 2.0, 0.0, 0.5), (3.0, 0.0, 3.0, -0.5), (1.0, 1.0, 1.0, 0.0)])
    order = torch.tensor([(1, 0, 2, 3), (3, 2, 0, 1), (2, 3, 1, 0)])
    return pixels, ColourDraws(torch.tensor((False, True, True)), factors, order)


def these(*boxes: tuple[float, ...]) -> tuple[Any, ...]:
    """Boxes of one image, labelled 1, 2, 3, ..."""
    return torch.tensor([boxes]).view(1, len(boxes), 4), torch.arange(1, len(boxes) + 1)[None], default_boxes()


def boxes_of_padding() -> tuple[Any, ...]:
    """Two images whose padding has boxes too: only the label says that it is none."""
    boxes, labels, defaults = truth(2, 9, seed=7)
    return torch.where(labels.unsqueeze(2) > 0, boxes, boxes.new_tensor((0.2, 0.3, 0.7, 0.9))), labels, defaults


def claims() -> tuple[Any, ...]:
    """Ties in both directions: equal boxes, boxes between two default boxes, several that want one default box."""
    d = default_boxes().ltrb
    between = (d[3000] + d[3001]) / 2
    rows = [d[3000], d[3000], between, between, d[8731], d[8731], d[8731], torch.tensor((0.0, 0.0, 1.0, 1.0))]
    return these(*(tuple(row.tolist()) for row in rows))


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


def two_scores(positives: int, high: int, logit: float = 2.0) -> tuple[Any, ...]:
    """One image whose negatives have two cross-entropies: `high` of them the larger one, spread over all boxes."""
    locations, logits, offsets, labels = predictions([positives], 3, seed=11)
    logits = torch.zeros_like(logits)
    logits[0, 1, torch.randperm(NUM_DEFAULTS, generator=generator(12))[:high]] = logit
    return locations, logits, offsets, labels


def between_defaults() -> tuple[Any, ...]:
    """Boxes as far from one default box as from the next in its row, column or shape; each of them twice."""
    d = default_boxes().ltrb
    pairs = ((100, 101), (1000, 1038), (5776, 5777), (8000, 8001), (8728, 8731))
    boxes = [((d[a] + d[b]) / 2).tolist() for a, b in pairs for _ in range(2)]
    return these(*(tuple(box) for box in boxes))


def touching() -> tuple[Any, ...]:
    """Two boxes of one class whose overlap is 0.5 to the last bit, the limit at which the second goes; three classes.

    A third box overlaps the first by less than the limit and stays.
    """
    xywh = torch.tensor([(0.25, 0.25, 0.5, 0.5), (0.25, 0.125, 0.5, 0.25), (0.75, 0.25, 0.5, 0.5)])
    half = xywh[:, 2:] / 2
    defaults = DefaultBoxes(xywh, torch.cat((xywh[:, :2] - half, xywh[:, :2] + half), dim=1))
    logits = torch.zeros(1, 3, 3)
    logits[0, 1], logits[0, 2] = torch.tensor((3.0, 2.0, 1.0)), torch.tensor((1.0, 1.0, 1.0))
    return torch.zeros(1, 4, 3), logits, defaults


def far_logits() -> tuple[Any, ...]:
    """Two images of few default boxes: one has logits of -inf in classes that are no target, one in thousands."""
    locations, logits, offsets, labels = predictions([9, 14], 5, seed=22, defaults=301)
    labels = torch.where(labels > 2, 1, labels)
    logits[0, 3:, ::2], logits[1] = float("-inf"), logits[1] * 3000
    return locations, logits, offsets, labels


def far_locations() -> tuple[Any, ...]:
    """Two images of few default boxes whose locations are up to hundreds from their targets, as a tiny box's are."""
    locations, logits, offsets, labels = predictions([60, 14], 5, seed=23, defaults=301)
    return locations * 100, logits, offsets, labels


def overlap_of_a_default(truth: Tensor) -> float:
    """An overlap that a ground truth, (4,) float32, has with some default box, not the one that it overlaps most."""
    overlaps = iou(truth[None], default_boxes().ltrb)[0].sort().values
    return float(overlaps[-20])


def chain(count: int) -> tuple[Any, ...]:
    """Boxes in a row, each better than the next and over half of it: which ones stay is settled one after the other."""
    row = torch.arange(count)
    xywh = torch.stack((0.1 + 0.006 * row, 0.5 + 0 * row, 0.02 + 0 * row, 0.1 + 0 * row), dim=1)
    half = xywh[:, 2:] / 2
    defaults = DefaultBoxes(xywh, torch.cat((xywh[:, :2] - half, xywh[:, :2] + half), dim=1))
    logits = torch.zeros(1, 2, count)
    logits[0, 1] = torch.linspace(4, 2, count)
    return torch.zeros(1, 4, count), logits, defaults


def even_scores() -> tuple[Any, ...]:
    """Every other default box is undecided between background and one class: its score is 0.5 to the last bit."""
    locations, logits, defaults = torch.zeros(1, 4, 301), torch.zeros(1, 2, 301), some_defaults(301)
    logits[0, 1, ::2] = 1.0
    return locations, logits, defaults


# --- augment ----------------------------------------------------------------------------------------------------------


def every_order() -> tuple[Tensor, ColourDraws]:
    """24 images (24, 6, 7, 3) uint8, each with another order of the four operations."""
    pixels, draws = images(24, seed=31, height=6, width=7)
    return pixels, ColourDraws(draws.flip, draws.factors, torch.tensor([*permutations(range(4))]))


def plain_colours() -> tuple[Tensor, ColourDraws]:
    """Images of one colour each (6, 4, 5, 3) uint8: black, white, and where two or three channels are equal."""
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 255), (1, 1, 2), (128, 128, 128)]
    _, draws = images(6, seed=32, height=4, width=5)
    return torch.tensor(colours, dtype=torch.uint8).view(6, 1, 1, 3).repeat(1, 4, 5, 1), draws


def hues_in_sixths() -> tuple[Tensor, ColourDraws]:
    """Pure colours (7, 6, 5, 3) uint8 whose hue is turned by whole sixths, from one bound to the other."""
    pixels, draws = images(7, seed=33, height=6, width=5)
    turns = torch.tensor([-3, -2, -1, 0, 1, 2, 3]) / 6
    factors = torch.cat((torch.ones(7, 3), turns.unsqueeze(1)), dim=1)
    return torch.where(pixels > 127, 255, 0).to(torch.uint8), ColourDraws(draws.flip, factors, draws.order)


# --- encode -----------------------------------------------------------------------------------------------------------


def beyond_the_image() -> tuple[Any, ...]:
    """Boxes that reach beyond the image, and two that overlap no default box at all: both want the first of them."""
    inside = (0.2, 0.3, 0.5, 0.9)
    return these((-0.2, 0.1, 0.3, 0.4), (2.0, 2.0, 2.5, 2.6), (-3.0, -3.0, -2.0, -2.5), (0.9, 0.9, 1.4, 1.2), inside)


def at_the_borders() -> tuple[Any, ...]:
    """Boxes in the corners and of the whole image, and the first and the last default box themselves."""
    d = default_boxes().ltrb
    corners = (0.0, 0.0, 0.1, 0.1), (0.9, 0.0, 1.0, 0.1), (0.0, 0.85, 0.2, 1.0), (0.9, 0.9, 1.0, 1.0)
    return these(*corners, (0.0, 0.0, 1.0, 1.0), tuple(d[0].tolist()), tuple(d[-1].tolist()))


def crowd() -> tuple[Any, ...]:
    """One box 30 times, with a label of its own each time, between two others."""
    return these((0.1, 0.1, 0.4, 0.5), *[(0.3, 0.4, 0.5, 0.9)] * 30, (0.6, 0.2, 0.9, 0.8))


def broken_padding() -> tuple[Any, ...]:
    """Three images whose padding has boxes that are not finite; the second image has nothing but padding."""
    boxes, labels, defaults = truth(3, 9, seed=34, defaults=301)
    labels[1] = 0
    unreal = torch.tensor((float("nan"), 0.1, float("inf"), 0.5))
    return torch.where(labels.unsqueeze(2) > 0, boxes, unreal), labels, defaults


def mostly_padding(places: int) -> tuple[Any, ...]:
    """One image with a box in the first place, in every 20th, and in the last two. All other places are padding."""
    draw, place = generator(46), torch.arange(places)
    low, size = 0.8 * torch.rand((1, places, 2), generator=draw), 0.2 * torch.rand((1, places, 2), generator=draw)
    labels = torch.where((place % 20 == 0) | (place >= places - 2), place % 80 + 1, 0)
    return torch.cat((low, low + size), dim=2), labels[None], some_defaults(301)


def large_labels() -> tuple[Any, ...]:
    """Two images whose labels need 34 bits."""
    boxes, labels, defaults = truth(2, 6, seed=35, defaults=301)
    return boxes, labels * (2**27 + 1), defaults


def other_defaults(count: int = 301) -> DefaultBoxes:
    """Default boxes of no network, in no order."""
    r = generator(36)
    xywh = torch.cat((torch.rand((count, 2), generator=r), 0.02 + 0.7 * torch.rand((count, 2), generator=r)), dim=1)
    return DefaultBoxes(xywh, xywh_to_ltrb(xywh))


def twins(make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """The inputs of `make` with each of half the default boxes twice, far apart in their order."""
    half = range(NUM_DEFAULTS // 2)
    rows = torch.tensor([*half, *half])
    everything = default_boxes()
    return *make()[:-1], DefaultBoxes(everything.xywh[rows], everything.ltrb[rows])


def with_other_defaults(make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """The inputs of `make`, of 301 default boxes, with `other_defaults`."""
    return *make()[:-1], other_defaults()


# --- loss -------------------------------------------------------------------------------------------------------------


def offsets_that_tell_nothing() -> tuple[Any, ...]:
    """Two images whose offsets do not say what is positive: of every other positive they are 0, of negatives not."""
    locations, logits, offsets, labels = predictions([60, 14], 5, seed=37, defaults=301)
    some = torch.arange(301) % 2 == 0
    return locations, logits, torch.where(some & (labels > 0).unsqueeze(1), 0.0, offsets + 0.3), labels


def confident() -> tuple[Any, ...]:
    """Two images of which all is known well: the loss is near 0, and so are the gradients."""
    _, logits, offsets, labels = predictions([40, 9], 5, scale=0.3, seed=38, defaults=301)
    noise = 0.02 * torch.randn(offsets.shape, generator=generator(39))
    return offsets + noise, logits.scatter_add(1, labels.unsqueeze(1), torch.full((2, 1, 301), 8.0)), offsets, labels


def infinite_losses() -> tuple[Any, ...]:
    """Four images: what is right is excluded in a positive, in a negative; a logit is infinite; nothing is wrong."""
    locations, logits, offsets, labels = predictions([9, 14, 5, 20], 5, seed=40, defaults=301)
    positive, negative = labels[0].argmax(), labels[1].argmin()
    logits[0, labels[0, positive], positive] = logits[1, 0, negative] = float("-inf")
    logits[2, 1, 100] = float("inf")
    return locations, logits, offsets, labels


def last_class(classes: int) -> tuple[Any, ...]:
    """Two images whose positives are of the first class or of the last."""
    locations, logits, offsets, labels = predictions([40, 9], classes, seed=41, defaults=301)
    return locations, logits, offsets, torch.where(labels > classes // 2, classes - 1, labels.clamp(max=1))


# --- detect -----------------------------------------------------------------------------------------------------------


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
