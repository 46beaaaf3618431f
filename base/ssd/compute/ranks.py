"""The processes of a run: the rank of this one, and the exchanges between them other than averaging gradients.

Gradients go through the vendor's backend. Objects, detections and decisions go through gloo on the CPU. Gloo's group
has a longer timeout, because the other ranks wait in it while rank 0 computes the metric or writes a checkpoint. That
may take longer than a collective of a step ever should.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssd.errors import ConfigError, LostPeerError
from ssd.text import shortened

__all__ = ["Ranks", "average_batch_norm", "averaged_batch_norm", "lost_peer"]

HOST_TIMEOUT_FACTOR = 10
"""The timeout of gloo's group is this factor times the key `collective_timeout`."""
GLOO_DEVICES = ("cpu", "cuda")
"""Device types whose tensors torch's gloo accepts."""
SIGN_IN = 3.0
"""Seconds in which the surviving processes write a key to the store after a connection was lost."""


@dataclass(frozen=True)
class Ranks:
    """This process among all processes of the run.

    rank: its number, from 0. world_size: the number of all processes. local_rank: its number on its host, from 0.
    host_group: a gloo group of all processes for Python objects and CPU tensors. store: torch's key-value store, which
    all processes reach. hosts: the host name of every rank. These three are None or empty where world_size is 1.
    through_host: the device has no collectives of its own: copies of its tensors are exchanged on the host, by gloo.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    host_group: Any = None
    store: Any = None
    hosts: tuple[str, ...] = ()
    through_host: bool = False

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read the variables that the launcher sets. A process started by hand is rank 0 of 1.

        Raises ConfigError for a variable that is not a number, and for a rank outside world_size.
        """
        rank, world_size, local_rank = (_variable(*one) for one in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"RANK = {rank} is no rank of WORLD_SIZE = {world_size}: unset both, or start the launcher"
            )
        return cls(rank, world_size, local_rank)

    @property
    def is_rank_0(self) -> bool:
        """Whether this process is rank 0, which writes the logs and all other files of the run."""
        return self.rank == 0

    def connect(self, backend: str, device: torch.device, timeout: float) -> Ranks:
        """Join the process group. Returns these ranks with the fields from host_group on filled in.

        backend: the name of the device's collective library, such as "nccl". torch's gloo accepts tensors of the CPU
        and of CUDA alone: with "gloo", tensors of another device are exchanged through the host. timeout: seconds that
        joining, and any later collective, may take. Raises LostPeerError where other processes do not join in time.
        """
        if self.world_size == 1:
            return self
        through_host = backend == "gloo" and device.type not in GLOO_DEVICES
        backends = backend if device.type == "cpu" or through_host else f"cpu:gloo,{device.type}:{backend}"
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
        return replace(self, host_group=group, store=store, hosts=tuple(hosts), through_host=through_host)

    def limit_steps(self, model: nn.Module, timeout: float) -> None:
        """From now on a collective of a step may take `timeout` seconds, and not as long as joining may.

        model: the one that is trained; its batch norm may have groups of its own. With nccl torch then ends the process
        by SIGABRT, as the work of its device cannot be taken back.
        """
        if self.host_group is None:
            return
        # torch 2.14 has given the function a public name.
        limit = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        own = [getattr(module, name, None) for module in model.modules() for name in ("group", "process_group")]
        groups = {id(group): group for group in own if group is not None}
        for group in (None, *groups.values()):
            limit(timedelta(seconds=timeout), group)

    def beside(self, timeout: float) -> Ranks:
        """The same processes, whose objects go through a group of their own: another thread may use it.

        Every rank must call it, in the main thread. timeout: seconds, as in `connect`.
        """
        if self.host_group is None:
            return self
        group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout) * HOST_TIMEOUT_FACTOR)
        return replace(self, host_group=group)

    def close(self) -> None:
        """Leave the process group."""
        if self.host_group is not None:
            dist.destroy_process_group()

    def barrier(self) -> None:
        """Return when all ranks have called barrier."""
        if self.host_group is not None:
            dist.barrier(group=self.host_group)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Every rank must call it. The value can be any object that pickle takes."""
        if self.host_group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.host_group)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """On rank 0 the values of all ranks, in rank order. On other ranks an empty list. Every rank must call it."""
        if self.host_group is None:
            return [value]
        box: list[Any] | None = [None] * self.world_size if self.is_rank_0 else None
        dist.gather_object(value, box, dst=0, group=self.host_group)
        return box or []

    def gather_rows(self, rows: np.ndarray) -> np.ndarray:
        """On rank 0 the rows of all ranks, in rank order. On other ranks no rows. Every rank must call it.

        rows: (n, k) of any dtype. n may differ between ranks, k and the dtype may not.
        """
        parts = self.gather(rows)
        return np.concatenate(parts) if parts else rows[:0]

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a device tensor of any shape and dtype over the ranks, in place. Every rank must call it.

        It synchronises with the device only where tensors are exchanged through the host.
        """
        if self.host_group is not None:
            shared = self._communicated(tensor)
            dist.all_reduce(shared)
            self._arrived_(tensor, shared)
        return tensor

    def spread_(self, tensor: Tensor) -> None:
        """Broadcast rank 0's values of a device tensor, of any shape and dtype, to all ranks, in place."""
        shared = self._communicated(tensor)
        dist.broadcast(shared, src=0)
        self._arrived_(tensor, shared)

    def _communicated(self, tensor: Tensor) -> Tensor:
        """The tensor that a collective works on: this one, or its copy on the host."""
        return tensor.cpu() if self.through_host else tensor

    def _arrived_(self, tensor: Tensor, shared: Tensor) -> None:
        if shared is not tensor:
            tensor.copy_(shared)


