"""Ops: the four kernels of a run, by default the references of this folder; and the signature that each op keeps.

A signature is a Protocol, so mypy compares every override with it: names, order, defaults and types. Values are the
business of `ssd.conformance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ssd.boxes import DefaultBoxes
from ssd.ops.augment import ColourDraws, augment
from ssd.ops.detect import Detections, detect
from ssd.ops.encode import encode
from ssd.ops.loss import loss

__all__ = ["OP_NAMES", "REFERENCE", "AnyOp", "Augment", "Detect", "Detections", "Encode", "Loss", "Ops"]

OP_NAMES = ("augment", "encode", "loss", "detect")


class Augment(Protocol):
    """Signature of the op `augment`. The contract is the docstring of `ssd.ops.augment.augment`."""

    def __call__(
        self,
        images: Tensor,
        draws: ColourDraws | None,
        *,
        dtype: torch.dtype = torch.float32,
        channels: int = 3,
        channels_last: bool = False,
    ) -> Tensor:
        """Images (B, H, W, 3) uint8 to network input (B, channels, H, W) `dtype`."""


class Encode(Protocol):
    """Signature of the op `encode`. The contract is the docstring of `ssd.ops.encode.encode`."""

    def __call__(
        self, boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float = 0.5, epsilon: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) float32 and labels (B, N) int64 to offsets (B, 4, D) float32 and labels (B, D) int64."""


class Loss(Protocol):
    """Signature of the op `loss`. The contract is the docstring of `ssd.ops.loss.loss`."""

    def __call__(
        self, locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3
    ) -> Tensor:
        """Network output (B, 4, D), (B, C, D) and targets (B, 4, D), (B, D) to each image's loss (B,) float32."""


class Detect(Protocol):
    """Signature of the op `detect`. The contract is the docstring of `ssd.ops.detect.detect`."""

    def __call__(
        self,
        locations: Tensor,
        logits: Tensor,
        defaults: DefaultBoxes,
        *,
        score_threshold: float = 0.05,
        nms_overlap: float = 0.5,
        max_candidates: int = 200,
        max_detections: int = 200,
    ) -> Detections:
        """Network output (B, 4, D) and (B, C, D) to the detections of each image."""


AnyOp: TypeAlias = Augment | Encode | Loss | Detect


@dataclass(frozen=True)
class Ops:
    """The kernels of a run. A vendor returns `dataclasses.replace(REFERENCE, loss=...)`."""

    augment: Augment = augment
    encode: Encode = encode
    loss: Loss = loss
    detect: Detect = detect


REFERENCE = Ops()
