"""Inputs for the cases: random ones of any size from a seed, and made ones for the edges and ties of the contracts.

Each function makes the positional arguments of one op, on the CPU, the same for the same seed. Letters as in `ssd.ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssd.boxes import NUM_DEFAULTS, DefaultBoxes, default_boxes, iou
from ssd.ops.augment import ColourDraws


def some_defaults(count: int = NUM_DEFAULTS) -> DefaultBoxes:
    """`count` default boxes of all scales, in their order; all of them unless fewer are asked for."""
    everything = default_boxes()
    if count == NUM_DEFAULTS:
        return everything
    chosen = torch.linspace(0, NUM_DEFAULTS - 1, count).long()
    return DefaultBoxes(everything.xywh[chosen], everything.ltrb[chosen])


def generator(seed: int = 0) -> torch.Generator:
    """torch's generator on the CPU, from a seed."""
    return torch.Generator().manual_seed(seed)


def images(
    batch: int, *, strided: bool = False, seed: int = 0, height: int = 300, width: int = 300
) -> tuple[Tensor, ColourDraws]:
    """Random images (batch, height, width, 3) uint8 and drawn jitter.

    The first image is grey, the second one has pure colours. Every other image is mirrored.
    """
    r = generator(seed)
    pixels = torch.randint(0, 256, (batch, height, width, 3), generator=r, dtype=torch.uint8)
    if batch > 1:
        pixels[0] = pixels[0, :, :, :1]
        pixels[1] = torch.where(pixels[1] > 127, 255, 0)
    if strided:
        pixels = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    low, high = torch.tensor((0.875, 0.5, 0.5, -0.05)), torch.tensor((1.125, 1.5, 1.5, 0.05))
    factors = low + (high - low) * torch.rand((batch, 4), generator=r)
    order = torch.rand((batch, 4), generator=r).argsort(dim=1)
    return pixels, ColourDraws(torch.arange(batch) % 2 == 0, factors, order)


def extremes() -> tuple[Tensor, ColourDraws]:
    """Three images (3, 300, 300, 3) uint8 with jitter far beyond what a run draws.

    Factors are 0 or very large, the hue makes half a turn, and contrast comes first or last.
    """
    pixels, _ = images(3, seed=1)
    factors = torch.tensor([(0.0, 2.0, 0.0, 0.5), (3.0, 0.0, 3.0, -0.5), (1.0, 1.0, 1.0, 0.0)])
    order = torch.tensor([(1, 0, 2, 3), (3, 2, 0, 1), (2, 3, 1, 0)])
    return pixels, ColourDraws(torch.tensor((False, True, True)), factors, order)


def only_images(make: Callable[[], tuple[Tensor, ColourDraws]]) -> tuple[Tensor, None]:
    """The images (B, H, W, 3) uint8 of `make` without draws, as in an evaluation."""
    return make()[0], None


def truth(
    batch: int, most: int, *, seed: int = 0, strided: bool = False, defaults: int = NUM_DEFAULTS
) -> tuple[Any, ...]:
    """Random boxes, most of them of ordinary sizes; a third of the places are padding, in no order."""
    r = generator(seed)
    size = 0.02 + 0.6 * torch.rand((batch, most, 2), generator=r) ** 2
    low = (1 - size) * torch.rand((batch, most, 2), generator=r)
    boxes = torch.cat((low, low + size), dim=2)
    labels = torch.randint(1, 81, (batch, most), generator=r)
    padding = torch.rand((batch, most), generator=r) < 1 / 3
    boxes[padding], labels[padding] = 0.0, 0
    if strided:
        boxes, labels = boxes.transpose(0, 1).contiguous().transpose(0, 1), labels.t().contiguous().t()
    return boxes, labels, some_defaults(defaults)


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


