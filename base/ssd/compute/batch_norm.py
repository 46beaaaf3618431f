"""Batch norm over a group of processes: `bn_group` consecutive ranks share the statistics of their joint batch.

The statistics of a small batch are noisy. A group of k processes has the statistics of k batches. It costs one small
all-reduce for each layer in the forward pass, and one in the backward pass. A device for which torch has the kernels of
its SyncBatchNorm takes these: they move 14 bytes an element, where plain torch moves 134. The layer of this file is
plain torch on a differentiable all-reduce, so it is the same on every device and backend, the CPU included, which
SyncBatchNorm refuses. It is also the check of the other one (tests/vendors/test_nvidia_batch_norm.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules import _functions

from ssd.compute.ranks import Ranks
from ssd.errors import ConfigError

__all__ = ["GroupBatchNorm2d", "KernelBatchNorm2d", "convert_batch_norm", "make_bn_group"]

# torch 2.14 has renamed the function, and warns of the old name.
gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
KEPT = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "training")
"""Attributes that a converted layer takes over from the BatchNorm2d that it replaces."""


class _SumOverGroup(torch.autograd.Function):
    """The sum of x, any shape and float dtype, over the processes of a group; differentiable.

    The loss of every process depends on the x of every process. So the gradient is summed over the processes too.
    through_host: the collectives get copies on the host. They are made inside of this function: as operations of their
    own, autograd might run those of two layers in another order in each process.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, through_host: bool) -> Tensor:
        ctx.group, ctx.through_host = group, through_host
        return _summed(x, group, through_host)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _summed(gradient.contiguous(), ctx.group, ctx.through_host), None, None


def _summed(x: Tensor, group: dist.ProcessGroup, through_host: bool) -> Tensor:
    total = x.to("cpu", copy=True) if through_host else x.clone()
    dist.all_reduce(total, group=group)
    return total.to(x.device)


