"""Made inputs: the edges and the ties of the contracts; those of `detect` stand in `ssd.conformance.detect_edges`.

Each function makes the positional arguments of one op, on the CPU, always the same. Letters as in `ssd.ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ssd.boxes import NUM_DEFAULTS, DefaultBoxes, default_boxes, iou, xywh_to_ltrb
from ssd.conformance.inputs import generator, images, predictions, some_defaults, truth
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


def hard_runs() -> tuple[Any, ...]:
    """Hard negatives lie together, as around an object: as many as are mined, and one score for all other places.

    They are the last default boxes of the first image, a run in the second, the first ones of the third, and every 32nd
    of the fourth. Whoever takes no more than a share from a block, or from a thread, misses some.
    """
    locations, logits, offsets, labels = predictions([100, 60, 10, 90], 5, seed=50, scale=0.5)
    logits[:, 0] += 6.0
    last = labels.shape[1]
    for image, hard in enumerate((range(last - 300, last), range(3100, 3280), range(30), range(0, 270 * 32, 32))):
        logits[image, 1, list(hard)] += 9.0
    return locations, logits, offsets, labels


def far_logits() -> tuple[Any, ...]:
    """Two images of few default boxes: one has logits of -inf in classes that are no target, one in thousands.

    64 classes more are excluded everywhere: a tile of 32 of them has nothing but -inf.
    """
    locations, logits, offsets, labels = predictions([9, 14], 5, seed=22, defaults=301)
    labels = torch.where(labels > 2, 1, labels)
    logits[0, 3:, ::2], logits[1] = float("-inf"), logits[1] * 3000
    return locations, functional.pad(logits, (0, 0, 0, 64), value=float("-inf")), offsets, labels


def logits_far_from_0() -> tuple[Any, ...]:
    """Two images whose 69 classes have ordinary logits, but for a number in thousands that all of an image have more.

    float32 has no room for that number and the logarithm of their sum: it keeps 1e-4 of it.
    """
    locations, logits, offsets, labels = predictions([4, 3], 69, seed=52, defaults=40)
    return locations, logits + torch.tensor((3000.0, -5000.0)).view(2, 1, 1), offsets, labels


def far_locations() -> tuple[Any, ...]:
    """Two images of few default boxes whose locations are up to hundreds from their targets, as a tiny box's are."""
    locations, logits, offsets, labels = predictions([60, 14], 5, seed=23, defaults=301)
    return locations * 100, logits, offsets, labels


def overlap_of_a_default(truth: Tensor) -> float:
    """An overlap that a ground truth, (4,) float32, has with some default box, not the one that it overlaps most."""
    overlaps = iou(truth[None], default_boxes().ltrb)[0].sort().values
    return float(overlaps[-20])


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


def almost_grey() -> tuple[Tensor, ColourDraws]:
    """Images (8, 6, 7, 3) uint8 whose channels differ by 1 at most, and hardly at all after the saturation."""
    draw, (_, draws) = generator(48), images(8, seed=49, height=6, width=7)
    grey = torch.randint(0, 255, (8, 6, 7, 1), generator=draw)
    turns = torch.linspace(-0.5, 0.5, 8)
    factors = torch.stack((draws.factors[:, 0], draws.factors[:, 1], torch.linspace(0.02, 0.5, 8), turns), dim=1)
    pixels = (grey + torch.randint(0, 2, (8, 6, 7, 3), generator=draw)).byte()
    return pixels, ColourDraws(draws.flip, factors, draws.order)


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


def in_some_places(places: int, each: int) -> tuple[Any, ...]:
    """One image with a box in the first place, in each such place, and in the last two. The others are padding.

    There are half as many boxes as places. So most boxes are equal to others, near by and far off.
    """
    draw, place = generator(46), torch.arange(places)
    low, size = 0.8 * torch.rand((places // 2, 2), generator=draw), 0.2 * torch.rand((places // 2, 2), generator=draw)
    boxes = torch.cat((low, low + size), dim=1)[torch.randint(0, places // 2, (places,), generator=draw)]
    labels = torch.where((place % each == 0) | (place >= places - 2), place % 80 + 1, 0)
    return boxes[None], labels[None], some_defaults(301)


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
    """Six images: what is right is excluded in a positive, in a negative; a logit is infinite; nothing is wrong.

    In the last two a location is infinite, where there is a target and where there is none.
    """
    locations, logits, offsets, labels = predictions([9, 14, 5, 20, 7, 8], 5, seed=40, defaults=301)
    positive, negative = labels[0].argmax(), labels[1].argmin()
    logits[0, labels[0, positive], positive] = logits[1, 0, negative] = float("-inf")
    logits[2, 1, 100] = float("inf")
    locations[4, 2, labels[4].argmax()], locations[5, 0, labels[5].argmin()] = float("-inf"), float("inf")
    return locations, logits, offsets, labels


def last_class(classes: int) -> tuple[Any, ...]:
    """Two images whose positives are of the first class or of the last."""
    locations, logits, offsets, labels = predictions([40, 9], classes, seed=41, defaults=301)
    return locations, logits, offsets, torch.where(labels > classes // 2, classes - 1, labels.clamp(max=1))
