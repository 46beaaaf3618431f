"""The computation of one micro-batch as one callable, what ends an optimizer step, and the warm-up before the run.

A step takes a batch of the loader, adds the gradients to those of the parameters, and returns the loss of each image.
Nothing in it synchronises with the device. Its shapes depend on the batch's sizes alone. The tests check both with
`ssd.compute.capture.CaptureGuard` on any machine. So a CUDA graph can hold it (ssd.compute.graphs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ssd.boxes import DefaultBoxes
from ssd.compute.copies import BATCH_TENSORS, SideCopies
from ssd.compute.gradients import FlatGradients
from ssd.compute.precision import DTYPES, autocast
from ssd.counts import IMAGE_SIZE
from ssd.data import TrainBatch
from ssd.ops import Ops
from ssd.ops.augment import ColourDraws

__all__ = [
    "FEWEST_BOXES",
    "Step",
    "TrainStep",
    "Update",
    "blank_batch",
    "untouched",
    "warm_up",
]

Step = Callable[[TrainBatch], Tensor]
"""Takes a batch of the loader, adds its gradients to the parameters', and returns its losses (B,) float32, detached."""

FEWEST_BOXES = 8
"""The smallest number of boxes an image to which a batch is padded."""


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


@dataclass(frozen=True)
class Update:
    """What ends an optimizer step: gradients are averaged over the ranks, weights change, gradients are cleared.

    step: makes the optimizer's step, such as LossScaler.step. flat: the gradients in one buffer, averaged here; None
    where DDP has averaged them. mark: called with "communication" and "optimizer" when that was put to work.
    """

    optimizer: torch.optim.Optimizer
    step: Callable[[], None]
    flat: FlatGradients | None = None
    mark: Callable[[str], None] = lambda name: None

    def __call__(self, *, alone: bool = False) -> None:
        """End the step after its last micro-batch. Every rank must call it. alone: this rank only, and no average."""
        if self.flat is not None and not alone:
            self.flat.average_()
            self.mark("communication")
        self.step()
        self.optimizer.zero_grad(set_to_none=self.flat is None)
        self.mark("optimizer")


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
def untouched(model: nn.Module, others: Sequence[Tensor] = ()) -> Iterator[None]:
    """A context after which the model's buffers, and `others`, have their old values again, in the same memory.

    others: of any shape and dtype. Gradients are set to zero. Those that did not exist before are None again.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in (*model.buffers(), *others)]
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