def _joint_moments(x: Tensor, sums: Callable[[Tensor], Tensor], float64: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of values (1,) of x (B, C, H, W) float32 over the group.

    sums: sums a tensor over the group. All three are float64 and differentiable. The variance is a difference of two
    sums, which is accurate here: each process takes its variance around its own mean, in float32, and only the sums
    over processes are subtracted, in float64. Without float64 all three are float32, and the variance is summed around
    the joint mean, with a second collective. torch.compile breaks its graph at this function, because releases of torch
    trace collectives differently.
    """
    var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    if not float64:
        count = mean.new_full((1,), x.numel() // x.shape[1])
        total, whole = sums(torch.cat((mean * count, count))).tensor_split((len(mean),))
        joint = total / whole
        return joint, sums((var + (mean - joint).square()) * count) / whole, whole
    mean, var = mean.double(), var.double()
    count = mean.new_full((1,), x.numel() // x.shape[1])
    both = sums(torch.cat((mean * count, (var + mean * mean) * count, count)))
    mean, square, count = both.tensor_split((len(mean), 2 * len(mean)))
    mean, square = mean / count, square / count
    return mean, square - mean * mean, count


class GroupBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all processes of `group` together.

    Parameters, buffers, state dict and evaluation are those of BatchNorm2d. Statistics and arithmetic are float32 or
    float64 for every input dtype, also under autocast. The output has the input's dtype and memory format. The
    activation is kept as float32 for the backward pass. Every process of the group must call `forward` equally often,
    because it contains a collective. Batch sizes may differ.

    float64: the device has it. through_host: as in `Ranks`; each call then waits for the device.
    """

    def __init__(
        self,
        num_features: int,
        group: dist.ProcessGroup,
        eps: float = 1e-5,
        momentum: float = 0.1,
        float64: bool = True,
        through_host: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum)
        self.group, self.float64, self.through_host = group, float64, through_host
        # Not as a decorator: it imports torch's compiler, which takes longer than torch itself.
        self._joint_moments = torch.compiler.disable(_joint_moments)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W), any float dtype. Shape and dtype stay."""
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        with _without_autocast(x.device.type):
            mean, var, count = self._joint_moments(x.float(), self._sums, self.float64)
            self._update(mean.detach(), (var * count / (count - 1)).detach())
            scale = self.weight * (var + self.eps).rsqrt().float()
            shift = self.bias - mean.float() * scale
            y = torch.addcmul(shift.view(1, -1, 1, 1), x.float(), scale.view(1, -1, 1, 1))
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics towards mean and unbiased variance, both (C,), as BatchNorm2d does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.lerp_(now.to(running), self.momentum)

    def _sums(self, x: Tensor) -> Tensor:
        summed: Tensor = _SumOverGroup.apply(x, self.group, self.through_host)
        return summed


class _ByKernels(torch.autograd.Function):
    """Batch norm over a group by the kernels of torch's SyncBatchNorm, without waiting for the device.

    torch's own function selects the processes that had images, by a mask, which waits for the device at each layer of
    each step. Here every process has images. Its backward pass does not wait, and is torch's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: tuple[Tensor, Tensor], how: _How) -> Tensor:
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()
        channels = x.shape[1]
        mean, invstd = torch.batch_norm_stats(x, how.eps)
        mine = torch.cat((mean, invstd, mean.new_full((1,), x.numel() // channels)))
        everyone = mine.new_empty(how.size, len(mine))
        gather(everyone.view(-1), mine, group=how.group)
        means, invstds, counts = everyone.split((channels, channels, 1), dim=1)
        counts = counts.reshape(-1)
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x, means.contiguous(), invstds.contiguous(), *running, how.momentum, how.eps, counts
        )
        ctx.save_for_backward(x, weight, mean, invstd, counts.to(torch.int32))
        ctx.process_group = how.group
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, how.eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return (*_functions.SyncBatchNorm.backward(ctx, gradient)[:3], None, None)


@dataclass(frozen=True)
class _How:
    """eps and momentum of a layer; its group and the number of its processes."""

    eps: float
    momentum: float
    group: Any
    size: int


class KernelBatchNorm2d(nn.SyncBatchNorm):
    """torch's SyncBatchNorm in training without its wait for the device. A CUDA graph can hold it.

    Each process has at least one image. torch.compile breaks its graph here: the kernels are not its own.
    """

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._uncompiled = torch.compiler.disable(self._train)  # not as a decorator, as above

    def _train(self, x: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        running = self.running_mean, self.running_var
        how = _How(self.eps, self.momentum or 0.0, self.process_group, dist.get_world_size(self.process_group))
        normalised: Tensor = _ByKernels.apply(x, self.weight, self.bias, running, how)
        return normalised

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W), any float dtype. Shape and dtype stay."""
        return self._uncompiled(x) if self.training else super().forward(x)


def make_bn_group(bn_group: int, ranks: Ranks, timeout: float) -> dist.ProcessGroup | None:
    """The group of `bn_group` consecutive ranks that this process belongs to. None for bn_group 1.

    All ranks must call it. timeout: seconds that a collective of the group may take. Raises ConfigError where bn_group
    does not divide world_size.
    """
    if bn_group < 1 or ranks.world_size % bn_group:
        raise ConfigError(
            f"bn_group = {bn_group} does not divide the number of processes, {ranks.world_size} (nproc_per_node x "
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


def convert_batch_norm(
    model: nn.Module, bn_group: int, ranks: Ranks, timeout: float, float64: bool = True, kernels: bool = False
) -> nn.Module:
    """Replace every BatchNorm2d of the model by one that shares statistics in groups of `bn_group` ranks.

    The model is changed in place and returned. Parameters and buffers stay the same tensors under the same names. For
    bn_group 1 this is a no-op. Arguments and errors are those of `make_bn_group`; float64 is that of GroupBatchNorm2d.
    kernels: the device has those of torch's SyncBatchNorm, and collectives of its own: KernelBatchNorm2d is taken.
    """
    group = make_bn_group(bn_group, ranks, timeout)
    if group is not None:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if type(child) is nn.BatchNorm2d:
                    shared: nn.Module = (
                        KernelBatchNorm2d(child.num_features, child.eps, child.momentum, process_group=group)
                        if kernels
                        else GroupBatchNorm2d(
                            child.num_features, group, child.eps, child.momentum or 0.0, float64, ranks.through_host
                        )
                    )
                    setattr(module, name, _taking_over(child, shared))
    return model


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Full precision inside. No-op where mixed precision is off: a device type may not have it at all."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _taking_over(norm: nn.BatchNorm2d, shared: nn.Module) -> nn.Module:
    """The layer `shared` with the tensors of `norm`."""
    if not (norm.affine and norm.track_running_stats and norm.momentum is not None):
        raise ValueError(f"{norm}: only batch norm with weights, running statistics and a momentum can share them")
    for name in KEPT:
        setattr(shared, name, getattr(norm, name))
    return shared
