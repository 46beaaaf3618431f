"""The compute of one micro-batch as one callable, eager or as a CUDA graph; and how it is warmed up before the run.

Whatever the form, a step takes a batch of the loader and returns per-image losses, with the gradients added where the
optimizer finds them. Nothing in it waits for the device and its shapes depend on the batch's sizes alone:
`ssd.compute.capture.CaptureGuard` holds it to that on any machine. Capture and replay themselves need a GPU with CUDA's
API.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor, nn

from ssd.boxes import DefaultBoxes
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
"""A batch of the loader to its per-image losses (B,) float32, detached; gradients are added to the parameters'."""
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Records a computation on fixed memory; what it returns repeats it and gives its result."""

BATCH_TENSORS = tuple(field.name for field in fields(TrainBatch) if field.name != "rows")
FEWEST_BOXES = 8
EAGER_RUNS = 3
"""Runs before a capture: libraries choose kernels and allocate workspaces in them, which a capture must not contain."""
MOST_AHEAD = 2
"""Replays that the host may be ahead of the device: enough to keep it busy."""


@dataclass(frozen=True)
class TrainStep:
    """Augment, encode, forward, loss, backward, one kernel after the other.

    model: distributed or not. backward: takes the mean loss () of a micro-batch (LossScaler.backward). precision: a key
    of DTYPES. channels: 3, or 4 where the input is padded with a channel of zeros. accumulation: micro-batches a step.
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

    def __call__(self, batch: TrainBatch) -> Tensor:
        """Losses (B,) of a batch, wherever it lies."""
        moved = {name: getattr(batch, name).to(self.device, non_blocking=True) for name in BATCH_TENSORS}
        return self.compute(replace(batch, **moved))

    def compute(self, batch: TrainBatch) -> Tensor:
        """Losses (B,) of a batch on the device, detached, with its gradients added: the part that a graph holds."""
        losses = self.losses(batch)
        self.backward(losses.mean() / self.accumulation)
        return losses.detach()

    def losses(self, batch: TrainBatch) -> Tensor:
        """Losses (B,) float32 of a batch on the device, differentiable."""
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
    """A TrainStep recorded once for each padded number of boxes, and replayed: one launch instead of a thousand.

    The model is the bare one, not DDP, and its gradients lie at fixed addresses (ssd.compute.gradients.FlatGradients),
    to be averaged after the last replay of a step. Boxes are padded to 8, 16, 32, ... an image; the recordings take
    their images from the same memory, and share what they need inside.
    """

    def __init__(self, step: TrainStep, record: Recorder, batch_size: int, max_boxes: int) -> None:
        """Record everything up to `max_boxes` boxes an image. Parameters, buffers and gradients stay as they are."""
        self._inputs = {}
        self._replays = {}
        with untouched(step.model):
            images = None
            # The largest first: what it needs inside is enough for the others.
            for boxes in _sizes(max_boxes):
                batch = blank_batch(batch_size, boxes)
                moved = {name: getattr(batch, name).to(step.device) for name in BATCH_TENSORS}
                images = moved["images"] = moved["images"] if images is None else images
                self._inputs[boxes] = replace(batch, **moved)
                self._replays[boxes] = record(partial(step.compute, self._inputs[boxes]))

    def __call__(self, batch: TrainBatch) -> Tensor:
        """Losses (B,) of a batch of the recorded size, on the host or on the device."""
        count = batch.labels.shape[1]
        boxes = padded_boxes(count)
        if boxes not in self._inputs or batch.images.shape != self._inputs[boxes].images.shape:
            raise ValueError(f"recorded for {self._sizes()}, not for {len(batch.images)} images of {count} boxes")
        inputs = self._inputs[boxes]
        for name in BATCH_TENSORS:
            source, target = getattr(batch, name), getattr(inputs, name)
            if name in ("boxes", "labels"):
                target[:, count:].zero_()
                target = target[:, :count]
            target.copy_(source, non_blocking=True)
        return self._replays[boxes]()

    def _sizes(self) -> str:
        largest = max(self._inputs)
        return f"{len(self._inputs[largest].images)} images of at most {largest} boxes"


class CudaGraphs:
    """Records computations as CUDA graphs on one stream, with one pool of memory.

    A replay may overwrite what another one's result lay in, so results are copied out at once. Not yet run on hardware.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._ends: deque[torch.cuda.Event] = deque()

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Run `compute` some times, then record it. MachineError where that fails, naming the key."""
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(EAGER_RUNS):
                    compute()
            torch.cuda.current_stream().wait_stream(self._stream)
            # thread_local: what other threads do meanwhile (a loader pinning memory) is their own affair.
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
        """Wait for a replay that has others behind it, so the device never idles for it.

        A launch costs the host next to nothing; unheld it would pile up a logging interval of batches in pinned memory.
        """
        end = torch.cuda.Event(blocking=True)
        end.record()
        self._ends.append(end)
        if len(self._ends) > MOST_AHEAD:
            self._ends.popleft().synchronize()


def padded_boxes(count: int) -> int:
    """The next power of 2, at least 8: few shapes, and at most twice the work of a small part of the step."""
    return max(FEWEST_BOXES, 1 << (count - 1).bit_length()) if count else FEWEST_BOXES


def _sizes(max_boxes: int) -> list[int]:
    """Every padded number of boxes up to that of `max_boxes`, the largest first."""
    sizes = [padded_boxes(max_boxes)]
    while sizes[-1] > FEWEST_BOXES:
        sizes.append(sizes[-1] // 2)
    return sizes


def blank_batch(batch_size: int, boxes: int) -> TrainBatch:
    """A made-up batch on the host for work before the run: black images with one box each, padded to `boxes`."""
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
    """Run anything inside: afterwards buffers hold what they held, in the same memory, and gradients are cleared."""
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
    """Two steps on made-up data before the run: kernels are chosen, loaded and compiled then, not in the timed part.

    Weights, running statistics and gradients stay as they are. All ranks must come here.
    """
    with untouched(model):
        for _ in range(2):
            step(blank_batch(batch_size, boxes))
