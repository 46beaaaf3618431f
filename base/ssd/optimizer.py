"""The benchmark's optimizer, momentum SGD with weight decay on every parameter, in torch's two ways to run it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ssd.errors import MachineError

__all__ = ["make_sgd"]


def make_sgd(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, momentum: float, weight_decay: float, fused: bool
) -> torch.optim.SGD:
    """torch's SGD, one parameter group. Learning rates may change between steps.

    fused: one kernel for all parameters, which also unscales fp16 gradients and skips the step where one overflowed, on
    the device; without it the scaler reads that verdict back, a wait for the device every step. MachineError where this
    torch has no such kernel for the parameters' device.
    """
    try:
        return torch.optim.SGD(
            parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, fused=fused or None
        )
    except RuntimeError as error:
        if not fused:
            raise
        raise MachineError(
            f'optimizer = "torch_fused": torch {torch.__version__} cannot: {error} Set optimizer = "torch".'
        ) from error
