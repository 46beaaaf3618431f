"""The two batch types that every loader gives, and the protocol of a training loader.

Ranks, seed and epoch are arguments of a loader, never globals.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ssd.data.index import Index

__all__ = ["EvalBatch", "TrainBatch", "TrainLoader"]


@dataclass(frozen=True)
class TrainBatch:
    """One micro-batch of one process. Images lie on the CPU or on the device. All other tensors lie on the CPU.

    Tensors on the CPU are in pinned memory where the loader was told so.

    images: (B, 300, 300, 3) uint8, cropped and resized, but not mirrored yet. boxes: (B, N, 4) float32 ltrb, mirrored
    already, padded with zeros. labels: (B, N) int64, 0 for padding. flip (B,) bool, factors (B, 4) float32 and order
    (B, 4) int64: the drawn mirroring and colour jitter, see ssd.ops.augment.ColourDraws. rows: each image's row in the
    index. They stay on the host, so that a message can name the images.
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
    """One batch of evaluation. images: (B, 300, 300, 3) uint8, whole images, resized.

    rows: each image's row in the index. sizes: (B, 2) int64, width and height of each image in pixels before resizing.
    """

    images: Tensor
    rows: tuple[int, ...]
    sizes: Tensor


class TrainLoader(Protocol):
    """The interface of a training loader. Each value of the key `data_backend` has a class with it."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch: ceil(samples / global batch)."""
        ...

    @property
    def samples(self) -> int:
        """The number of training images over all processes."""
        ...

    @property
    def repeats(self) -> int:
        """The number of samples that an epoch sees twice over all processes, to fill its last step."""
        ...

    @property
    def index(self) -> Index:
        """The annotations of the samples."""
        ...

    @property
    def skipped(self) -> Sequence[object]:
        """The samples of this process that could not be decoded so far. Other samples took their places."""
        ...

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """The micro-batches of this process in `epoch` (counted from 1), from its optimizer step `first_step` on.

        Yields gradient_accumulation_steps batches for each optimizer step. All random numbers depend on seed, epoch and
        the sample's position alone.
        """
        ...
