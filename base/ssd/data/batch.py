"""What every loader gives: the two batch types, and what the train loop asks of a loader.

Ranks, seed and epoch are arguments, never globals.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from ssd.data.index import Index

__all__ = ["EvalBatch", "TrainBatch", "TrainLoader"]


@dataclass(frozen=True)
class TrainBatch:
    """One micro-batch of one process. Images lie on the CPU or on the device, the rest on the CPU (pinned where asked).

    images (B, 300, 300, 3) uint8, cropped and resized, not mirrored. boxes (B, N, 4) float32 ltrb, mirrored already,
    zero padded; labels (B, N) int64, 0 = padding. flip (B,) bool, factors (B, 4) float32, order (B, 4) int64: the drawn
    colour jitter, see ssd.ops.augment.ColourDraws. rows: the images' rows in the index, kept on the host to name them.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    flip: Tensor
    factors: Tensor
    order: Tensor
    rows: tuple[int, ...]


@dataclass(frozen=True)
class EvalBatch:
    """Whole images (B, 300, 300, 3) uint8, resized. rows: theirs in the index. sizes (B, 2) int64: width, height."""

    images: Tensor
    rows: tuple[int, ...]
    sizes: Tensor


class TrainLoader(Protocol):
    """What the train loop asks of every backend."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch: ceil(samples / global batch)."""
        ...

    @property
    def samples(self) -> int:
        """Training images."""
        ...

    @property
    def repeats(self) -> int:
        """Samples an epoch sees twice, to fill its last step."""
        ...

    @property
    def index(self) -> Index:
        """The annotations that samples come from."""
        ...

    @property
    def skipped(self) -> Sequence[object]:
        """Samples of this process that could not be decoded and were replaced, so far."""
        ...

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """Micro-batches of `epoch` (from 1) for this process, from optimizer step `first_step` of it on.

        Yields gradient_accumulation_steps batches a step. What is random depends on (seed, epoch, sample) alone.
        """
        ...
