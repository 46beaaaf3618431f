"""What every override is tried on, op by op: ordinary batches, each precision and layout, the edges of the contract.

A case makes its inputs on the CPU from its own seed, and says how far each output may be from the reference's.
Integers, and everything about shape, precision and layout, must be equal. Fixed cases are the same in every run.
Random ones are drawn from a seed that each run prints. `quick` marks the few cases that a test suite runs. Letters as
in `ssd.ops`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssd.boxes import NUM_DEFAULTS, default_boxes
from ssd.conformance import inputs
from ssd.conformance.exact import exact_loss

__all__ = ["EMULATED_BATCH", "Case", "batch_cases", "cases_of", "dtype_of", "random_cases", "small_case", "timed_case"]

AUGMENT = {torch.float32: 2e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}
"""Of values up to 2.7: rounding differences in float32, and one unit in the last place of the two short formats."""
GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Of the largest gradient: the same."""
EMULATED_BATCH = 256
"""Largest batch that is tried without the hardware; a vendor's largest train_batch_size may be more."""
BATCHES = (1, 2, 33, 130)
"""Every op is tried at these batches and at the largest of the vendor's configs."""
RANDOM_CASES = 4
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """One trial of an op. make: the inputs, positional, on the CPU. options: keyword arguments.

    tolerance: largest error of each float output, see `ssd.conformance.compare`. only: outputs compared, () for all.
    exact: gives the outputs to compare with; None for the reference op. weight: of the loss of the first image where
    gradients are computed; the others' are 2, 3, ... times that. `exact` assumes 0.5.
    """

    op: str
    name: str
    make: Callable[[], tuple[Any, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    quick: bool = False
    only: tuple[str, ...] = ()
    exact: Callable[..., dict[str, Tensor]] | None = None
    weight: float = 0.5


def cases_of(op: str) -> list[Case]:
    """Every fixed case of an op."""
    return {"augment": _augment, "encode": _encode, "loss": _loss, "detect": _detect}[op]()


def dtype_of(case: Case) -> torch.dtype:
    """The precision that a case is about: of what an op gives, or of the network's outputs that it takes."""
    named = [case.options.get("dtype"), *getattr(case.make, "args", ())]
    return next((one for one in named if isinstance(one, torch.dtype)), torch.float32)


def timed_case(op: str, batch: int = 32) -> Case:
    """An ordinary batch of a training run (of an evaluation, for detect): what an override is timed on, in bfloat16."""
    return _sized(op, f"time, batch {batch}", batch, seed=0, full=True, dtype=torch.bfloat16)


def batch_cases(op: str, largest: int, full: bool) -> list[Case]:
    """One case for each of BATCHES and for the largest batch. full: of full-size images; else of small ones."""
    size = "full size" if full else "small images and few default boxes"
    batches = sorted({*BATCHES, largest})
    return [_sized(op, f"batch {batch}, {size}", batch, seed=100 + batch, full=full) for batch in batches]


def small_case(op: str) -> Case:
    """What is called 200 times: cheap, and with more than one block of a launch."""
    return _sized(op, "small", 3, seed=7, full=False)


def _sized(op: str, name: str, batch: int, *, seed: int, full: bool, dtype: torch.dtype = torch.float32) -> Case:
    """An ordinary batch. Small: odd sizes, so that the last block of a launch is not full."""
    if op == "augment":
        options = {"dtype": dtype, "channels_last": dtype != torch.float32}
        height, width = (300, 300) if full else (5, 7)
        return _augment_case(name, partial(inputs.images, batch, seed=seed, height=height, width=width), options)
    defaults = NUM_DEFAULTS if full else 301
    if op == "encode":
        return _encode_case(name, partial(inputs.truth, batch, 20 if full else 3, seed=seed, defaults=defaults))
    if op == "loss":
        positives, classes = [10 + image % 3 for image in range(batch)], 81 if full else 5
        return _loss_case(name, partial(inputs.predictions, positives, classes, dtype, seed=seed, defaults=defaults))
    classes, count = (81, 300) if full else (3, 30)
    return _detect_case(name, partial(inputs.peaks, batch, classes, count, dtype, seed=seed, defaults=defaults))


def random_cases(op: str, seed: int) -> list[Case]:
    """Cases whose sizes, layouts, precisions and options are drawn from a seed: every argument of the contract."""
    return [_random_case(op, number, random.Random(f"{seed} {op} {number}")) for number in range(1, RANDOM_CASES + 1)]


def _random_case(op: str, number: int, draw: random.Random) -> Case:
    seed, batch, strided, dtype = draw.randrange(2**31), draw.randint(1, 6), draw.random() < 0.5, draw.choice(DTYPES)
    defaults = draw.choice((NUM_DEFAULTS, draw.randint(200, 2000)))
    options: dict[str, Any]
    classes = draw.randint(2, 90)
    name = f"random {number}: B={batch}, {str(dtype).removeprefix('torch.')}{', strided' * strided}"
    if op == "augment":
        height, width = draw.randint(2, 320), draw.randint(2, 320)
        options = {"dtype": dtype, "channels": draw.choice((3, 4)), "channels_last": draw.random() < 0.5}
        make = partial(inputs.images, batch, seed=seed, strided=strided, height=height, width=width)
        return _augment_case(f"{name}, {height} x {width}", make, options)
    name = f"{name}, D={defaults}"
    if op == "encode":
        options = {"criteria": draw.uniform(0.1, 0.9), "epsilon": draw.choice((0.0, 1e-5))}
        make = partial(inputs.truth, batch, draw.randint(0, 40), seed=seed, strided=strided, defaults=defaults)
        return _encode_case(name, make, **options)
    if op == "loss":
        positives = [draw.randint(0, defaults // draw.choice((1, 20))) for _ in range(batch)]
        make = partial(inputs.predictions, positives, classes, dtype, seed=seed, strided=strided, defaults=defaults)
        return _loss_case(f"{name}, C={classes}", make, negative_ratio=draw.randint(1, 5))
    options = {"score_threshold": draw.uniform(0.02, 0.5), "nms_overlap": draw.uniform(0.2, 0.8)}
    options |= {"max_candidates": draw.randint(1, 300), "max_detections": draw.randint(1, 300)}
    count = draw.randint(0, defaults // 2)
    make = partial(inputs.peaks, batch, classes, count, dtype, seed=seed, strided=strided, defaults=defaults)
    return _detect_case(f"{name}, C={classes}", make, **options)


# --- augment ----------------------------------------------------------------------------------------------------------


def _augment_case(name: str, make: Callable[[], Any], options: Mapping[str, Any], quick: bool = False) -> Case:
    dtype = options.get("dtype", torch.float32)
    return Case("augment", name, make, options, {"images": AUGMENT[dtype]}, quick)


def _augment() -> list[Case]:
    bf16, fp16, images = {"dtype": torch.bfloat16}, {"dtype": torch.float16}, inputs.images
    return [
        _augment_case("B=3, float32, contiguous", partial(images, 3), {}, quick=True),
        _augment_case("B=3, bfloat16, channels last, 4 channels", partial(images, 3, seed=2),
                      bf16 | {"channels_last": True, "channels": 4}, quick=True),
        _augment_case("B=3, float16, channels last", partial(images, 3, seed=3), fp16 | {"channels_last": True}),
        _augment_case("B=1, bfloat16, contiguous, 4 channels", partial(images, 1, seed=4), bf16 | {"channels": 4}),
        _augment_case("jitter at its bounds", inputs.extremes, {}),
        _augment_case("non-contiguous images", partial(images, 2, strided=True, seed=5), {"channels_last": True}),
        _augment_case("no draws (evaluation)", partial(inputs.only_images, partial(images, 2, seed=6)), {}),
        _augment_case("no draws, bfloat16, channels last", partial(inputs.only_images, partial(images, 1)),
                      bf16 | {"channels_last": True}),
        _augment_case("no draws, float16, 4 channels", partial(inputs.only_images, partial(images, 3, seed=7)),
                      fp16 | {"channels": 4}),
    ]  # fmt: skip


# --- encode -----------------------------------------------------------------------------------------------------------


def _encode_case(name: str, make: Callable[[], Any], quick: bool = False, **options: Any) -> Case:
    return Case("encode", name, make, options, {"offsets": 1e-5}, quick)


def _no_truth() -> tuple[Any, ...]:
    return torch.zeros(2, 3, 4), torch.zeros(2, 3).long(), default_boxes()


def _encode() -> list[Case]:
    nan, inf, truth, these = float("nan"), float("inf"), inputs.truth, inputs.these
    broken = partial(these, (0.2, 0.2, 0.2, 0.6), (0.5, 0.5, 0.4, 0.6), (nan, 0.1, 0.4, 0.4), (0.1, 0.1, inf, 0.3),
                     (0.3, 0.4, 0.6, 0.4), (0.3, 0.7, 0.6, 0.4), (0.1, 0.1, 0.5, 0.5))  # fmt: skip
    one = (0.1, 0.15, 0.45, 0.6)
    return [
        _encode_case("B=3, 9 places", partial(truth, 3, 9), quick=True),
        _encode_case("B=1, 40 places", partial(truth, 1, 40, seed=1)),
        _encode_case("no box: no place", partial(truth, 2, 0), quick=True),
        _encode_case("no box: padding only", _no_truth),
        _encode_case("padding that has a box", inputs.boxes_of_padding),
        _encode_case("1 box", partial(these, (0.3, 0.4, 0.5, 0.9))),
        _encode_case("1 box, tiny", partial(these, (0.501, 0.501, 0.503, 0.504))),
        _encode_case("every default box positive", partial(truth, 1, 5, seed=2), criteria=-0.5),
        _encode_case("ties", inputs.claims, quick=True),
        _encode_case("ties: as far from two default boxes", inputs.between_defaults),
        _encode_case("ties: an overlap of exactly the criteria", partial(these, one),
                     criteria=inputs.overlap_of_a_default(torch.tensor(one))),
        _encode_case("boxes without area, NaN, infinite", broken),
        _encode_case("sides whose product is 0 in float32", partial(these, (0.0, 0.0, 1e-30, 1e-30), one)),
        _encode_case("150 places", partial(truth, 1, 150, seed=6, defaults=301)),
        _encode_case("non-contiguous boxes", partial(truth, 3, 5, seed=3, strided=True)),
        _encode_case("the original's epsilon", partial(truth, 1, 6, seed=4), epsilon=1e-5),
    ]  # fmt: skip


# --- loss -------------------------------------------------------------------------------------------------------------


def _loss_case(
    name: str, make: Callable[..., Any], quick: bool = False, only: tuple[str, ...] = (),
    exact: Callable[..., dict[str, Tensor]] | None = None, **options: Any,
) -> Case:  # fmt: skip
    dtype = next((a for a in getattr(make, "args", ()) if isinstance(a, torch.dtype)), torch.float32)
    tolerance = {"loss": 1e-5, "grad_locations": GRADIENT[dtype], "grad_logits": GRADIENT[dtype]}
    return Case("loss", name, make, options, tolerance, quick, only, exact)


def _loss() -> list[Case]:
    predictions, bf16, fp16 = inputs.predictions, torch.bfloat16, torch.float16
    exact = partial(_loss_case, exact=exact_loss)
    return [
        _loss_case("B=3, 81 classes; one image without positives", partial(predictions, [7, 0, 63]), quick=True),
        _loss_case("bfloat16", partial(predictions, [12, 300], 81, bf16, seed=1), quick=True),
        _loss_case("float16", partial(predictions, [12, 300], 81, fp16, seed=2)),
        # A gradient must be weighted before it is rounded to float16: else what the scaler saves is lost already.
        replace(_loss_case("float16, weighted by a loss scaler", partial(predictions, [12, 300], 81, fp16, seed=2)),
                weight=4096.0),
        _loss_case("no box in the batch", partial(predictions, [0, 0], seed=3)),
        _loss_case("1 positive, B=1", partial(predictions, [1], seed=4)),
        _loss_case("every default box positive", partial(predictions, [NUM_DEFAULTS], seed=5)),
        _loss_case("positives and their negatives are more than all", partial(predictions, [2600], seed=6)),
        _loss_case("ties: one score for all", partial(predictions, [40, 5], 81, tied=True, seed=7), quick=True),
        _loss_case("ties: two scores, the cut among the higher", partial(inputs.two_scores, 50, 1000)),
        _loss_case("ties: two scores, the cut among the lower", partial(inputs.two_scores, 50, 100)),
        _loss_case("ties at 0: logits so far apart that many scores vanish",
                   partial(predictions, [500], 3, scale=80.0, seed=8)),
        _loss_case("logits of minus infinity, and in thousands", inputs.far_logits),
        _loss_case("locations far from their targets", inputs.far_locations),
        _loss_case("negative_ratio 1", partial(predictions, [30, 4], 5, seed=13), negative_ratio=1),
        _loss_case("negative_ratio 7", partial(predictions, [30, 4], 5, seed=14), negative_ratio=7),
        _loss_case("non-contiguous inputs", partial(predictions, [20, 3], 21, seed=9, strided=True)),
        # What the gradients of a broken image are is nobody's promise.
        _loss_case("outputs that are not numbers", partial(predictions, [5, 0, 0, 3], 21, seed=10, broken=True),
                   only=("loss",)),
        exact("gradients against float64, float32", partial(predictions, [9, 120], 81, torch.float32, seed=15)),
        exact("gradients against float64, bfloat16", partial(predictions, [9, 120], 81, bf16, seed=16)),
        exact("gradients against float64, float16", partial(predictions, [9, 120], 81, fp16, seed=17)),
    ]  # fmt: skip


# --- detect -----------------------------------------------------------------------------------------------------------


def _detect_case(name: str, make: Callable[[], Any], quick: bool = False, **options: Any) -> Case:
    return Case("detect", name, make, options, {"boxes": 1e-5, "scores": 2e-6}, quick)


def _detect() -> list[Case]:
    peaks = inputs.peaks
    return [
        _detect_case("B=3, 6 classes", partial(peaks, 3, 6, 400), quick=True),
        _detect_case("B=1, 81 classes", partial(peaks, 1, 81, 500, seed=1)),
        _detect_case("more than 200 candidates a class", partial(peaks, 1, 3, 1500, seed=2), quick=True),
        _detect_case("nothing over the threshold", partial(peaks, 2, 4, 0, seed=3)),
        _detect_case("1 detection", partial(peaks, 1, 4, 1, seed=4)),
        _detect_case("ties: one prediction everywhere", partial(inputs.same_everywhere, 5), quick=True),
        _detect_case("ties: an overlap of exactly the limit", inputs.touching),
        _detect_case("ties: a score of exactly the threshold", inputs.even_scores, score_threshold=0.5),
        _detect_case("a chain of 100 boxes, each over the next", partial(inputs.chain, 100)),
        _detect_case("more than 65,536 candidates a batch", partial(peaks, 9, 3, NUM_DEFAULTS, seed=11)),
        _detect_case("boxes all at one place", partial(inputs.one_place, 4)),
        _detect_case("boxes and scores that are not finite", partial(inputs.broken, 3)),
        _detect_case("bfloat16", partial(peaks, 2, 4, 100, torch.bfloat16, seed=5)),
        _detect_case("float16", partial(peaks, 1, 4, 100, torch.float16, seed=6)),
        _detect_case("non-contiguous inputs", partial(peaks, 2, 4, 100, seed=7, strided=True)),
        _detect_case("score_threshold 0.6", partial(peaks, 1, 4, 100, seed=9), score_threshold=0.6),
        _detect_case("max_candidates 5", partial(peaks, 1, 4, 100, seed=10), max_candidates=5),
        _detect_case("other limits", partial(peaks, 1, 4, 300, seed=8),
                     score_threshold=0.3, nms_overlap=0.2, max_candidates=70, max_detections=33),
    ]  # fmt: skip
