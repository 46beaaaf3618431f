"""What every override is tried on, op by op: ordinary batches, each precision and layout, the edges of the contract.

A case makes its inputs from its own seed, on the CPU, and says how far each output may be from the reference's. Outputs
of integers, and everything about shape, precision and layout, must be equal. `quick` marks the few cases that a test
suite runs; `ssd.conformance` as a whole runs all. Letters as in `ssd.ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssd.boxes import NUM_DEFAULTS, default_boxes
from ssd.ops.augment import ColourDraws

__all__ = ["Case", "cases_of", "timed_case"]

AUGMENT = {torch.float32: 2e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}
"""Of values up to 2.7: rounding differences in float32, and one unit in the last place of the two short formats."""
GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Of the largest gradient: the same."""


@dataclass(frozen=True)
class Case:
    """One trial of an op. make: the inputs, positional, on the CPU. options: keyword arguments.

    tolerance: largest error of each float output, see `ssd.conformance.compare`. only: outputs compared, () for all.
    """

    op: str
    name: str
    make: Callable[[], tuple[Any, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    quick: bool = False
    only: tuple[str, ...] = ()


def cases_of(op: str) -> list[Case]:
    """Every case of an op."""
    return {"augment": _augment, "encode": _encode, "loss": _loss, "detect": _detect}[op]()


def timed_case(op: str, batch: int = 32) -> Case:
    """An ordinary batch of a training run (of an evaluation, for detect): what an override is timed on, in bfloat16."""
    if op == "augment":
        options = {"dtype": torch.bfloat16, "channels_last": True}
        return _augment_case(f"time, batch {batch}", partial(_images, batch), options)
    if op == "encode":
        return _encode_case(f"time, batch {batch}", partial(_truth, batch, 20))
    if op == "loss":
        return _loss_case(f"time, batch {batch}", partial(_predictions, [10] * batch, 81, torch.bfloat16))
    return _detect_case(f"time, batch {batch}", partial(_peaks, batch, 81, 300, torch.bfloat16))


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- augment ----------------------------------------------------------------------------------------------------------


def _images(batch: int, *, strided: bool = False, seed: int = 0) -> tuple[Tensor, ColourDraws]:
    """Random images, the first grey, the second of pure colours; drawn jitter, every other one mirrored."""
    r = _random(seed)
    images = torch.randint(0, 256, (batch, 300, 300, 3), generator=r, dtype=torch.uint8)
    if batch > 1:
        images[0] = images[0, :, :, :1]
        images[1] = torch.where(images[1] > 127, 255, 0)
    if strided:
        images = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    low, high = torch.tensor((0.875, 0.5, 0.5, -0.05)), torch.tensor((1.125, 1.5, 1.5, 0.05))
    factors = low + (high - low) * torch.rand((batch, 4), generator=r)
    order = torch.rand((batch, 4), generator=r).argsort(dim=1)
    return images, ColourDraws(torch.arange(batch) % 2 == 0, factors, order)


def _extremes() -> tuple[Tensor, ColourDraws]:
    """Jitter far beyond what is drawn: nothing, everything, half a turn of hue; contrast first and last."""
    images, _ = _images(3, seed=1)
    factors = torch.tensor([(0.0, 2.0, 0.0, 0.5), (3.0, 0.0, 3.0, -0.5), (1.0, 1.0, 1.0, 0.0)])
    order = torch.tensor([(1, 0, 2, 3), (3, 2, 0, 1), (2, 3, 1, 0)])
    return images, ColourDraws(torch.tensor((False, True, True)), factors, order)


def _only(make: Callable[[], tuple[Tensor, ColourDraws]]) -> tuple[Tensor, None]:
    return make()[0], None


def _augment_case(name: str, make: Callable[[], Any], options: Mapping[str, Any], quick: bool = False) -> Case:
    dtype = options.get("dtype", torch.float32)
    return Case("augment", name, make, options, {"images": AUGMENT[dtype]}, quick)


def _augment() -> list[Case]:
    bf16, fp16 = {"dtype": torch.bfloat16}, {"dtype": torch.float16}
    return [
        _augment_case("B=3, float32, contiguous", partial(_images, 3), {}, quick=True),
        _augment_case("B=3, bfloat16, channels last, 4 channels", partial(_images, 3, seed=2),
                      bf16 | {"channels_last": True, "channels": 4}, quick=True),
        _augment_case("B=3, float16, channels last", partial(_images, 3, seed=3), fp16 | {"channels_last": True}),
        _augment_case("B=1, bfloat16, contiguous, 4 channels", partial(_images, 1, seed=4), bf16 | {"channels": 4}),
        _augment_case("jitter at its bounds", _extremes, {}),
        _augment_case("non-contiguous images", partial(_images, 2, strided=True, seed=5), {"channels_last": True}),
        _augment_case("no draws (evaluation)", partial(_only, partial(_images, 2, seed=6)), {}),
        _augment_case("no draws, bfloat16, channels last", partial(_only, partial(_images, 1)),
                      bf16 | {"channels_last": True}),
    ]  # fmt: skip


# --- encode -----------------------------------------------------------------------------------------------------------


def _truth(batch: int, most: int, *, seed: int = 0, strided: bool = False) -> tuple[Any, ...]:
    """Random boxes, most of them of ordinary sizes; a third of the places are padding, in no order."""
    r = _random(seed)
    size = 0.02 + 0.6 * torch.rand((batch, most, 2), generator=r) ** 2
    low = (1 - size) * torch.rand((batch, most, 2), generator=r)
    boxes = torch.cat((low, low + size), dim=2)
    labels = torch.randint(1, 81, (batch, most), generator=r)
    padding = torch.rand((batch, most), generator=r) < 1 / 3
    boxes[padding], labels[padding] = 0.0, 0
    if strided:
        boxes, labels = boxes.transpose(0, 1).contiguous().transpose(0, 1), labels.t().contiguous().t()
    return boxes, labels, default_boxes()


def _these(*boxes: tuple[float, ...]) -> tuple[Any, ...]:
    """Boxes of one image, labelled 1, 2, 3, ..."""
    return torch.tensor([boxes]).view(1, len(boxes), 4), torch.arange(1, len(boxes) + 1)[None], default_boxes()


def _claims() -> tuple[Any, ...]:
    """Ties in both directions: equal boxes, boxes between two default boxes, several that want one default box."""
    d = default_boxes().ltrb
    between = (d[3000] + d[3001]) / 2
    rows = [d[3000], d[3000], between, between, d[8731], d[8731], d[8731], torch.tensor((0.0, 0.0, 1.0, 1.0))]
    return _these(*(tuple(row.tolist()) for row in rows))


def _encode_case(name: str, make: Callable[[], Any], quick: bool = False, **options: Any) -> Case:
    return Case("encode", name, make, options, {"offsets": 1e-5}, quick)


def _encode() -> list[Case]:
    nan, inf = float("nan"), float("inf")
    broken = partial(_these, (0.2, 0.2, 0.2, 0.6), (0.5, 0.5, 0.4, 0.6), (nan, 0.1, 0.4, 0.4), (0.1, 0.1, inf, 0.3),
                     (0.1, 0.1, 0.5, 0.5))  # fmt: skip
    return [
        _encode_case("B=3, 9 places", partial(_truth, 3, 9), quick=True),
        _encode_case("B=1, 40 places", partial(_truth, 1, 40, seed=1)),
        _encode_case("no box: no place", partial(_truth, 2, 0), quick=True),
        _encode_case("no box: padding only", lambda: (torch.zeros(2, 3, 4), torch.zeros(2, 3).long(), default_boxes())),
        _encode_case("1 box", partial(_these, (0.3, 0.4, 0.5, 0.9))),
        _encode_case("1 box, tiny", partial(_these, (0.501, 0.501, 0.503, 0.504))),
        _encode_case("every default box positive", partial(_truth, 1, 5, seed=2), criteria=-0.5),
        _encode_case("ties", _claims, quick=True),
        _encode_case("boxes without area, NaN, infinite", broken),
        _encode_case("non-contiguous boxes", partial(_truth, 3, 5, seed=3, strided=True)),
        _encode_case("the original's epsilon", partial(_truth, 1, 6, seed=4), epsilon=1e-5),
    ]


# --- loss -------------------------------------------------------------------------------------------------------------


def _predictions(
    positives: list[int], classes: int = 81, dtype: torch.dtype = torch.float32, *,
    seed: int = 0, tied: bool = False, strided: bool = False, scale: float = 2.0, broken: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """Random predictions and targets with so many positives an image; tied: one prediction for every default box."""
    r, batch = _random(seed), len(positives)
    locations = torch.randn((batch, 4, NUM_DEFAULTS), generator=r)
    logits = scale * torch.randn((batch, classes, 1 if tied else NUM_DEFAULTS), generator=r)
    logits = logits.expand(-1, -1, NUM_DEFAULTS).clone()
    offsets = torch.randn((batch, 4, NUM_DEFAULTS), generator=r)
    labels = torch.zeros((batch, NUM_DEFAULTS), dtype=torch.int64)
    for image, count in enumerate(positives):
        chosen = torch.randperm(NUM_DEFAULTS, generator=r)[:count]
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


def _loss_case(name: str, make: Callable[..., Any], quick: bool = False, only: tuple[str, ...] = ()) -> Case:
    dtype = next((a for a in getattr(make, "args", ()) if isinstance(a, torch.dtype)), torch.float32)
    tolerance = {"loss": 1e-5, "grad_locations": GRADIENT[dtype], "grad_logits": GRADIENT[dtype]}
    return Case("loss", name, make, {}, tolerance, quick, only)


def _loss() -> list[Case]:
    return [
        _loss_case("B=3, 81 classes; one image without positives", partial(_predictions, [7, 0, 63]), quick=True),
        _loss_case("bfloat16", partial(_predictions, [12, 300], 81, torch.bfloat16, seed=1), quick=True),
        _loss_case("float16", partial(_predictions, [12, 300], 81, torch.float16, seed=2)),
        _loss_case("no box in the batch", partial(_predictions, [0, 0], seed=3)),
        _loss_case("1 positive, B=1", partial(_predictions, [1], seed=4)),
        _loss_case("every default box positive", partial(_predictions, [NUM_DEFAULTS], seed=5)),
        _loss_case("positives and their negatives are more than all", partial(_predictions, [2600], seed=6)),
        _loss_case("ties: one score for all", partial(_predictions, [40, 5], 81, tied=True, seed=7), quick=True),
        _loss_case("ties at 0: logits so far apart that many scores vanish",
                   partial(_predictions, [500], 3, scale=80.0, seed=8)),
        _loss_case("non-contiguous inputs", partial(_predictions, [20, 3], 21, seed=9, strided=True)),
        # What the gradients of a broken image are is nobody's promise.
        _loss_case("outputs that are not numbers", partial(_predictions, [5, 0, 0, 3], 21, seed=10, broken=True),
                   only=("loss",)),
    ]  # fmt: skip


# --- detect -----------------------------------------------------------------------------------------------------------


def _peaks(
    batch: int, classes: int, count: int, dtype: torch.dtype = torch.float32, *, seed: int = 0, strided: bool = False
) -> tuple[Any, ...]:
    """Background everywhere but in `count` default boxes an image, each sure of a random class to a random degree."""
    r = _random(seed)
    locations = torch.randn((batch, 4, NUM_DEFAULTS), generator=r)
    logits = 0.7 * torch.randn((batch, classes, NUM_DEFAULTS), generator=r)
    logits[:, 0] += 8.0
    for image in range(batch):
        chosen = torch.randperm(NUM_DEFAULTS, generator=r)[:count]
        kinds = torch.randint(1, classes, (count,), generator=r)
        logits[image, kinds, chosen] += 5.0 + 5.0 * torch.rand(count, generator=r)
    if strided:
        locations, logits = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (locations, logits))
    return locations.to(dtype), logits.to(dtype), default_boxes()


def _same_everywhere(classes: int) -> tuple[Any, ...]:
    """One prediction for all 8,732 default boxes: every class ties with itself everywhere, and two with each other."""
    logits = torch.linspace(1.0, 1.5, classes).view(1, classes, 1).repeat(1, 1, NUM_DEFAULTS)
    logits[:, 1] = logits[:, 2]
    return torch.zeros(1, 4, NUM_DEFAULTS), logits, default_boxes()


def _broken(classes: int) -> tuple[Any, ...]:
    """Some of the best boxes are not finite, or their scores are not: none of them may be found, nor take a place."""
    locations, logits, defaults = _peaks(1, classes, 300, seed=21)
    locations[0, 0, 0:1000:3], locations[0, 2, 1000:2000:3] = float("inf"), 1e4
    locations[0, 1, 2000:3000:3], logits[0, 1, 3000:4000:3] = float("nan"), float("nan")
    logits[0, 2, 4000:4100:3] = float("inf")
    return locations, logits, defaults


def _one_place(classes: int) -> tuple[Any, ...]:
    """Every box predicted at one place: one survivor a class."""
    _, logits, defaults = _peaks(1, classes, 600, seed=20)
    d = defaults.xywh.t()
    target = torch.tensor((0.5, 0.5, 0.3, 0.3)).view(4, 1)
    locations = torch.cat((10 * (target[:2] - d[:2]) / d[2:], 5 * torch.log(target[2:] / d[2:])))
    return locations[None], logits, defaults


def _detect_case(name: str, make: Callable[[], Any], quick: bool = False, **options: Any) -> Case:
    return Case("detect", name, make, options, {"boxes": 1e-5, "scores": 2e-6}, quick)


def _detect() -> list[Case]:
    return [
        _detect_case("B=3, 6 classes", partial(_peaks, 3, 6, 400), quick=True),
        _detect_case("B=1, 81 classes", partial(_peaks, 1, 81, 500, seed=1)),
        _detect_case("more than 200 candidates a class", partial(_peaks, 1, 3, 1500, seed=2), quick=True),
        _detect_case("nothing over the threshold", partial(_peaks, 2, 4, 0, seed=3)),
        _detect_case("1 detection", partial(_peaks, 1, 4, 1, seed=4)),
        _detect_case("ties: one prediction everywhere", partial(_same_everywhere, 5), quick=True),
        _detect_case("boxes all at one place", partial(_one_place, 4)),
        _detect_case("boxes and scores that are not finite", partial(_broken, 3)),
        _detect_case("bfloat16", partial(_peaks, 2, 4, 100, torch.bfloat16, seed=5)),
        _detect_case("float16", partial(_peaks, 1, 4, 100, torch.float16, seed=6)),
        _detect_case("non-contiguous inputs", partial(_peaks, 2, 4, 100, seed=7, strided=True)),
        _detect_case("other limits", partial(_peaks, 1, 4, 300, seed=8),
                     score_threshold=0.3, nms_overlap=0.2, max_candidates=70, max_detections=33),
    ]  # fmt: skip
