"""Every case that an override is tried on: the fixed ones, one for each batch, and random ones.

A case makes its inputs on the CPU from its own seed, and says how far each output may be from the reference's.
Integers, and everything about shape, precision and layout, must be equal. Random cases are drawn from a seed that each
run prints. Letters as in `ssd.ops`.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import torch

from ssd.boxes import NUM_DEFAULTS
from ssd.conformance import inputs
from ssd.conformance.case import GRADIENTS, Case, augment_case, crop_case, detect_case, encode_case, loss_case
from ssd.conformance.fixed import FIXED

__all__ = [
    "EMULATED_BATCH", "batch_cases", "cases_of", "random_cases", "repeated_case", "small_case", "timed_case",
]  # fmt: skip

EMULATED_BATCH = 256
"""Largest batch that is tried without the hardware. A row says so where a vendor's largest train_batch_size is more."""
BATCHES = (1, 2, 33, 130)
"""Every op is tried at these batches and at the largest of the vendor's configs."""
RANDOM_CASES = 8
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("dense", "strided", "apart", "partly apart", "gaps")
"""Of inputs: with their last two dimensions exchanged in memory, or parts of larger tensors, all or some of them, or
with gaps in some dimensions."""


def cases_of(op: str) -> list[Case]:
    """Every fixed case of an op."""
    return FIXED[op]()


def timed_case(op: str, batch: int = 32) -> Case:
    """An ordinary batch of a training run (of an evaluation, for detect): what an override is timed on, in bfloat16."""
    return _sized(op, f"time, batch {batch}", batch, seed=0, full=True, dtype=torch.bfloat16)


def batch_cases(op: str, largest: int, full: bool) -> list[Case]:
    """One case for each of BATCHES and for the largest batch, which its name tells.

    full: of full-size images, on the hardware; else of small ones, and of at most EMULATED_BATCH.
    """
    size = "full size" if full else "small images and few default boxes"
    most = largest if full else min(largest, EMULATED_BATCH)
    words = ", the configs' largest" if most == largest else f"; {largest}, the configs' largest, on hardware only"
    return [
        _sized(op, f"batch {batch}, {size}{words * (batch == most)}", batch, seed=100 + batch, full=full)
        for batch in sorted({*BATCHES, most})
    ]


def small_case(op: str) -> Case:
    """A cheap case, with more than one block of a launch."""
    return _sized(op, "small", 3, seed=7, full=False)


def repeated_case(op: str, hardware: bool) -> Case:
    """What is called 200 times: on the hardware a batch that fills it, as a race shows where many blocks run at once.

    A stand-in runs one block after the other. What shows there is what a call leaves behind for later ones, so one
    image is enough.
    """
    return timed_case(op) if hardware else _sized(op, "repeated", 1, seed=7, full=False)


def _sized(op: str, name: str, batch: int, *, seed: int, full: bool, dtype: torch.dtype = torch.float32) -> Case:
    """An ordinary batch. Small: odd sizes, so that the last block of a launch is not full."""
    if op == "augment":
        options = {"dtype": dtype, "channels_last": dtype != torch.float32}
        height, width = (300, 300) if full else (5, 7)
        return augment_case(name, partial(inputs.images, batch, seed=seed, height=height, width=width), options)
    if op == "crop":
        # A program of the emulator costs as much for a few pixels as for many, and more for each cell of a triangle.
        height, width, size = (480, 640, 300) if full else (9, 11, 70) if batch == 3 else (2, 9, 5)
        bounds = {"height": height, "width": width, "size": size}
        return crop_case(name, partial(inputs.crops, batch, height, width, seed=seed), bounds)
    defaults = NUM_DEFAULTS if full else 301
    if op == "encode":
        return encode_case(name, partial(inputs.truth, batch, 20 if full else 3, seed=seed, defaults=defaults))
    if op == "loss":
        positives, classes = [10 + image % 3 for image in range(batch)], 81 if full else 5
        return loss_case(name, partial(inputs.predictions, positives, classes, seed=seed, defaults=defaults), dtype)
    classes, count = (81, 300) if full else (3, 30)
    return detect_case(name, partial(inputs.peaks, [count] * batch, classes, seed=seed, defaults=defaults), dtype)


def random_cases(op: str, seed: int) -> list[Case]:
    """Cases whose sizes, layouts, precisions and options are drawn from a seed: every argument of the contract."""
    return [_random_case(op, number, random.Random(f"{seed} {op} {number}")) for number in range(1, RANDOM_CASES + 1)]


