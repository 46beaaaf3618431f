"""The processes of a run: which one this is, and the few things they say to each other besides gradients.

Gradients go through the vendor's backend. Objects, detections and decisions go through gloo on the CPU, with a timeout
of their own: what only rank 0 does (the metric, a checkpoint) may take longer than a collective of a step ever should.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssd.errors import LostPeerError

__all__ = ["Ranks", "average_batch_norm", "lost_peer"]

PATIENCE = 10
"""How many collective timeouts the others wait for work that only rank 0 does."""


@dataclass(frozen=True)
class Ranks:
    """This process among all. `host_group` is a gloo group for host-side objects; None when alone."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    host_group: Any = None

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read what the launcher set; a process started by hand is rank 0 of 1."""
        env = os.environ
        return cls(int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1)), int(env.get("LOCAL_RANK", 0)))

    @property
    def first(self) -> bool:
        """Whether this process writes the logs."""
        return self.rank == 0

    def connect(self, backend: str, device: torch.device, timeout: float) -> Ranks:
        """Join the others (timeout in seconds). Raises LostPeerError when they do not come."""
        if self.world == 1:
            return self
        backends = backend if device.type == "cpu" else f"cpu:gloo,{device.type}:{backend}"
        try:
            dist.init_process_group(backends, timeout=timedelta(seconds=timeout))
            group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout * PATIENCE))
        except (RuntimeError, ValueError) as error:
            raise LostPeerError(f"process {self.rank} of {self.world} could not join the others: {error}") from error
        return Ranks(self.rank, self.world, self.local_rank, group)

    def close(self) -> None:
        """Leave the process group."""
        if self.host_group is not None:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.host_group is not None:
            dist.barrier(group=self.host_group)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.host_group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.host_group)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value in rank order, on rank 0; an empty list elsewhere."""
        if self.host_group is None:
            return [value]
        box: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(value, box, dst=0, group=self.host_group)
        return box or []

    def gather_rows(self, rows: np.ndarray) -> np.ndarray:
        """All ranks' rows (n, k) in rank order, on rank 0; none elsewhere."""
        parts = self.gather(rows)
        return np.concatenate(parts) if parts else rows[:0]

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a device tensor over the ranks, in place, without waiting for the device."""
        if self.host_group is not None:
            dist.all_reduce(tensor)
        return tensor


def average_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Average the running statistics of batch norm over the ranks, in place, so that all hold one model.

    Each rank normalises with its own batch; before an evaluation or a checkpoint the statistics must agree.
    """
    if ranks.world == 1:
        return
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    flat = ranks.sum_(torch.cat([b.reshape(-1).double() for b in buffers])) / ranks.world
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def lost_peer(error: RuntimeError, ranks: Ranks) -> LostPeerError | None:
    """The error to raise instead, where a collective failed because another process is gone; else None."""
    signs = ("connection closed by peer", "connection reset", "timed out", "timeout", "broken pipe", "socket closed")
    is_lost = isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in signs)
    if ranks.world == 1 or not is_lost:
        return None
    first_line = str(error).strip().splitlines()[0]
    return LostPeerError(
        f"process {ranks.rank} of {ranks.world} lost another one: {first_line}. "
        "The one that failed first says why in its own message; look there, or for a host or a link that went down."
    )
