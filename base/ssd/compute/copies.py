"""Batches copied to the device on a stream of their own, beside the computation of the batches before them.

The host is some steps ahead of the device. So where the copy of a batch has a stream of its own, it is done while the
device still computes earlier batches, and costs no time of its own. The copies go to a ring of memory on the device:
without it the device would hold as many batches as the host is ahead. Events keep the order: a computation waits for
its copy, and a copy waits for the computation that read its place in the ring before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from ssd.compute.device import Abilities
from ssd.data import TrainBatch

__all__ = ["BATCH_TENSORS", "SideCopies", "side_copies"]

BATCH_TENSORS = tuple(field.name for field in fields(TrainBatch) if field.name != "rows")
PLACES = 2
"""Places of the ring: one is computed while the other is filled."""


@dataclass
class _Place:
    """Flat memory for a batch, by tensor. free: the event after which nothing reads it; None before its first use."""

    memory: dict[str, Tensor] = field(default_factory=dict)
    free: Any = None

    def filled(self, name: str, value: Tensor, device: torch.device) -> Tensor:
        """A copy of `value`, any shape and dtype, in this place; `value` itself where it lies on the device already."""
        if value.device.type == device.type:
            return value
        memory = self.memory.get(name)
        if memory is None or len(memory) < value.numel():  # batches differ in their most boxes an image
            memory = self.memory[name] = torch.empty(value.numel(), dtype=value.dtype, device=device)
        return memory[: value.numel()].view(value.shape).copy_(value, non_blocking=True)


class SideCopies:
    """Copies batches on a side stream. Owner: the main thread. abilities: of a device that has `side_copies`."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        self._stream = abilities.new_stream()
        self._places = cycle([_Place() for _ in range(PLACES)])

    @contextmanager
    def moved(self, batch: TrainBatch) -> Iterator[TrainBatch]:
        """A context with the batch on the device. It may be read by what is given to the current stream inside.

        Tensors that lie on the device already stay where they are. Nothing waits on the host.
        """
        place, abilities = next(self._places), self._abilities
        with abilities.on_stream(self._stream):
            if place.free is not None:
                self._stream.wait_event(place.free)
            moved: dict[str, Any] = {
                name: place.filled(name, getattr(batch, name), abilities.device) for name in BATCH_TENSORS
            }
            copied = abilities.untimed_event()
        abilities.current_stream().wait_event(copied)
        yield replace(batch, **moved)
        place.free = abilities.untimed_event()


def side_copies(abilities: Abilities) -> SideCopies | None:
    """Copies on a side stream; None on a device that has no such thing."""
    return SideCopies(abilities) if abilities.side_copies else None
