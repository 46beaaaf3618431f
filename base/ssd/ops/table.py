"""`Ops`, the kernels of a run, and the signature of each op. The default kernels are this folder's references.

A signature is a Protocol. So mypy compares the names, order, defaults and types of every override with it. The values
that an override computes are compared by `ssd.conformance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ssd.boxes import DefaultBoxes
from ssd.counts import IMAGE_SIZE
from ssd.ops.augment import ColourDraws, augment
from ssd.ops.crop import Plane, crop
from ssd.ops.detect import Detections, detect
from ssd.ops.encode import encode
from ssd.ops.loss import loss

__all__ = ["OP_NAMES", "REFERENCE", "AnyOp", "Augment", "Crop", "Detect", "Detections", "Encode", "Loss", "Ops"]

OP_NAMES = ("augment", "encode", "loss", "detect", "crop")


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
        """Turn images (B, H, W, 3) uint8 into the network's input (B, channels, H, W) `dtype`."""


class Encode(Protocol):
    """Signature of the op `encode`. The contract is the docstring of `ssd.ops.encode.encode`."""

    def __call__(
        self, boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float = 0.5, epsilon: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Match boxes (B, N, 4) float32 with labels (B, N) int64: offsets (B, 4, D) float32, labels (B, D) int64."""


class Loss(Protocol):
    """Signature of the op `loss`. The contract is the docstring of `ssd.ops.loss.loss`."""

    def __call__(
        self, locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3
    ) -> Tensor:
        """The loss (B,) float32 of each image.

        locations (B, 4, D) and logits (B, C, D), any float dtype. Targets: offsets (B, 4, D) float32, labels (B, D)
        int64.
        """


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
        """The detections of each image, from locations (B, 4, D) and logits (B, C, D), any float dtype."""


class Crop(Protocol):
    """Signature of the op `crop`. The contract is the docstring of `ssd.ops.crop.crop`."""

    def __call__(
        self,
        slots: Tensor,
        rectangles: Tensor,
        planes: tuple[Plane, ...],
        *,
        height: int,
        width: int,
        size: int = IMAGE_SIZE,
    ) -> Tensor:
        """Cut rectangles (B, 4) int64 out of the images in slots (B,) int64: (B, size, size, 3) uint8."""


AnyOp: TypeAlias = Augment | Encode | Loss | Detect | Crop


@dataclass(frozen=True)
class Ops:
    """The kernels of a run. A vendor returns `dataclasses.replace(REFERENCE, loss=...)`."""

    augment: Augment = augment
    encode: Encode = encode
    loss: Loss = loss
    detect: Detect = detect
    crop: Crop = crop


REFERENCE = Ops()
