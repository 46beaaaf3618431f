"""The computation of one micro-batch as one callable, eager or as a CUDA graph, and its warm-up before the run.

A step of either form takes a batch of the loader, adds the gradients to those of the parameters, and returns the loss
of each image. Nothing in a step synchronises with the device. Its shapes depend on the batch's sizes alone. The tests
check both with `ssd.compute.capture.CaptureGuard` on any machine. Capture and replay themselves need a GPU with CUDA's
API.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ssd.boxes import DefaultBoxes
from ssd.compute.copies import BATCH_TENSORS, SideCopies
from ssd.compute.precision import DTYPES, autocast
from ssd.counts import IMAGE_SIZE
from ssd.data import TrainBatch
from ssd.errors import MachineError
from ssd.ops import Ops
from ssd.ops.augment import ColourDraws

__all__ = [
    "CudaGraphs",
    "GraphedStep",
    "Step",
    "TrainStep",
    "blank_batch",
    "padded_boxes",
    "untouched",
    "warm_up",
]

Step = Callable[[TrainBatch], Tensor]
"""Takes a batch of the loader, adds its gradients to the parameters', and returns its losses (B,) float32, detached."""
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Captures a computation whose inputs stay at fixed addresses. Returns a function that replays the computation and
returns its result."""

FEWEST_BOXES = 8
"""The smallest number of boxes an image to which a batch is padded."""
EAGER_RUNS = 3
"""Runs before a capture. In them libraries choose kernels and allocate workspaces, which a capture must not contain."""
MOST_AHEAD = 2
"""Replays that the host may be ahead of the device. Two are enough to keep the device busy."""


@dataclass(frozen=True)
class TrainStep:
    """The eager step: augment, encode, forward, loss and backward, one kernel after the other.

    model: the model, wrapped in DDP or not. backward: called with the mean loss () of a micro-batch, such as
    LossScaler.backward. precision: a key of DTYPES. channels: 3, or 4 where the input is padded with a channel of
    zeros. channels_last: the memory format of the images. accumulation: micro-batches of an optimizer step.
    mark: called with "forward" when the forward pass and the loss have been put to work. non_blocking: batches lie in
    page-locked memory, and the host does not wait for their copies. copies: on a stream of their own, or None.
    """

    model: nn.Module
    ops: Ops
    defaults: DefaultBoxes
    backward: Callable[[Tensor], None]
    device: torch.device
    precision: str = "fp32"
    channels: int = 3
    channels_last: bool = False
    accumulation: int = 1
    mark: Callable[[str], None] = lambda name: None
    non_blocking: bool = False
    copies: SideCopies | None = None

    def __call__(self, batch: TrainBatch) -> Tensor:
        """Copy a batch to the device and compute it. Returns losses (B,) float32, detached."""
        if self.copies is not None:
            with self.copies.moved(batch) as there:
                return self.compute(there)
        moved = {name: getattr(batch, name).to(self.device, non_blocking=self.non_blocking) for name in BATCH_TENSORS}
        return self.compute(replace(batch, **moved))

    def compute(self, batch: TrainBatch) -> Tensor:
        """Compute a batch on the device and add its gradients to the parameters'. A CUDA graph captures this method.

        Returns losses (B,) float32, detached.
        """
        losses = self.losses(batch)
        self.mark("forward")
        self.backward(losses.mean() / self.accumulation)
        return losses.detach()

    def losses(self, batch: TrainBatch) -> Tensor:
        """The losses (B,) float32 of a batch on the device, differentiable."""
        draws = ColourDraws(batch.flip, batch.factors, batch.order)
        images = self.ops.augment(
            batch.images,
            draws,
            dtype=DTYPES[self.precision],
            channels=self.channels,
            channels_last=self.channels_last,
        )
        offsets, labels = self.ops.encode(batch.boxes, batch.labels, self.defaults)
        with autocast(self.device, self.precision):
            locations, logits = self.model(images)
        return self.ops.loss(locations, logits, offsets, labels)


class GraphedStep:
    """A TrainStep that is captured once for each padded number of boxes, and replayed for each batch.

    A replay is one launch instead of a thousand. The model must not be wrapped in DDP. Its gradients lie at fixed
    addresses (ssd.compute.gradients.FlatGradients) and are averaged after the last replay of an optimizer step. Boxes
    are padded to 8, 16, 32, ... an image. All captured graphs read their images from the same memory, and share one
    pool of memory for intermediate results.
    """

    def __init__(self, step: TrainStep, capture: Capture, batch_size: int, max_boxes: int) -> None:
        """Capture the step for every padded number of boxes up to that of `max_boxes`.

        Parameters and buffers keep their values. Gradients are set to zero or, where there were none, to None again.
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
                self._replays[boxes] = capture(partial(step.compute, self._inputs[boxes]))

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


class CudaGraphs:
    """Captures computations as CUDA graphs on one stream, with one pool of memory.

    A replay may overwrite the memory of another graph's result. So every result is copied right after its replay.
    Not yet run on hardware.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._ends: deque[torch.cuda.Event] = deque()

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Run `compute` EAGER_RUNS times, then capture it. Returns the function that replays it.

        compute: a function whose result is the losses (B,) float32. The replay returns a copy of this result.
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

        def replay() -> Tensor:
            graph.replay()
            losses = result.clone()
            self._hold_host()
            return losses

        return replay

    def _hold_host(self) -> None:
        """Keep the host at most MOST_AHEAD replays ahead of the device.

        A replay costs the host almost no time. Without this limit the host would queue a whole logging interval of
        batches in pinned memory. The host waits for a replay that has MOST_AHEAD others behind it, so the device does
        not become idle.
        """
        end = torch.cuda.Event(blocking=True)
        end.record()
        self._ends.append(end)
        if len(self._ends) > MOST_AHEAD:
            self._ends.popleft().synchronize()


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


def blank_batch(batch_size: int, boxes: int) -> TrainBatch:
    """A batch on the host for warm-up and capture: `batch_size` black images with one box each, padded to `boxes`."""
    labels = torch.zeros(batch_size, boxes, dtype=torch.int64)
    labels[:, 0] = 1
    return TrainBatch(
        images=torch.zeros(batch_size, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8),
        boxes=labels.unsqueeze(2) * torch.tensor([0.25, 0.25, 0.75, 0.75]),
        labels=labels,
        flip=torch.zeros(batch_size, dtype=torch.bool),
        factors=torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(batch_size, 1),
        order=torch.arange(4).repeat(batch_size, 1),
        rows=(0,) * batch_size,
    )


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A context after which the model's buffers have their old values again, in the same memory.

    Gradients are set to zero. Those that did not exist before are None again.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    without = [p for p in model.parameters() if p.grad is None]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()
        for parameter in without:
            parameter.grad = None


def warm_up(step: Step, model: nn.Module, batch_size: int, boxes: int = FEWEST_BOXES) -> None:
    """Run two steps on blank batches before run_start, so that kernels are chosen, loaded and compiled before it.

    boxes: boxes an image, padding included. Weights and running statistics keep their values, and gradients are
    cleared. Every rank must call it, because a step may contain collectives.
    """
    with untouched(model):
        for _ in range(2):
            step(blank_batch(batch_size, boxes))
