"""Averaging gradients over the processes, in two ways: torch's DDP with a narrower wire; one buffer for CUDA graphs.

DDP hides the all-reduce behind the backward pass and is the default. A captured step cannot contain it simply (buckets,
hooks and streams of its own); there the gradients are views of one buffer that is all-reduced after the replay, in
full view: 80 MB as float32, 40 MB as bfloat16.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from ssd.compute.ranks import Ranks

__all__ = ["FlatGradients", "communicate_in_bf16"]


def communicate_in_bf16(model: nn.parallel.DistributedDataParallel) -> None:
    """All-reduce gradients as bfloat16; what the optimizer reads stays float32.

    Divided before the sum, so that nothing overflows. The sum itself is rounded to 8 bits at every hop.
    """
    model.register_comm_hook(None, bf16_compress_hook)


class FlatGradients:
    """Every parameter's gradient as a view of one float32 buffer, at one address for the whole run.

    A captured step adds to them where they lie. Clear them in place: `optimizer.zero_grad(set_to_none=False)`.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, wire: torch.dtype = torch.float32) -> None:
        """wire: what is communicated, float32 or bfloat16. Rank 0's parameters become everyone's, as in DDP."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._ranks = ranks
        self._flat = parameters[0].new_zeros(sum(p.numel() for p in parameters))
        self._wire = self._flat if wire == self._flat.dtype else self._flat.to(wire)
        for parameter, part in zip(parameters, self._flat.split([p.numel() for p in parameters]), strict=True):
            # The parameter's own strides, channels-last or not: fused optimizers walk both memories in step.
            parameter.grad = part.as_strided(parameter.shape, parameter.stride())
        if ranks.world_size > 1:
            _send_from_first(list(model.state_dict().values()))

    def average_(self) -> None:
        """Replace the gradients by their mean over the ranks, without waiting for the device."""
        if self._ranks.world_size == 1:
            return
        if self._wire is not self._flat:
            self._wire.copy_(self._flat)
        self._wire.div_(self._ranks.world_size)
        self._ranks.sum_(self._wire)
        if self._wire is not self._flat:
            self._flat.copy_(self._wire)


def _send_from_first(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        dist.broadcast(tensor, src=0)
