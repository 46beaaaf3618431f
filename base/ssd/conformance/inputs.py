"""Inputs of any size from a seed, and what is done to inputs: other values, another layout of memory.

Each function makes the positional arguments of one op, on the CPU, the same for the same seed. Letters as in `ssd.ops`.
Made ones for the edges and ties of the contracts stand in `ssd.conformance.edges` and `ssd.conformance.detect_edges`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssd.boxes import NUM_DEFAULTS, DefaultBoxes, default_boxes
from ssd.ops.augment import ColourDraws
from ssd.ops.crop import Plane

__all__ = [
    "altered", "apart", "crops", "each_tensor", "generator", "images", "only_images", "peaks", "predictions",
    "some_defaults", "stored", "truth", "with_layout",
]  # fmt: skip


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

    The first image is grey, the second one has pure colours. What is mirrored is drawn, so that nothing repeats
    from image to image. Of images 0 and 1, and of images 0 and 32, one is.
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
    flip = torch.rand(batch, generator=r) < 0.5
    flip[::32] = torch.arange(len(flip[::32])) % 2 == 0
    flip[1:2] = False
    return pixels, ColourDraws(flip, factors, order)


def only_images(make: Callable[[], tuple[Any, ...]]) -> tuple[Tensor, None]:
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


def predictions(
    positives: Sequence[int], classes: int = 81, *,
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
    return locations, logits, offsets, labels


def peaks(
    counts: Sequence[int], classes: int, *,
    seed: int = 0, strided: bool = False, defaults: int = NUM_DEFAULTS,
) -> tuple[Any, ...]:  # fmt: skip
    """Background everywhere but in so many default boxes an image, each sure of a random class to a random degree."""
    r, batch = generator(seed), len(counts)
    locations = torch.randn((batch, 4, defaults), generator=r)
    logits = 0.7 * torch.randn((batch, classes, defaults), generator=r)
    logits[:, 0] += 8.0
    for image, count in enumerate(counts):
        chosen = torch.randperm(defaults, generator=r)[:count]
        kinds = torch.randint(1, classes, (count,), generator=r)
        logits[image, kinds, chosen] += 5.0 + 5.0 * torch.rand(count, generator=r)
    if strided:
        locations, logits = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (locations, logits))
    return locations, logits, some_defaults(defaults)


def stored(
    sizes: Sequence[tuple[int, int]], cuts: Sequence[tuple[int, ...]], *,
    yuv: bool = False, seed: int = 0, contrast: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """Images of noise of `sizes`, width and height, and what is cut out of them.

    cuts: number of the image, left, top, right, bottom. yuv: as luma and chroma of half the size; else as RGB.
    contrast: bytes of 0 and 255 alone.
    """
    r, planes = generator(seed), []
    for channels, step in ((1, 1), (2, 2)) if yuv else ((3, 1),):
        widths, heights = (-(-torch.tensor(sides) // step) for sides in zip(*sizes, strict=True))
        ends = (widths * heights).cumsum(0)
        pixels = torch.randint(0, 256, (int(ends[-1]), channels), generator=r, dtype=torch.uint8)
        pixels = torch.where(pixels > 127, 255, 0).to(torch.uint8) if contrast else pixels
        planes.append(Plane(pixels, ends - widths * heights, widths, step))
    where = torch.tensor(cuts)
    return where[:, 0], where[:, 1:], tuple(planes)


def crops(
    batch: int, height: int, width: int, *, seed: int = 0, strided: bool = False, yuv: bool = False
) -> tuple[Any, ...]:
    """So many rectangles of every size within at most 5 images, of which the first has the given size.

    The first cut is that image as a whole, the second one a pixel. strided: slots and rectangles are not contiguous,
    which else they are.
    """
    r = generator(seed)

    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=r))

    sizes = [(width, height)] + [(drawn(1, width), drawn(1, height)) for _ in range(min(batch, 5) - 1)]
    cuts = []
    for number in range(batch):
        image = drawn(0, len(sizes) - 1) if number else 0
        sides = [(low := drawn(0, most - 1), drawn(low + 1, most)) for most in sizes[image]]
        (left, right), (top, bottom) = sides if number else ((0, width), (0, height))
        right, bottom = (left + 1, top + 1) if number == 1 else (right, bottom)
        cuts.append((image, left, top, right, bottom))
    slots, rectangles, planes = stored(sizes, cuts, seed=seed, yuv=yuv)
    return (slots, rectangles, planes) if strided else (slots.contiguous(), rectangles.contiguous(), planes)


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tuple or dataclass in which `change` was applied to each tensor, of any shape and dtype."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(each_tensor(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: each_tensor(getattr(value, f.name), change) for f in fields(value)})
    return value


def with_layout(tensor: Tensor, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """A copy of a tensor of any shape in another dtype or on another device, in memory of its own.

    Its strides and its place in that memory are kept, where `Tensor.to` makes dense what has gaps.
    """
    if not tensor.numel():
        return tensor.to(device=device, dtype=dtype)
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    memory = torch.zeros(tensor.storage_offset() + span, dtype=dtype or tensor.dtype, device=device or tensor.device)
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(tensor)


def apart(
    make: Callable[[], tuple[Any, ...]], only: Collection[int] | None = None, gaps: Collection[int] | None = None
) -> tuple[Any, ...]:
    """The inputs of `make`, each a part of a larger tensor: with gaps in every dimension, at an odd address.

    only: numbers of the tensors that this is done to, in the order of the arguments; None for all. gaps: in these
    dimensions alone, and then at a whole address; None for every dimension. () leaves the odd address alone.
    """
    numbers = itertools.count()
    return tuple(each_tensor(make(), lambda x: _apart(x, gaps) if only is None or next(numbers) in only else x))


def _apart(tensor: Tensor, gaps: Collection[int] | None) -> Tensor:
    last = tensor.dim() - 1
    between = range(last + 1) if gaps is None else gaps
    step = 2 if last in between else 1
    sizes = [size + (place - 1 in between) for place, size in enumerate(tensor.shape)]
    sizes[last] += (step - 1) * tensor.shape[last]
    first = 0 if gaps else 1
    larger = tensor.new_zeros(first + math.prod(sizes))[first:].view(sizes)
    part = larger[tuple(slice(size) for size in tensor.shape[:-1])][..., : step * tensor.shape[last] : step]
    return part.copy_(tensor)


def altered(op: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Other inputs of the same shapes, types and strides, as far from the given ones as the op's contract allows."""
    if op == "augment":
        pixels, draws = inputs
        if draws is not None:
            blends, turns = draws.factors.split((3, 1), dim=1)  # a hue is turned by -0.5 to 0.5
            draws = ColourDraws(~draws.flip, torch.cat((2 - blends, -turns), dim=1), draws.order.flip(1))
        return 255 - pixels, draws
    if op == "encode":
        boxes, labels, defaults = inputs
        left, top, right, bottom = boxes.unbind(2)
        mirrored = torch.stack((1 - right, top, 1 - left, bottom), 2)
        return mirrored, torch.where(labels > 0, labels % 80 + 1, 0), each_tensor(defaults, lambda x: x.roll(3, 0))
    if op == "loss":
        locations, logits, offsets, labels = (x.roll(1, -1) for x in inputs)
        return -locations, -logits, offsets, labels
    if op == "crop":
        slots, rectangles, planes = inputs
        # The numbers of the images are dealt anew. Rectangles of more than a pixel lose one, on the left and below.
        count, (left, top, right, bottom) = len(planes[0].starts), rectangles.flip(0).unbind(1)
        smaller = torch.stack((left + (right - left > 1), top, right, bottom - (bottom - top > 1).long()), 1)
        others = tuple(
            replace(plane, pixels=255 - plane.pixels, starts=plane.starts.roll(1), widths=plane.widths.roll(1))
            for plane in planes
        )
        return (slots.flip(0) + 1) % count, smaller, others
    locations, logits, defaults = inputs
    return locations.roll(7, 2), logits.roll(7, 2), each_tensor(defaults, lambda x: x.roll(3, 0))
