"""CUDA graphs of a step: of a micro-batch, of a whole optimizer step, and of an evaluation's batch.

A graph holds what is put to work while it is captured, and a replay is one launch instead of a thousand. Python does
not run at a replay. So what changes from step to step lies on the device, at a fixed address: the batch, the learning
rate, the loss scale. Collectives can be captured where the device has them: nccl has. Capture and replay need a GPU
with CUDA's API. The tests hold what is captured to the rules by `ssd.compute.capture.CaptureGuard` on any machine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ssd.compute.copies import BATCH_TENSORS
from ssd.compute.precision import LossScaler
from ssd.compute.step import FEWEST_BOXES, Step, TrainStep, Update, blank_batch, untouched
from ssd.counts import IMAGE_SIZE
from ssd.data import TrainBatch
from ssd.errors import MachineError

__all__ = ["Capture", "CudaGraphs", "GraphedImages", "GraphedStep", "WholeStep", "padded_boxes"]

Capture = Callable[[Callable[[], Any]], Callable[[], Any]]
"""Captures a computation whose inputs stay at fixed addresses. Returns a function that replays the computation and
returns its result: a tensor, or tuples of them."""

EAGER_RUNS = 3
"""Runs before a capture. In them libraries choose kernels and allocate workspaces, which a capture must not contain."""
MOST_AHEAD = 2
"""Replays that the host may be ahead of the device. Two are enough to keep the device busy."""
POLL = 0.0005
"""Seconds between two looks at a replay whose end is waited for."""


class GraphedStep:
    """A TrainStep that is captured once for each padded number of boxes, and replayed for each batch.

    A replay is one launch instead of a thousand. The model must not be wrapped in DDP. Its gradients lie at fixed
    addresses (ssd.compute.gradients.FlatGradients) and are averaged after the last replay of an optimizer step. Boxes
    are padded to 8, 16, 32, ... an image. All captured graphs read their images from the same memory, and share one
    pool of memory for intermediate results.
    """

    def __init__(
        self, step: TrainStep, capture: Capture, batch_size: int, max_boxes: int, compute: Step | None = None
    ) -> None:
        """Capture the step for every padded number of boxes up to that of `max_boxes`.

        compute: what is captured; None for `step.compute`. Parameters and buffers keep their values. Gradients are set
        to zero or, where there were none, to None again.
        """
        self._inputs = {}
        self._replays = {}
        self._copies = step.copies
        with untouched(step.model):
            images = None
            # The largest comes first, because the memory for its intermediate results is enough for the others.
            for boxes in _sizes(max_boxes):
                batch = blank_batch(batch_size, boxes)
                moved = {name: getattr(batch, name).to(step.device) for name in BATCH_TENSORS}
                images = moved["images"] = moved["images"] if images is None else images
                self._inputs[boxes] = replace(batch, **moved)
                self._replays[boxes] = capture(partial(compute or step.compute, self._inputs[boxes]))

    def __call__(self, batch: TrainBatch) -> Tensor:
        """Copy a batch to the graph's inputs and replay the graph. Returns losses (B,) float32, detached.

        Where the device copies beside its work, the batch is copied to the device beside the replay before, and then
        within the device to the inputs, which takes far less time. Raises ValueError for a batch of a size
        that was not captured.
        """
        count = batch.labels.shape[1]
        boxes = padded_boxes(count)
        if boxes not in self._inputs or batch.images.shape != self._inputs[boxes].images.shape:
            raise ValueError(f"captured for {self._sizes()}, not for {len(batch.images)} images of {count} boxes")
        if self._copies is None:
            _fill(self._inputs[boxes], batch, count)
        else:
            with self._copies.moved(batch) as there:
                _fill(self._inputs[boxes], there, count)
        return self._replays[boxes]()

    def _sizes(self) -> str:
        largest = max(self._inputs)
        return f"{len(self._inputs[largest].images)} images of at most {largest} boxes"


def _fill(inputs: TrainBatch, batch: TrainBatch, count: int) -> None:
    """Copy a batch of `count` boxes an image to a graph's inputs, which are padded to more boxes."""
    for name in BATCH_TENSORS:
        source, target = getattr(batch, name), getattr(inputs, name)
        if name in ("boxes", "labels"):
            target[:, count:].zero_()
            target = target[:, :count]
        target.copy_(source, non_blocking=True)


