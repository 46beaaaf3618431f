"""Op `detect`: four Triton kernels and one torch.topk for all images and classes at once; static shapes, no host sync.

1. `_softmax_terms`: maximum and sum of every column, so that a score is one exp; boxes that are not finite drop out.
2. `_candidates`: per image and class, scores over the threshold, the best 200 of them (select.py), compacted.
3. `_suppress`: greedy NMS of those candidates. It needs no sort: "better" is a comparison of unique keys, score first
   and default box second. Who may suppress whom is a matrix of bits; the greedy result is the one fixed point of
   "kept unless a kept better box overlaps", found by repeating that until nothing changes: as many rounds as the
   longest chain of suppressions, a handful, where the loop over boxes takes one round a box.
4. torch.topk over the keys of an image's survivors, which are unique, so its order is defined; `_write` decodes them.

A key is int64: bits of the score (31), then default box and class, complemented so that the lowest wins.
Overlaps and offsets are computed as in ssd.boxes, without fused products, so that decisions fall as in the reference.
"""
# Triton derives the types of a kernel's arguments from what it is started with; annotations would mean nothing.
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssd.boxes import WH_WEIGHT, XY_WEIGHT, DefaultBoxes
from ssd.ops.detect import Detections
from ssd.vendor.triton.encode import overlap
from ssd.vendor.triton.launch import INTERPRETED, launch, power_of_2
from ssd.vendor.triton.select import largest

__all__ = ["detect"]

TILE = 2**19 if INTERPRETED else 2**13
"""Elements of a (classes, default boxes) tile of `_softmax_terms`."""
PAIRS = 32
"""Columns of a tile of pairs, one bit each of an int32."""


@triton.jit
def _decode(locations, xywh, d, valid, stride_c, stride_d, XY: tl.constexpr, WH: tl.constexpr):
    """Sides of the boxes that `locations` of one image give the default boxes d; zeros where not valid."""
    at = locations + d.to(tl.int64) * stride_d
    dx = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    dy = tl.load(at + stride_c, mask=valid, other=0.0).to(tl.float32)
    dw = tl.load(at + 2 * stride_c, mask=valid, other=0.0).to(tl.float32)
    dh = tl.load(at + 3 * stride_c, mask=valid, other=0.0).to(tl.float32)
    w = tl.load(xywh + d * 4 + 2, mask=valid, other=0.0)
    h = tl.load(xywh + d * 4 + 3, mask=valid, other=0.0)
    x = tl.div_rn(dx, XY) * w + tl.load(xywh + d * 4, mask=valid, other=0.0)
    y = tl.div_rn(dy, XY) * h + tl.load(xywh + d * 4 + 1, mask=valid, other=0.0)
    w, h = tl.exp(tl.div_rn(dw, WH)) * w * 0.5, tl.exp(tl.div_rn(dh, WH)) * h * 0.5
    return x - w, y - h, x + w, y + h


@triton.jit
def _softmax_terms(
    locations, logits, xywh, tops, totals, locations_b, locations_c, locations_d, logits_b, logits_c, logits_d, D, C,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, XY: tl.constexpr, WH: tl.constexpr,
):  # fmt: skip
    """tops[b, d] = maximum of a column, totals[b, d] = sum of exp(logit - maximum). Grid (blocks of D, B).

    A default box whose decoded box is not finite gets a total of NaN, and so no score of it passes a threshold.
    """
    image = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    c = tl.arange(0, BLOCK_C)
    inside = d < D
    rows = logits + image * logits_b + c.to(tl.int64) * logits_c
    x = tl.load(
        rows[:, None] + (d.to(tl.int64) * logits_d)[None, :], mask=(c < C)[:, None] & inside[None, :], other=0.0
    )
    x = tl.where((c < C)[:, None], x.to(tl.float32), float("-inf"))
    top = tl.max(x, 0)
    total = tl.sum(tl.exp(x - top[None, :]), 0)
    x1, y1, x2, y2 = _decode(locations + image * locations_b, xywh, d, inside, locations_c, locations_d, XY, WH)
    # Infinity times 0 is NaN, as is NaN times 0.
    broken = (x1 + y1 + x2 + y2) * 0.0 != 0.0
    tl.store(tops + image * D + d, top, mask=inside)
    tl.store(totals + image * D + d, tl.where(broken, float("nan"), total), mask=inside)


