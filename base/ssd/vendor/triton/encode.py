"""Op `encode` in two Triton kernels, with no (N, 8,732) matrix of overlaps in memory.

The first gives each ground truth its best default box; the second gives each default box its best ground truth,
computing the overlaps anew (cheaper than writing and reading them), and applies the first kernel's choices: it walks
over the ground truths in order, so of several with one best default the last wins, and nothing is written twice.

Ties and the criteria are decided on float32 bits, so the overlap is computed operation for operation as ssd.boxes.iou
does: division rounds to nearest and products are not fused into additions (`enable_fp_fusion=False`).
"""
# Triton derives the types of a kernel's arguments from what it is started with; annotations would mean nothing.
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssd.boxes import WH_WEIGHT, XY_WEIGHT, DefaultBoxes
from ssd.vendor.triton.launch import INTERPRETED, launch

__all__ = ["encode", "overlap"]

NOT_SPECIALISED = ("N",)
"""N changes with every batch: a program of its own for 1 and for multiples of 16 would be compiled within the run."""


@triton.jit
def overlap(l1, t1, r1, b1, l2, t2, r2, b2):
    """Intersection over union of boxes given by their sides; 0 where there is nothing to divide by."""
    width = tl.maximum(tl.minimum(r1, r2) - tl.maximum(l1, l2), 0.0)
    height = tl.maximum(tl.minimum(b1, b2) - tl.maximum(t1, t2), 0.0)
    intersection = width * height
    union = (r1 - l1) * (b1 - t1) + (r2 - l2) * (b2 - t2) - intersection
    return tl.where(union > 0.0, tl.div_rn(intersection, tl.where(union > 0.0, union, 1.0)), 0.0)


@triton.jit
def _load_truth(boxes, labels, at):
    """Sides of one ground truth and whether it counts: a label, an area, and numbers only (NaN fails a comparison)."""
    left, top = tl.load(boxes + at * 4), tl.load(boxes + at * 4 + 1)
    right, bottom = tl.load(boxes + at * 4 + 2), tl.load(boxes + at * 4 + 3)
    real = (tl.load(labels + at) > 0) & (right > left) & (bottom > top)
    real = real & (left > float("-inf")) & (top > float("-inf")) & (right < float("inf")) & (bottom < float("inf"))
    return left, top, right, bottom, real


@triton.jit
def _load_sides(ltrb, d, inside):
    """Sides of default boxes."""
    left, top = tl.load(ltrb + d * 4, mask=inside, other=0.0), tl.load(ltrb + d * 4 + 1, mask=inside, other=0.0)
    right, bottom = tl.load(ltrb + d * 4 + 2, mask=inside, other=0.0), tl.load(ltrb + d * 4 + 3, mask=inside, other=0.0)
    return left, top, right, bottom


@triton.jit(do_not_specialize=NOT_SPECIALISED)
def _best_defaults(boxes, labels, ltrb, best, N, D, BLOCK: tl.constexpr):
    """best[b, n] = default box with the largest overlap, the lowest of equals; -1 for padding. Grid (N, B)."""
    at = tl.program_id(1).to(tl.int64) * N + tl.program_id(0)
    l1, t1, r1, b1, real = _load_truth(boxes, labels, at)
    if real:
        largest = tl.full((BLOCK,), -1.0, tl.float32)
        where = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, D, BLOCK):
            d = start + tl.arange(0, BLOCK)
            inside = d < D
            l2, t2, r2, b2 = _load_sides(ltrb, d, inside)
            iou = overlap(l1, t1, r1, b1, l2, t2, r2, b2)
            better = inside & (iou > largest)
            largest = tl.where(better, iou, largest)
            where = tl.where(better, d, where)
        tl.store(best + at, tl.min(tl.where(largest == tl.max(largest), where, D)))
    else:
        tl.store(best + at, -1)


@triton.jit(do_not_specialize=NOT_SPECIALISED)
def _assign(
    boxes, labels, ltrb, xywh, best, offsets, targets, N, D, criteria, epsilon,
    XY: tl.constexpr, WH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Offsets (B, 4, D) and labels (B, D) of a block of default boxes of one image. Grid (blocks of D, B)."""
    image = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = d < D
    l2, t2, r2, b2 = _load_sides(ltrb, d, inside)
    largest = tl.full((BLOCK,), -1.0, tl.float32)
    match = tl.full((BLOCK,), -1, tl.int32)
    forced = tl.full((BLOCK,), -1, tl.int32)
    for n in range(N):
        at = image * N + n
        l1, t1, r1, b1, real = _load_truth(boxes, labels, at)
        if real:
            iou = overlap(l1, t1, r1, b1, l2, t2, r2, b2)
            better = iou > largest
            largest = tl.where(better, iou, largest)
            match = tl.where(better, n, match)
            forced = tl.where(d == tl.load(best + at), n, forced)
    match = tl.where(forced >= 0, forced, tl.where(largest > criteria, match, -1))

    positive = inside & (match >= 0)
    at = image * N + tl.maximum(match, 0)
    label = tl.load(labels + at, mask=positive, other=0)
    l1, t1, r1, b1 = _load_sides(boxes, at, positive)
    x, y = tl.load(xywh + d * 4, mask=inside, other=0.0), tl.load(xywh + d * 4 + 1, mask=inside, other=0.0)
    w = tl.load(xywh + d * 4 + 2, mask=inside, other=1.0) + epsilon
    h = tl.load(xywh + d * 4 + 3, mask=inside, other=1.0) + epsilon
    tl.store(targets + image * D + d, label, mask=inside)
    row = offsets + image * 4 * D + d
    tl.store(row, tl.where(positive, XY * ((l1 + r1) * 0.5 - x) / w, 0.0), mask=inside)
    tl.store(row + D, tl.where(positive, XY * ((t1 + b1) * 0.5 - y) / h, 0.0), mask=inside)
    tl.store(row + 2 * D, tl.where(positive, WH * tl.log((r1 - l1) / w + epsilon), 0.0), mask=inside)
    tl.store(row + 3 * D, tl.where(positive, WH * tl.log((b1 - t1) / h + epsilon), 0.0), mask=inside)


def encode(
    boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float = 0.5, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Offsets (B, 4, D) float32 and labels (B, D) int64; contract in ssd.ops.encode."""
    batch, most = labels.shape
    count = defaults.ltrb.shape[0]
    boxes, labels = boxes.float().contiguous(), labels.contiguous()
    ltrb, xywh = defaults.ltrb.contiguous(), defaults.xywh.contiguous()
    best = labels.new_empty((batch, most), dtype=torch.int32)
    offsets = boxes.new_empty((batch, 4, count))
    targets = labels.new_empty((batch, count))
    block = 4096 if INTERPRETED else 1024
    launch(
        _best_defaults, (most, batch), boxes, labels, ltrb, best, most, count,
        BLOCK=block, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    block = 4096 if INTERPRETED else 512
    launch(
        _assign, (triton.cdiv(count, block), batch),
        boxes, labels, ltrb, xywh, best, offsets, targets, most, count, criteria, epsilon,
        XY=XY_WEIGHT, WH=WH_WEIGHT, BLOCK=block, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return offsets, targets