class WholeStep:
    """A GraphedStep that ends the optimizer step too: average of the gradients, optimizer, and cleared gradients.

    The learning rate is read from memory of the device, as float32; an eager step computes with a float64. Only torch's
    fused SGD can be captured: others copy the rate, or the overflow flag of fp16, to the host.
    """

    def __init__(
        self, step: TrainStep, update: Update, scaler: LossScaler, capture: Capture, batch_size: int, max_boxes: int
    ) -> None:
        """Capture the step as GraphedStep does. Weights, momentum and loss scale keep their values.

        update: of an optimizer with one group of parameters, whose momentum exists already. scaler: update's.
        """
        (self._group,) = update.optimizer.param_groups
        self._scaler = scaler
        rate, saved = self._group["lr"], scaler.state_dict()
        self._rate = torch.full((), rate, device=step.device)

        def compute(batch: TrainBatch) -> Tensor:
            losses = step.compute(batch)
            update()
            return losses

        momentum = [one for state in update.optimizer.state.values() for one in state.values() if one is not None]
        self._group["lr"] = self._rate
        try:
            with untouched(step.model, [*step.model.parameters(), *momentum]):
                self._graphed = GraphedStep(step, capture, batch_size, max_boxes, compute)
        finally:
            self._group["lr"] = rate
            scaler.load_state_dict(saved)

    def __call__(self, batch: TrainBatch) -> Tensor:
        """Compute the last micro-batch of a step and change the weights. Returns losses (B,) float32, detached.

        The rate is the one that the optimizer's group has now. Raises ValueError as GraphedStep does.
        """
        self._rate.fill_(self._group["lr"])
        losses = self._graphed(batch)
        self._scaler.replayed()
        return losses


class GraphedImages:
    """A computation on images, captured for each number of images that it is to meet, such as an evaluation's."""

    def __init__(
        self, compute: Callable[[Tensor], Any], capture: Capture, sizes: Iterable[int], device: torch.device
    ) -> None:
        """compute: takes images (B, 300, 300, 3) uint8 on the device. sizes: every B."""
        self._inputs: dict[int, Tensor] = {}
        self._replays: dict[int, Callable[[], Any]] = {}
        for size in sorted(sizes, reverse=True):
            if not self._inputs:
                images = torch.zeros(size, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8, device=device)
            self._inputs[size] = images[:size]
            self._replays[size] = capture(partial(compute, images[:size]))

    def __call__(self, images: Tensor) -> Any:
        """Copy images (B, 300, 300, 3) uint8 to the graph's memory and replay it. ValueError for a B not captured."""
        if len(images) not in self._inputs:
            raise ValueError(f"captured for {', '.join(map(str, self._inputs))} images, not for {len(images)}")
        self._inputs[len(images)].copy_(images, non_blocking=True)
        return self._replays[len(images)]()


class CudaGraphs:
    """Captures computations as CUDA graphs on one stream, with one pool of memory.

    A replay may overwrite the memory of another graph's result. So every result is copied right after its replay.
    Not yet run on hardware.
    """

    def __init__(self, device: torch.device, limit: float | None = None) -> None:
        """limit: seconds that a replay may take; None for a step without collectives, which waits for nobody.

        nccl's own watch over the time does not see collectives of a graph.
        """
        self._limit = limit
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._ends: deque[torch.cuda.Event] = deque()

    def __call__(self, compute: Callable[[], Any]) -> Callable[[], Any]:
        """Run `compute` EAGER_RUNS times, then capture it. Returns the function that replays it.

        compute: a function whose result is a tensor, or tuples of them. The replay returns a copy of this result.
        Raises MachineError, which names the key, where `compute` cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(EAGER_RUNS):
                    compute()
            torch.cuda.current_stream().wait_stream(self._stream)
            # thread_local: calls of other threads, such as a loader that pins memory, do not end this capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                result = compute()
        except RuntimeError as error:
            raise MachineError(f"cuda_graph = true: the step cannot be captured: {error}. Set it to false.") from error

        def replay() -> Any:
            graph.replay()
            copied = tree_map(Tensor.clone, result)
            self._hold_host()
            return copied

        return replay

    def _hold_host(self) -> None:
        """Keep the host at most MOST_AHEAD replays ahead of the device.

        A replay costs the host almost no time. Without this limit the host would queue a whole logging interval of
        batches in pinned memory. The host waits for a replay that has MOST_AHEAD others behind it, so the device does
        not become idle. Raises RuntimeError where it does not end in `limit` seconds: another process is gone.
        """
        end = torch.cuda.Event(blocking=True)
        end.record()
        self._ends.append(end)
        if len(self._ends) > MOST_AHEAD:
            _await(self._ends.popleft(), self._limit)


def _await(end: torch.cuda.Event, limit: float | None) -> None:
    """Return when the device has passed `end`. Raises RuntimeError where it has not in `limit` seconds."""
    if limit is None:
        end.synchronize()
        return
    until = time.monotonic() + limit
    while not end.query():
        if time.monotonic() > until:
            raise RuntimeError(f"a replayed step timed out after {limit:g} s")  # lost_peer knows it by its words
        time.sleep(POLL)


def padded_boxes(count: int) -> int:
    """`count` boxes padded to a power of 2, at least 8.

    So there are few shapes to capture. Padding at most doubles the work of encode, which is a small part of a step.
    """
    return max(FEWEST_BOXES, 1 << (count - 1).bit_length()) if count else FEWEST_BOXES


def _sizes(max_boxes: int) -> list[int]:
    """Every padded number of boxes up to that of `max_boxes`, the largest first."""
    sizes = [padded_boxes(max_boxes)]
    while sizes[-1] > FEWEST_BOXES:
        sizes.append(sizes[-1] // 2)
    return sizes
