"""Op `loss` in three Triton kernels: the cost of every default box, mining and sum an image, gradients.

What it spares against the reference: no sort of 8,732 scores (see select.py), logits read once forward and, backward,
only in the columns that count. Sums are taken in a fixed order, without atomics: a result repeats bit for bit.
Letters as in ssd.ops; a column is the C logits of one default box.
"""
# Triton derives the types of a kernel's arguments from what it is started with; annotations would mean nothing.
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssd.vendor.triton.launch import INTERPRETED, launch, power_of_2
from ssd.vendor.triton.select import largest

__all__ = ["loss"]

TILE = 2**19 if INTERPRETED else 2**13
"""Elements of a (classes, default boxes) tile: 64 floats a thread in the 4 warps of a block."""


@triton.jit
def _costs(
    logits, locations, labels, offsets, costs,
    logits_b, logits_c, logits_d, locations_b, locations_c, locations_d, D, C,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What each default box adds to its image's loss if it counts, (B, D) bits of float32. Grid (blocks of D, B).

    Cross-entropy, and for positives smooth-L1 too. Costs are >= 0, so the sign bit is free to say "positive", and as
    int32 the rest orders as the costs do, with what is not a number above infinity.
    """
    image = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    c = tl.arange(0, BLOCK_C)
    inside = d < D
    label = tl.load(labels + image * D + d, mask=inside, other=0)
    positive = label > 0
    rows = logits + image * logits_b + c.to(tl.int64) * logits_c
    x = tl.load(
        rows[:, None] + (d.to(tl.int64) * logits_d)[None, :], mask=(c < C)[:, None] & inside[None, :], other=0.0
    )
    x = tl.where((c < C)[:, None], x.to(tl.float32), float("-inf"))
    top = tl.max(x, 0)
    own = tl.sum(tl.where(c[:, None] == label[None, :], x, 0.0), 0)
    cost = (top - own) + tl.log(tl.sum(tl.exp(x - top[None, :]), 0))
    for k in tl.static_range(4):
        at = image * locations_b + k * locations_c + d.to(tl.int64) * locations_d
        location = tl.load(locations + at, mask=inside, other=0.0).to(tl.float32)
        size = tl.abs(location - tl.load(offsets + (image * 4 + k) * D + d, mask=inside, other=0.0))
        # A product and not a selection: 0 * NaN is NaN, so a broken output is seen wherever it is.
        cost += tl.where(size < 1.0, 0.5 * size * size, size - 0.5) * positive.to(tl.float32)
    bits = tl.where(cost == cost, cost.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0x7FC00000)
    tl.store(costs + image * D + d, bits | (positive.to(tl.int32) << 31), mask=inside)


@triton.jit
def _mine(costs, losses, scales, states, D, ratio, BLOCK: tl.constexpr):
    """Loss and 1 / positives of one image, and its columns' states: 1 counts, 2 broken. Grid (B,); a block is a row."""
    image = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < D
    bits = tl.load(costs + image * D + d, mask=inside, other=-1)
    positive = inside & (bits < 0)
    positives = tl.sum(positive.to(tl.int32))
    count = positive | largest(bits, ratio * positives)
    size = tl.where(inside, bits & 0x7FFFFFFF, 0)
    scale = 1.0 / tl.maximum(positives, 1).to(tl.float32)
    total = tl.sum(size.to(tl.float32, bitcast=True) * count.to(tl.float32))
    tl.store(losses + image, total * scale)
    tl.store(scales + image, scale)
    tl.store(states + image * D + d, count.to(tl.uint8) | ((size >= 0x7F800000).to(tl.uint8) << 1), mask=inside)


@triton.jit
def _gradients(
    grad_losses, scales, states, logits, locations, labels, offsets, grad_logits, grad_locations,
    logits_b, logits_c, logits_d, locations_b, locations_c, locations_d, D, C,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of both inputs, (B, C, D) and (B, 4, D) contiguous; 0 where nothing counts. Grid (blocks of D, B)."""
    image = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    c = tl.arange(0, BLOCK_C)
    inside = d < D
    label = tl.load(labels + image * D + d, mask=inside, other=0)
    state = tl.load(states + image * D + d, mask=inside, other=0)
    seen = state > 0
    scale = tl.load(grad_losses + image) * tl.load(scales + image)

    tile = (c < C)[:, None] & inside[None, :]
    rows = logits + image * logits_b + c.to(tl.int64) * logits_c
    x = tl.load(rows[:, None] + (d.to(tl.int64) * logits_d)[None, :], mask=tile & seen[None, :], other=0.0)
    x = tl.where((c < C)[:, None], x.to(tl.float32), float("-inf"))
    p = tl.exp(x - tl.max(x, 0)[None, :])
    p = p / tl.sum(p, 0)[None, :] - tl.where(c[:, None] == label[None, :], 1.0, 0.0)
    # Broken columns that do not count weigh 0, and 0 * NaN is NaN: a scaler of gradients must see them.
    grad = tl.where(seen[None, :], p * (scale * (state & 1).to(tl.float32))[None, :], 0.0)
    # Places within an image fit 32 bits: half of the registers that pointers would take.
    out = grad_logits + image * C * D + (c[:, None] * D + d[None, :])
    tl.store(out, grad.to(grad_logits.dtype.element_ty), mask=tile)

    weight = scale * (label > 0).to(tl.float32)
    for k in tl.static_range(4):
        at = image * locations_b + k * locations_c + d.to(tl.int64) * locations_d
        location = tl.load(locations + at, mask=seen, other=0.0).to(tl.float32)
        delta = location - tl.load(offsets + (image * 4 + k) * D + d, mask=seen, other=0.0)
        # Two selections and not a clamp, which on the GPU would turn "not a number" into a bound.
        slope = tl.where(delta > 1.0, 1.0, tl.where(delta < -1.0, -1.0, delta))
        tl.store(
            grad_locations + (image * 4 + k) * D + d, (slope * weight).to(grad_locations.dtype.element_ty), mask=inside
        )


class _Loss(torch.autograd.Function):
    """The kernels as one differentiable function; the gradient of the gradient is not defined."""

    @staticmethod
    def forward(
        ctx: Any, locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, negative_ratio: int
    ) -> Tensor:
        """Losses (B,) float32. Saves its inputs and what was mined, a byte a default box."""
        batch, classes, defaults = logits.shape
        costs = logits.new_empty((batch, defaults), dtype=torch.int32)
        losses, scales = logits.new_empty((2, batch), dtype=torch.float32)
        states = logits.new_empty((batch, defaults), dtype=torch.uint8)
        block_c = power_of_2(classes)
        block_d = max(16, min(TILE // block_c, power_of_2(defaults)))
        launch(
            _costs, (triton.cdiv(defaults, block_d), batch),
            logits, locations, labels, offsets, costs, *logits.stride(), *locations.stride(), defaults, classes,
            BLOCK_C=block_c, BLOCK_D=block_d, num_warps=4,
        )  # fmt: skip
        launch(
            _mine, (batch,), costs, losses, scales, states, defaults, negative_ratio,
            BLOCK=power_of_2(defaults), num_warps=16,
        )  # fmt: skip
        ctx.save_for_backward(locations, logits, offsets, labels, scales, states)
        ctx.blocks = block_c, block_d
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of locations and logits, in their dtypes."""
        locations, logits, offsets, labels, scales, states = ctx.saved_tensors
        batch, classes, defaults = logits.shape
        block_c, block_d = ctx.blocks
        grad_logits = logits.new_empty(logits.shape)
        grad_locations = locations.new_empty(locations.shape)
        launch(
            _gradients, (triton.cdiv(defaults, block_d), batch),
            grad_losses.contiguous(), scales, states, logits, locations, labels, offsets, grad_logits, grad_locations,
            *logits.stride(), *locations.stride(), defaults, classes,
            BLOCK_C=block_c, BLOCK_D=block_d, num_warps=8,
        )  # fmt: skip
        return grad_locations, grad_logits, None, None, None


def loss(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3) -> Tensor:
    """Per-image loss (B,) float32; contract in ssd.ops.loss. locations and logits may have any strides."""
    return _Loss.apply(locations, logits, offsets.contiguous(), labels.contiguous(), negative_ratio)
