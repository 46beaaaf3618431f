"""Batch norm over a group of processes: `bn_group` neighbours normalise with the statistics of their joint batch.

Small batches a device have noisy statistics; a group of k processes has those of k batches, at the price of one small
all-reduce a layer and direction. Plain torch on a differentiable all-reduce, so that it is the same code on every
device and backend (torch's own SyncBatchNorm refuses CPU tensors; on an accelerator it is the cross-check).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssd.compute.ranks import Ranks
from ssd.errors import ConfigError

__all__ = ["GroupBatchNorm2d", "convert_batch_norm", "make_bn_group"]

KEPT = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "training")


class _SumOverGroup(torch.autograd.Function):
    """A sum over the processes whose gradient is summed over them too: every one's loss depends on every summand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


@torch.compiler.disable
def _joint_moments(x: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and count () of x (B, C, H, W) float32 over the group, float64, differentiable.

    Sums of float64 are safe to subtract: the large sums were taken around the local mean, in float32. A compiler breaks
    its graph here, as tracing collectives differs from release to release.
    """
    var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    mean, var = mean.double(), var.double()
    count = mean.new_full((1,), x.numel() // x.shape[1])
    sums = _SumOverGroup.apply(torch.cat((mean * count, (var + mean * mean) * count, count)), group)
    mean, square, count = sums.tensor_split((len(mean), 2 * len(mean)))
    mean, square = mean / count, square / count
    return mean, square - mean * mean, count


class GroupBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the processes of `group` together.

    Parameters, buffers and state dict are BatchNorm2d's, and so is evaluation. Statistics and arithmetic are float32 or
    wider whatever comes in, also under autocast; the output has the input's dtype and memory format. Every process of
    the group must come here, with any batch size. The activation is kept as float32 for the backward pass.
    """

    def __init__(self, num_features: int, group: dist.ProcessGroup, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps, momentum)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        with torch.autocast(x.device.type, enabled=False):
            mean, var, count = _joint_moments(x.float(), self.group)
            self._update(mean.detach(), (var * count / (count - 1)).detach())
            scale = self.weight * (var + self.eps).rsqrt().float()
            shift = self.bias - mean.float() * scale
            y = torch.addcmul(shift.view(1, -1, 1, 1), x.float(), scale.view(1, -1, 1, 1))
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics by `momentum`, as BatchNorm2d does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)


def make_bn_group(bn_group: int, ranks: Ranks, timeout: float) -> dist.ProcessGroup | None:
    """The group of `bn_group` consecutive ranks that this process belongs to; None where it normalises alone.

    All ranks must call it. timeout: of its collectives, seconds. Raises ConfigError where the groups do not come out
    even.
    """
    if bn_group < 1 or ranks.world_size % bn_group:
        raise ConfigError(
            f"bn_group = {bn_group} does not divide the {ranks.world_size} processes of the run (nproc_per_node x "
            "nodes): set it to 1, where each process normalises with its own batch, or to a divisor of the processes."
        )
    if bn_group == 1:
        return None
    mine: Any = None
    for first in range(0, ranks.world_size, bn_group):
        members = list(range(first, first + bn_group))
        group = dist.new_group(members, timeout=timedelta(seconds=timeout))
        mine = group if ranks.rank in members else mine
    return mine


def convert_batch_norm(model: nn.Module, bn_group: int, ranks: Ranks, timeout: float) -> nn.Module:
    """Let every BatchNorm2d of the model share statistics in groups of `bn_group` ranks; in place, and returned.

    Parameters and buffers stay the same tensors under the same names. bn_group 1 changes nothing. See `make_bn_group`.
    """
    group = make_bn_group(bn_group, ranks, timeout)
    if group is not None:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if type(child) is nn.BatchNorm2d:
                    setattr(module, name, _shared(child, group))
    return model


def _shared(norm: nn.BatchNorm2d, group: dist.ProcessGroup) -> GroupBatchNorm2d:
    if not (norm.affine and norm.track_running_stats and norm.momentum is not None):
        raise ValueError(f"{norm}: only batch norm with weights, running statistics and a momentum can share them")
    shared = GroupBatchNorm2d(norm.num_features, group, norm.eps, norm.momentum)
    for name in KEPT:
        setattr(shared, name, getattr(norm, name))
    return shared