def _random_case(op: str, number: int, draw: random.Random) -> Case:
    """The first half of them has up to full-size inputs; the others are small, and of up to 32 images.

    Emulators run programs one after the other: many images have few boxes and classes.
    """
    large = number <= RANDOM_CASES // 2
    seed, dtype, layout = draw.randrange(2**31), draw.choice(DTYPES), draw.choice(LAYOUTS)
    most = 16 if op in ("loss", "detect") else 32
    batch = draw.randint(1, 6) if large else draw.choice((2, 3, 5, 8, draw.randint(9, most)))
    defaults = draw.choice((NUM_DEFAULTS, draw.randint(200, 2000))) if large else draw.randint(20, 400)
    classes, strided = draw.randint(2, (90 if batch < 3 or op == "loss" else 20) if large else 4), layout == "strided"
    options: dict[str, Any]
    name = f"random {number}: B={batch}, {str(dtype).removeprefix('torch.')}{', ' * (layout != 'dense')}"
    name += layout * (layout != "dense")
    if op == "augment":
        height, width = (draw.randint(1, 320 if large else 40) for _ in range(2))
        options = {"dtype": dtype, "channels": draw.choice((3, 4)), "channels_last": draw.random() < 0.5}
        make: Any = partial(inputs.images, batch, seed=seed, strided=strided, height=height, width=width)
        inference = draw.random() < 1 / 4
        if draw.random() < 1 / 4:
            make, name = partial(inputs.only_images, make), f"{name}, no draws"
        laid_out = _laid_out(layout, make, draw)
        return augment_case(f"{name}, {height} x {width}", laid_out, options, inference=inference)
    if op == "crop":
        height, width = (draw.randint(1, 90 if large else 12) for _ in range(2))
        options = {"height": height, "width": width, "size": draw.randint(1, 48 if large else 9)}
        make = partial(inputs.crops, batch, height, width, seed=seed, strided=strided, yuv=draw.random() < 1 / 2)
        name = f"random {number}: B={batch}, {layout}, at most {height} x {width} to {options['size']}"
        return crop_case(name, _laid_out(layout, make, draw, 8), options, inference=draw.random() < 1 / 4)
    name = f"{name}, D={defaults}"
    if op == "encode":
        options = {"criteria": draw.uniform(0.1, 0.9), "epsilon": draw.choice((0.0, 1e-5))}
        make = partial(
            inputs.truth, batch, draw.randint(0, 40 if large else 6), seed=seed, strided=strided, defaults=defaults
        )
        return encode_case(name, _laid_out(layout, make, draw), **options)
    if op == "loss":
        positives = [draw.randint(0, defaults // draw.choice((1, 20))) for _ in range(batch)]
        weights = tuple(draw.choice((-1, 1)) * 10 ** draw.uniform(-2, 2) for _ in range(draw.choice((1, batch))))
        make = partial(inputs.predictions, positives, classes, seed=seed, strided=strided, defaults=defaults)
        return loss_case(
            f"{name}, C={classes}", _laid_out(layout, make, draw), dtype, weights=weights,
            gradients=draw.choice((*GRADIENTS, "of both")), negative_ratio=draw.randint(1, 5),
        )  # fmt: skip
    options = {"score_threshold": draw.uniform(0.02, 0.5), "nms_overlap": draw.uniform(0.2, 0.8)}
    options |= {"max_candidates": draw.randint(1, 300), "max_detections": draw.randint(1, 300)}
    counts = [draw.randint(0, defaults // 2) for _ in range(batch)]
    make = partial(inputs.peaks, counts, classes, seed=seed, strided=strided, defaults=defaults)
    laid_out, inference = _laid_out(layout, make, draw), draw.random() < 1 / 2
    return detect_case(f"{name}, C={classes}", laid_out, dtype, inference=inference, **options)


def _laid_out(layout: str, make: Any, draw: random.Random, tensors: int = 4) -> Any:
    """Makes the inputs of `make` in a layout; which of the tensors are apart, or dimensions have gaps, is drawn."""
    some = {place for place in range(tensors) if draw.random() < 1 / 2}
    ways: dict[str, Any] = {"apart": {}, "partly apart": {"only": some}, "gaps": {"gaps": some}}
    return partial(inputs.apart, make, **ways[layout]) if layout in ways else make
