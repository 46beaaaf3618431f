"""The benchmark's optimizer: momentum SGD with weight decay on every parameter, by torch, fused or not."""

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
    """torch's SGD with one parameter group. The learning rate may change between steps.

    fused: use one kernel for all parameters. That kernel also unscales fp16 gradients, and skips the step where one of
    them overflowed, all on the device. Without it GradScaler copies the overflow flag to the host, which synchronises
    with the device in every step. Raises MachineError where this torch has no such kernel for the parameters' device.
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
        # torch allocates the momentum buffers in the first step, without initialising them. Where the kernel skips
        # that step they keep whatever the memory held, and the next steps add it to the weights. An overflow in the
        # first step of fp16 is common. So the buffers are made here, with the zeros that a first step starts from.
        for parameter in optimizer.param_groups[0]["params"] if momentum else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        optimizer.register_step_pre_hook(_align_gradients)
    return optimizer


def _align_gradients(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Give each gradient exactly the strides of its parameter, which the fused kernel on accelerators requires.

    Autograd may give an axis of length 1 another stride, as in a 1x1 convolution. Such a stride has no meaning, so only
    the description of the memory changes. https://github.com/pytorch/pytorch/issues/106951
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = gradient.as_strided(parameter.shape, parameter.stride())