def _variable(name: str, default: int) -> int:
    """A variable of the launcher, as a whole number that is not negative. Raises ConfigError for anything else."""
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError(f"the variable {name} is {shortened(text)!r}, which is no number: unset it")
    return int(text)


def average_batch_norm(model: nn.Module, ranks: Ranks, float64: bool = True) -> None:
    """Average the running statistics of batch norm over the ranks, in place. Every rank must call it.

    In training each rank updates the statistics with its own batch, so they differ. Before an evaluation or a
    checkpoint they have to be equal on all ranks. float64: the device has it. Without it the sums are made on the host,
    which waits for the device; with it, it waits only where `Ranks.sum_` does.
    """
    if ranks.world_size == 1:
        return
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    summed = [b.reshape(-1).double() if float64 else b.reshape(-1).cpu().double() for b in buffers]
    flat = ranks.sum_(torch.cat(summed)) / ranks.world_size
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view(buffer.shape).to(buffer.dtype))


@contextmanager
def averaged_batch_norm(model: nn.Module, ranks: Ranks, float64: bool = True) -> Iterator[None]:
    """A context with averaged statistics, after which each rank has its own again. Every rank must call it.

    So a checkpoint in the middle of an epoch does not change what the run computes. float64: see `average_batch_norm`.
    """
    own = [(b, b.clone()) for b in model.buffers() if b.is_floating_point()] if ranks.world_size > 1 else []
    average_batch_norm(model, ranks, float64)
    yield
    for buffer, before in own:
        buffer.copy_(before)


def lost_peer(error: RuntimeError, ranks: Ranks) -> LostPeerError | None:
    """The LostPeerError to raise instead of `error`, if a collective failed because a process is gone. None otherwise.

    torch has an error type for that, but gloo raises a plain RuntimeError, which is told apart by its text.
    """
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
    """The processes that do not answer, with their hosts, as text for a message.

    Every surviving process writes a key to the store. After SIGN_IN seconds the ranks without a key count as lost. The
    store lives on host 0, so host 0 is the answer where the store does not respond. A request over a lost link can hang
    for ever, so a thread makes the requests.
    """
    # Owner: the thread `ask`, until it ends or the join below times out. This thread then only reads the list.
    signed: list[int] = []

    def ask() -> None:
        ranks.store.set(f"survivor/{ranks.rank}", "")
        time.sleep(SIGN_IN)
        signed.extend(rank for rank in range(ranks.world_size) if ranks.store.check([f"survivor/{rank}"]))

    thread = threading.Thread(target=_quietly, args=(ask,), daemon=True)
    thread.start()
    thread.join(SIGN_IN * 2)
    if not signed:
        return f"host 0, {ranks.hosts[0]}"
    silent = [rank for rank in range(ranks.world_size) if rank not in signed]
    if not silent:
        return "a connection, though all processes still answer"
    return ", ".join(f"process {rank} on host {ranks.hosts[rank]}" for rank in silent)


def _quietly(ask: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the host of the store is gone, which the caller reports
        ask()
