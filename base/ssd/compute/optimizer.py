"""The benchmark's optimizer, momentum SGD with weight decay on every parameter, in torch's two ways to run it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
        optimizer = torch.optim.SGD(
            parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, fused=fused or None
        )
    except RuntimeError as error:
        if not fused:
            raise
        raise MachineError(
            f'optimizer = "torch_fused": torch {torch.__version__} cannot: {error} Set optimizer = "torch".'
        ) from error
    if fused:
        # Zeros are what a first step starts from. torch allocates the velocities there and then, and leaves them unset
        # where the kernel skips that step: an overflow in the first step of fp16 is common, and what follows is noise.
        for parameter in optimizer.param_groups[0]["params"] if momentum else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        optimizer.register_step_pre_hook(_align_gradients)
    return optimizer


def _align_gradients(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Give each gradient its parameter's very strides, which the fused kernel on accelerators asks for.

    Autograd lets them differ where an axis has length 1, as in a 1x1 convolution; there they mean nothing. The memory
    stays. https://github.com/pytorch/pytorch/issues/106951
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = gradient.as_strided(parameter.shape, parameter.stride())