def predictions(
    positives: list[int], classes: int = 81, dtype: torch.dtype = torch.float32, *,
    seed: int = 0, tied: bool = False, strided: bool = False, scale: float = 2.0, broken: bool = False,
    defaults: int = NUM_DEFAULTS,
) -> tuple[Any, ...]:  # fmt: skip
    """Random predictions and targets with so many positives an image; tied: one prediction for every default box."""
    r, batch = generator(seed), len(positives)
    locations = torch.randn((batch, 4, defaults), generator=r)
    logits = scale * torch.randn((batch, classes, 1 if tied else defaults), generator=r)
    logits = logits.expand(-1, -1, defaults).clone()
    offsets = torch.randn((batch, 4, defaults), generator=r)
    labels = torch.zeros((batch, defaults), dtype=torch.int64)
    for image, count in enumerate(positives):
        chosen = torch.randperm(defaults, generator=r)[:count]
        labels[image, chosen] = torch.randint(1, classes, (count,), generator=r)
    offsets = torch.where(labels.unsqueeze(1) > 0, offsets, 0.0)
    if broken:
        logits[0, 3, 17] = logits[1, 0, 4000] = locations[2, 1, 8731] = float("nan")
    if strided:
        locations, logits, offsets = (
            x.transpose(1, 2).contiguous().transpose(1, 2) for x in (locations, logits, offsets)
        )
        labels = labels.t().contiguous().t()
    return locations.to(dtype), logits.to(dtype), offsets, labels


def peaks(
    batch: int,
    classes: int,
    count: int,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    strided: bool = False,
    defaults: int = NUM_DEFAULTS,
) -> tuple[Any, ...]:
    """Background everywhere but in `count` default boxes an image, each sure of a random class to a random degree."""
    r = generator(seed)
    locations = torch.randn((batch, 4, defaults), generator=r)
    logits = 0.7 * torch.randn((batch, classes, defaults), generator=r)
    logits[:, 0] += 8.0
    for image in range(batch):
        chosen = torch.randperm(defaults, generator=r)[:count]
        kinds = torch.randint(1, classes, (count,), generator=r)
        logits[image, kinds, chosen] += 5.0 + 5.0 * torch.rand(count, generator=r)
    if strided:
        locations, logits = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (locations, logits))
    return locations.to(dtype), logits.to(dtype), some_defaults(defaults)


def same_everywhere(classes: int) -> tuple[Any, ...]:
    """One prediction for all 8,732 default boxes: every class ties with itself everywhere, and two with each other."""
    logits = torch.linspace(1.0, 1.5, classes).view(1, classes, 1).repeat(1, 1, NUM_DEFAULTS)
    logits[:, 1] = logits[:, 2]
    return torch.zeros(1, 4, NUM_DEFAULTS), logits, default_boxes()


def broken(classes: int) -> tuple[Any, ...]:
    """Some of the best boxes are not finite, or their scores are not: none of them may be found, nor take a place."""
    locations, logits, defaults = peaks(1, classes, 300, seed=21)
    locations[0, 0, 0:1000:3], locations[0, 2, 1000:2000:3] = float("inf"), 1e4
    locations[0, 1, 2000:3000:3], logits[0, 1, 3000:4000:3] = float("nan"), float("nan")
    logits[0, 2, 4000:4100:3] = float("inf")
    return locations, logits, defaults


def one_place(classes: int) -> tuple[Any, ...]:
    """Every box predicted at one place: one survivor a class."""
    _, logits, defaults = peaks(1, classes, 600, seed=20)
    d = defaults.xywh.t()
    target = torch.tensor((0.5, 0.5, 0.3, 0.3)).view(4, 1)
    locations = torch.cat((10 * (target[:2] - d[:2]) / d[2:], 5 * torch.log(target[2:] / d[2:])))
    return locations[None], logits, defaults


def two_scores(positives: int, high: int) -> tuple[Any, ...]:
    """One image whose negatives have two cross-entropies: `high` of them the larger one, spread over all boxes."""
    locations, logits, offsets, labels = predictions([positives], 3, seed=11)
    logits = torch.zeros_like(logits)
    logits[0, 1, torch.randperm(NUM_DEFAULTS, generator=generator(12))[:high]] = 2.0
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
