"""Two ways to average gradients over the processes: torch's DDP with bf16 communication, and one flat buffer.

DDP is the default. It overlaps the all-reduce with the backward pass. A CUDA graph cannot easily capture DDP, which has
buckets, hooks and streams of its own, and DDP needs collectives of the device. With CUDA graphs, and on a device
without collectives, the gradients are therefore views of one buffer, which is all-reduced after the backward pass. The
buffer has 80 MB as float32 and 40 MB as bfloat16. That all-reduce is not overlapped with anything.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from ssd.compute.ranks import Ranks

__all__ = ["FlatGradients", "communicate_in_bf16"]


def communicate_in_bf16(model: nn.parallel.DistributedDataParallel) -> None:
    """Let DDP all-reduce gradients as bfloat16. The gradients that the optimizer reads stay float32.

    Gradients are divided by world_size before the sum, so that the sum does not overflow. The all-reduce rounds each
    partial sum to bfloat16's 8 significant bits.
    """
    model.register_comm_hook(None, bf16_compress_hook)


class FlatGradients:
    """Makes every parameter's gradient a view of one float32 buffer, whose address stays the same for the whole run.

    A captured step adds its gradients to this buffer. Clear the gradients in place, by
    `optimizer.zero_grad(set_to_none=False)`.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, wire: torch.dtype = torch.float32) -> None:
        """Set the gradients of `model`, and send rank 0's parameters and buffers to all ranks, as DDP does.

        wire: the dtype that is communicated, float32 or bfloat16.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._ranks = ranks
        self._flat = parameters[0].new_zeros(sum(p.numel() for p in parameters))
        self._wire = self._flat if wire == self._flat.dtype else self._flat.to(wire)
        for parameter, part in zip(parameters, self._flat.split([p.numel() for p in parameters]), strict=True):
            # A gradient gets its parameter's strides, channels-last or not, because fused optimizers go through both
            # memories in the same order.
            parameter.grad = part.as_strided(parameter.shape, parameter.stride())
        if ranks.world_size > 1:
            for tensor in model.state_dict().values():
                ranks.spread_(tensor)

    def average_(self) -> None:
        """Replace the gradients by their mean over the ranks. See `Ranks.sum_` for when this synchronises."""
        if self._ranks.world_size == 1:
            return
        if self._wire is not self._flat:
            self._wire.copy_(self._flat)
        self._wire.div_(self._ranks.world_size)
        self._ranks.sum_(self._wire)
        if self._wire is not self._flat:
            self._flat.copy_(self._wire)