@triton.jit
def _candidates(
    logits, tops, totals, indices, scores, stride_b, stride_c, stride_d, D, C, threshold, most,
    M: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The best `most` default boxes of a class: indices (B, C - 1, M), ascending, then -1; scores. Grid (C - 1, B)."""
    image = tl.program_id(1).to(tl.int64)
    out = (image * (C - 1) + tl.program_id(0)) * M
    d = tl.arange(0, BLOCK)
    inside = d < D
    row = logits + image * stride_b + (tl.program_id(0) + 1).to(tl.int64) * stride_c
    x = tl.load(row + d.to(tl.int64) * stride_d, mask=inside, other=float("-inf")).to(tl.float32)
    top = tl.load(tops + image * D + d, mask=inside, other=0.0)
    score = tl.div_rn(tl.exp(x - top), tl.load(totals + image * D + d, mask=inside, other=1.0))
    key = tl.where(inside & (score > threshold), score.to(tl.int32, bitcast=True), -1)
    chosen = (key >= 0).to(tl.int32)
    if tl.sum(chosen) > most:
        chosen = largest(key, most).to(tl.int32)
    slot = tl.cumsum(chosen) - 1
    tl.store(indices + out + slot, d, mask=chosen > 0)
    tl.store(scores + out + slot, score, mask=chosen > 0)
    slot = tl.arange(0, M)
    tl.store(indices + out + slot, tl.full((M,), -1, tl.int32), mask=slot >= tl.sum(chosen))


@triton.jit
def _rank(score, d):
    """Unique int64 keys of one class's candidates: higher score first, then lower default box; d = -1 gives -1."""
    key = (score.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (0xFFFFF - d).to(tl.int64) << 12
    return tl.where(d >= 0, key, -1)


@triton.jit
def _suppress(
    locations, xywh, indices, scores, keys, stride_b, stride_c, stride_d, D, C, overlap_limit,
    M: tl.constexpr, PAIRS: tl.constexpr, XY: tl.constexpr, WH: tl.constexpr,
):  # fmt: skip
    """Keys (B, C - 1, M) int64 of one class's survivors, -1 for everything else. Grid (C - 1, B)."""
    WORDS: tl.constexpr = M // PAIRS
    image = tl.program_id(1).to(tl.int64)
    at = (image * (C - 1) + tl.program_id(0)) * M
    i = tl.arange(0, M)
    d = tl.load(indices + at + i)
    valid = d >= 0
    key = _rank(tl.load(scores + at + i, mask=valid, other=0.0), d)
    kept = valid
    if tl.max(d) >= 0:
        l1, t1, r1, b1 = _decode(locations + image * stride_b, xywh, d, valid, stride_c, stride_d, XY, WH)
        # suppressors[i, w]: bit j is set if candidate w * PAIRS + j is better than i and overlaps it too much.
        suppressors = tl.zeros((M, WORDS), tl.int32)
        bit = tl.full((PAIRS,), 1, tl.int32) << tl.arange(0, PAIRS)
        for w in range(WORDS):
            j = w * PAIRS + tl.arange(0, PAIRS)
            e = tl.load(indices + at + j)
            rival = e >= 0
            l2, t2, r2, b2 = _decode(locations + image * stride_b, xywh, e, rival, stride_c, stride_d, XY, WH)
            other = _rank(tl.load(scores + at + j, mask=rival, other=0.0), e)
            iou = overlap(
                l1[:, None], t1[:, None], r1[:, None], b1[:, None],
                l2[None, :], t2[None, :], r2[None, :], b2[None, :],
            )  # fmt: skip
            wins = (other[None, :] > key[:, None]) & (iou >= overlap_limit)
            word = tl.sum(tl.where(wins, bit[None, :], 0), 1)
            suppressors = tl.where((tl.arange(0, WORDS) == w)[None, :], word[:, None], suppressors)
        changed = 1
        while changed > 0:
            words = tl.sum(tl.where(tl.reshape(kept, (WORDS, PAIRS)), bit[None, :], 0), 1)
            hit = tl.sum(((suppressors & words[None, :]) != 0).to(tl.int32), 1) > 0
            now = valid & (hit == 0)
            changed = tl.sum((now != kept).to(tl.int32))
            kept = now
    key = key | (0xFFF - tl.program_id(0) - 1).to(tl.int64)
    tl.store(keys + at + i, tl.where(kept, key, -1))


@triton.jit
def _write(
    locations, xywh, best, boxes, scores, labels, count, stride_b, stride_c, stride_d, D, K,
    XY: tl.constexpr, WH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Turn an image's best keys (B, K), descending and then -1, into its detections. Grid (B,)."""
    image = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    key = tl.load(best + image * K + i, mask=i < K, other=-1)
    valid = key >= 0
    d = tl.where(valid, 0xFFFFF - ((key >> 12) & 0xFFFFF), 0).to(tl.int32)
    label = tl.where(valid, 0xFFF - (key & 0xFFF), 0)
    score = tl.where(valid, key >> 32, 0).to(tl.int32).to(tl.float32, bitcast=True)
    left, top, right, bottom = _decode(locations + image * stride_b, xywh, d, valid, stride_c, stride_d, XY, WH)
    at = boxes + (image * K + i) * 4
    tl.store(at, left, mask=i < K)
    tl.store(at + 1, top, mask=i < K)
    tl.store(at + 2, right, mask=i < K)
    tl.store(at + 3, bottom, mask=i < K)
    tl.store(scores + image * K + i, score, mask=i < K)
    tl.store(labels + image * K + i, label, mask=i < K)
    tl.store(count + image, tl.sum(valid.to(tl.int64)))


def _survivors(
    locations: Tensor, logits: Tensor, xywh: Tensor, score_threshold: float, nms_overlap: float, max_candidates: int
) -> Tensor:
    """Keys (B, (C - 1) * M) int64 of every detection before the cut an image, -1 between them."""
    batch, classes, defaults = logits.shape
    tops, totals = logits.new_empty((2, batch, defaults), dtype=torch.float32)
    block_c = power_of_2(classes)
    block_d = max(16, min(TILE // block_c, power_of_2(defaults)))
    launch(
        _softmax_terms, (triton.cdiv(defaults, block_d), batch),
        locations, logits, xywh, tops, totals, *locations.stride(), *logits.stride(), defaults, classes,
        BLOCK_C=block_c, BLOCK_D=block_d, XY=XY_WEIGHT, WH=WH_WEIGHT, num_warps=4,
    )  # fmt: skip
    slots = power_of_2(max_candidates, least=PAIRS)
    indices = logits.new_empty((batch, classes - 1, slots), dtype=torch.int32)
    scores = logits.new_empty((batch, classes - 1, slots), dtype=torch.float32)
    launch(
        _candidates, (classes - 1, batch),
        logits, tops, totals, indices, scores, *logits.stride(), defaults, classes, score_threshold, max_candidates,
        M=slots, BLOCK=power_of_2(defaults), num_warps=16,
    )  # fmt: skip
    keys = logits.new_empty((batch, (classes - 1) * slots), dtype=torch.int64)
    launch(
        _suppress, (classes - 1, batch),
        locations, xywh, indices, scores, keys, *locations.stride(), defaults, classes, nms_overlap,
        M=slots, PAIRS=PAIRS, XY=XY_WEIGHT, WH=WH_WEIGHT, num_warps=16, enable_fp_fusion=False,
    )  # fmt: skip
    return keys


def detect(
    locations: Tensor,
    logits: Tensor,
    defaults: DefaultBoxes,
    *,
    score_threshold: float = 0.05,
    nms_overlap: float = 0.5,
    max_candidates: int = 200,
    max_detections: int = 200,
) -> Detections:
    """Detections (B, max_detections); the contract, with dtypes, is in ssd.ops.detect. Inputs may have any strides."""
    batch = locations.shape[0]
    xywh = defaults.xywh.contiguous()
    keys = _survivors(locations, logits, xywh, score_threshold, nms_overlap, max_candidates)
    if keys.shape[1] < max_detections:
        keys = torch.nn.functional.pad(keys, (0, max_detections - keys.shape[1]), value=-1)
    best = keys.topk(max_detections, dim=1).values
    boxes = locations.new_empty((batch, max_detections, 4), dtype=torch.float32)
    scores = locations.new_empty((batch, max_detections), dtype=torch.float32)
    labels = locations.new_empty((batch, max_detections), dtype=torch.int64)
    count = locations.new_empty((batch,), dtype=torch.int64)
    launch(
        _write, (batch,),
        locations, xywh, best, boxes, scores, labels, count, *locations.stride(), xywh.shape[0], max_detections,
        XY=XY_WEIGHT, WH=WH_WEIGHT, BLOCK=power_of_2(max_detections), num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return Detections(boxes, scores, labels, count)
