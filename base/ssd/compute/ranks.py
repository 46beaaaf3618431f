"""The processes of a run: which one this is, and the few things they say to each other besides gradients.

Gradients go through the vendor's backend. Objects, detections and decisions go through gloo on the CPU, with a timeout
of their own: what only rank 0 does (the metric, a checkpoint) may take longer than a collective of a step ever should.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssd.errors import ConfigError, LostPeerError
from ssd.text import shortened

__all__ = ["Ranks", "average_batch_norm", "lost_peer"]

HOST_TIMEOUT_FACTOR = 10
"""How many collective timeouts the others wait for work that only rank 0 does."""
SIGN_IN = 3.0
"""Seconds that survivors of a lost connection wait for each other's sign of life."""


@dataclass(frozen=True)
class Ranks:
    """This process among all. The last three are None or empty when it is alone.

    host_group: a gloo group for host-side objects. store: where the launcher's processes meet. hosts: by rank.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    host_group: Any = None
    store: Any = None
    hosts: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read what the launcher set; a process started by hand is rank 0 of 1. ConfigError for what is no number."""
        rank, world_size, local_rank = (_variable(*one) for one in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"RANK = {rank} is no rank of WORLD_SIZE = {world_size}: unset both, or start the launcher"
            )
        return cls(rank, world_size, local_rank)

    @property
    def is_rank_0(self) -> bool:
        """Whether this process writes the logs."""
        return self.rank == 0

    def connect(self, backend: str, device: torch.device, timeout: float) -> Ranks:
        """Join the others (timeout in seconds). Raises LostPeerError when they do not come."""
        if self.world_size == 1:
            return self
        backends = backend if device.type == "cpu" else f"cpu:gloo,{device.type}:{backend}"
        limit = timedelta(seconds=timeout)
        try:
            store, _, _ = next(dist.rendezvous("env://", self.rank, self.world_size, timeout=limit))
            dist.init_process_group(
                backends,
                store=dist.PrefixStore("gradients", store),
                rank=self.rank,
                world_size=self.world_size,
                timeout=limit,
            )
            group: Any = dist.new_group(backend="gloo", timeout=limit * HOST_TIMEOUT_FACTOR)
            hosts: list[str] = [""] * self.world_size
            dist.all_gather_object(hosts, socket.gethostname(), group=group)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]  # what follows is a C++ backtrace
            raise LostPeerError(
                f"process {self.rank} of {self.world_size} could not join the others: {reason}"
            ) from error
        return replace(self, host_group=group, store=store, hosts=tuple(hosts))

    def close(self) -> None:
        """Leave the process group."""
        if self.host_group is not None:
            dist.destroy_process_group()

    def barrier(self) -> None:
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
        box: list[Any] | None = [None] * self.world_size if self.is_rank_0 else None
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


def _variable(name: str, default: int) -> int:
    """A variable of the launcher, as a number from 0 on."""
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError(f"the variable {name} is {shortened(text)!r}, which is no number: unset it")
    return int(text)


def average_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Average the running statistics of batch norm over the ranks, in place, so that all hold one model.

    Each rank normalises with its own batch; before an evaluation or a checkpoint the statistics must agree.
    """
    if ranks.world_size == 1:
        return
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    flat = ranks.sum_(torch.cat([b.reshape(-1).double() for b in buffers])) / ranks.world_size
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def lost_peer(error: RuntimeError, ranks: Ranks) -> LostPeerError | None:
    """The error to raise instead, where a collective failed because another process is gone; else None."""
    signs = ("connection closed by peer", "connection reset", "timed out", "timeout", "broken pipe", "socket closed")
    is_lost = isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in signs)
    if ranks.world_size == 1 or not is_lost:
        return None
    first_line = str(error).strip().splitlines()[0]
    return LostPeerError(
        f"process {ranks.rank} of {ranks.world_size} lost {_silent_peers(ranks)}. If that process failed, its own host "
        f"says why; if nothing is said there, look for a host or a link that went down ({first_line})"
    )


def _silent_peers(ranks: Ranks) -> str:
    """Who does not answer: survivors sign in at the store for SIGN_IN seconds, the others are named with their host.

    A store that does not answer is the first host's. A lost link can leave a request hanging, so a thread asks.
    """
    signed: list[int] = []

    def ask() -> None:
        ranks.store.set(f"survivor/{ranks.rank}", "")
        time.sleep(SIGN_IN)
        signed.extend(rank for rank in range(ranks.world_size) if ranks.store.check([f"survivor/{rank}"]))

    thread = threading.Thread(target=_quietly, args=(ask,), daemon=True)
    thread.start()
    thread.join(SIGN_IN * 2)
    if not signed:
        return f"the first host, {ranks.hosts[0]}"
    silent = [rank for rank in range(ranks.world_size) if rank not in signed]
    if not silent:
        return "a connection, though all processes still answer"
    return ", ".join(f"process {rank} on host {ranks.hosts[rank]}" for rank in silent)


def _quietly(ask: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the store's host is gone; the caller says so
        ask()
