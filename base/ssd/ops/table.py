"""Ops: the four kernels of a run, by default the references of this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ssd.ops.augment import augment
from ssd.ops.detect import Detections, detect
from ssd.ops.encode import encode
from ssd.ops.loss import loss

__all__ = ["OP_NAMES", "REFERENCE", "Detections", "Ops"]

OP_NAMES = ("augment", "encode", "loss", "detect")


@dataclass(frozen=True)
class Ops:
    """The kernels of a run. A vendor returns `dataclasses.replace(REFERENCE, loss=...)`."""

    augment: Callable[..., Tensor] = augment
    encode: Callable[..., tuple[Tensor, Tensor]] = encode
    loss: Callable[..., Tensor] = loss
    detect: Callable[..., Detections] = detect


REFERENCE = Ops()
