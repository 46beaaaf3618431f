"""Device function shared by the loss and the detections: the k largest of a row of integer keys, without sorting it.

Non-negative floats order as their bits do, so a row of scores is a row of int32 keys. The k-th largest is built bit by
bit from the top: a bit stays set if at least k keys are still >= the prefix. That is 31 counts over a row held in
registers, against the many passes of a sort, and the result is exact. Keys below 0 are never chosen.
"""
# Triton derives the types of a kernel's arguments from what it is started with; annotations would mean nothing.
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["largest"]


@triton.jit
def largest(keys, k):
    """Mask of the k largest of `keys` (BLOCK,) int32, of all >= 0 if there are fewer; equals: lowest index first."""
    threshold = tl.full((), 0, tl.int32)
    bit = tl.full((), 1 << 30, tl.int32)
    for _ in range(31):
        candidate = threshold | bit
        count = tl.sum((keys >= candidate).to(tl.int32))
        threshold = tl.where(count >= k, candidate, threshold)
        bit = bit >> 1
    above = keys > threshold
    tied = keys == threshold
    spare = k - tl.sum(above.to(tl.int32))
    return above | (tied & (tl.cumsum(tied.to(tl.int32)) <= spare))
