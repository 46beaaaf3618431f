"""Copies beside the computation: the same numbers, and an order that events hold whatever each stream's speed is.

The device is played: its streams and events keep clocks, so that for any two accesses to memory it is known whether
one must come before the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssd.boxes import default_boxes
from ssd.compute.copies import BATCH_TENSORS, PLACES, SideCopies, side_copies
from ssd.compute.device import Abilities
from ssd.compute.graphs import GraphedStep
from ssd.compute.step import TrainStep, blank_batch
from ssd.data import TrainBatch
from ssd.model import build_model
from ssd.ops import REFERENCE

CPU = torch.device("cpu")


class Played:
    """A device module whose streams run as fast or as slowly as events let them. `waits`: whether they wait at all."""

    def __init__(self, waits: bool = True) -> None:
        device, self.accesses = self, []

        class Stream:
            def __init__(self, device: Any = None) -> None:
                self.clock: dict[Any, int] = {self: 0}

            def wait_event(self, event: Event) -> None:
                for stream, time in event.clock.items() if waits else ():
                    self.clock[stream] = max(self.clock.get(stream, 0), time)

        class Event:
            def record(self) -> None:
                self.clock = dict(device.current.clock)

        self.Stream, self.Event = Stream, Event
        self.main = self.current = Stream()

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def current_stream(self, device: Any) -> Any:
        return self.current

    def touch(self, tensor: Tensor, writes: bool) -> None:
        """Note an access to a tensor's memory by the current stream."""
        stream = self.current
        stream.clock[stream] += 1
        self.accesses.append((tensor.untyped_storage().data_ptr(), writes, stream, dict(stream.clock)))

    def races(self) -> int:
        """Pairs of accesses to one memory, one of them a write, of which neither must come first."""
        found = 0
        for (memory, writes, stream, clock), (other, write, beside, later) in itertools.combinations(self.accesses, 2):
            ordered = later.get(stream, 0) >= clock[stream] or clock.get(beside, 0) >= later[beside]
            found += memory == other and (writes or write) and not ordered
        return found


class Watched(TorchDispatchMode):
    """Notes the memory that copies write."""

    def __init__(self, device: Played) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:
            self.device.touch(args[0], writes=True)
        return func(*args, **(kwargs or {}))


def abilities_of(device: Played) -> Any:
    """Abilities of the played device. Its type is one that no tensor has, so that batches count as the host's."""
    played = Abilities(CPU)
    functions = {name: getattr(Abilities, name).__get__(SimpleNamespace(module=device, device=CPU)) for name in HELPERS}
    return SimpleNamespace(device=SimpleNamespace(type="played"), float64=played.float64, **functions)


HELPERS = ("new_stream", "on_stream", "current_stream", "untimed_event")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Played:
    """The played device; torch.empty makes its memory on the host."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device=None, **kind: empty(*size, **kind))
    return Played(getattr(request, "param", True))


def batches(count: int) -> list[TrainBatch]:
    """Batches that differ in every tensor, and in the number of boxes: more, fewer, more."""
    found = []
    for number in range(count):
        batch = blank_batch(2, (3, 9, 5, 12, 1, 12)[number % 6])
        generator = torch.Generator().manual_seed(number)
        batch.images.random_(generator=generator)
        batch.factors.copy_(torch.rand(2, 4, generator=generator) * torch.tensor([1.0, 1.0, 1.0, 0.1]) + 0.1)
        batch.flip.copy_(torch.tensor([bool(number % 2), True]))
        batch.order.copy_(torch.stack([torch.randperm(4, generator=generator) for _ in range(2)]))
        found.append(batch)
    return found


def compute_all(device: Played) -> None:
    copies, given = SideCopies(abilities_of(device)), batches(7)
    with Watched(device):
        for batch in given:
            with copies.moved(batch) as there:
                for name in BATCH_TENSORS:
                    assert torch.equal(getattr(there, name), getattr(batch, name))
                    device.touch(getattr(there, name), writes=False)


def test_each_computation_waits_for_its_copy_and_each_copy_for_the_one_that_read_its_place(device: Played) -> None:
    compute_all(device)
    assert len(device.accesses) == 2 * 7 * len(BATCH_TENSORS)
    assert device.races() == 0


@pytest.mark.parametrize("device", [False], indirect=True)
def test_without_events_there_would_be_races(device: Played) -> None:
    compute_all(device)
    assert device.races() > 0


def test_a_copy_need_not_wait_for_the_computation_before_it(device: Played) -> None:
    """Else nothing would be gained: with two places, a copy follows the computation of the batch before the last."""
    copies = SideCopies(abilities_of(device))
    read: list[int] = []
    for batch in batches(4):
        with Watched(device), copies.moved(batch) as there:
            device.touch(there.images, writes=False)
        read.append(device.main.clock[device.main])
        if len(read) > PLACES:
            assert device.accesses[-2][3][device.main] == read[-1 - PLACES]


def test_the_ring_holds_two_batches_however_many_are_copied(device: Played) -> None:
    copies, seen = SideCopies(abilities_of(device)), set()
    for batch in batches(12):
        with copies.moved(batch) as there:
            seen.add(there.images.data_ptr())
            assert there.rows == batch.rows
    assert len(seen) == PLACES


def test_what_lies_on_the_device_stays_where_it_is() -> None:
    """Images of a loader that keeps them on the device."""
    played = abilities_of(Played())
    played.device = CPU
    batch = blank_batch(1, 8)
    with SideCopies(played).moved(batch) as there:
        assert there.images is batch.images


def test_eager_and_captured_steps_compute_the_same_bits(device: Played) -> None:
    found = []
    for copies in (None, SideCopies(abilities_of(device))):
        model = build_model(seed=3, num_classes=4, width=0.125)[0]
        step = TrainStep(model, REFERENCE, default_boxes(), torch.Tensor.backward, CPU, copies=copies)
        losses = [step(batch) for batch in batches(3)]
        graphed = GraphedStep(step, lambda compute: compute() is None or compute, 2, 12)
        losses += [graphed(batch) for batch in batches(3)]
        found.append((losses, [one.grad for one in model.parameters()]))
    for ours, expected in zip(*([*losses, *gradients] for losses, gradients in found), strict=True):
        assert torch.equal(ours, expected)


def test_a_device_without_streams_has_none() -> None:
    assert side_copies(Abilities(CPU)) is None
