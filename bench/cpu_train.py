"""A training step at full width on one core of a CPU, beside the original's step and beside the bare model.

    python bench/cpu_train.py [--batch 4] [--rounds 5] [--quick]

ours: the whole step of a run (augment, encode, model, loss, backward, optimizer), channels-last, on a fixed batch.
bare: forward and backward pass and SGD of the same model, with a sum for a loss, on fixed tensors. original: the model
contiguous, the original's loss, written anew, and SGD, on tensors whose targets are there already, as its loader made
them. fp32, one thread; a time is the CPU's. bf16 is timed too where the CPU does not emulate it, which takes minutes a
step. It has a goal where the CPU has AMX alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import alternate, compared, not_here, parser, spread, write_row
from torch import Tensor, nn
from torch.nn import functional

from ssd.boxes import default_boxes
from ssd.compute.native import emulation_words, native_units
from ssd.compute.optimizer import make_sgd
from ssd.compute.step import TrainStep
from ssd.conformance import inputs
from ssd.data import TrainBatch
from ssd.model import build_model
from ssd.ops import REFERENCE
from ssd.ops.augment import ColourDraws
from ssd.vendor import load_vendor

CPU = torch.device("cpu")
ORIGINAL, BARE = "the original's step", "the bare model"


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--batch", type=int, default=4)
    flags.add_argument("--rounds", type=int, default=5)
    asked = flags.parse_args(argv)
    torch.set_num_threads(1)
    batch, rounds, width = (1, 1, 0.125) if asked.quick else (asked.batch, asked.rounds, 1.0)
    made = training_batch(batch)
    calls = {
        "fp32": our_step(made, width, "fp32"),
        "bare": bare_step(made, width),
        "original": original_step(made, width),
    }
    emulated = bool(emulation_words("bf16", native_units()))
    if not emulated or asked.quick:
        calls["bf16"] = our_step(made, width, "bf16")
    seconds = alternate(calls, rounds, clock=time.process_time)
    row = {
        "batch": batch,
        "threads": 1,
        "width": width,
        **{f"{name}_images_per_s": round(batch / statistics.median(times), 3) for name, times in seconds.items()},
        "spread": spread(seconds),
        "rounds": rounds,
    }
    what = f"training, width {width:g}, batch {batch}, one thread"
    shown: dict[str, Any] = {"count": batch, "unit": "images"}
    slow = "the convolutions, 60% of the step, are oneDNN's in both"
    ours = "augment and the loss's sorts; optimizer and batch norm are in both"
    items = [
        compared(f"{what}, fp32", seconds, "fp32", "original", least=1.2, peer=ORIGINAL, limit=slow, **shown),
        compared(f"{what}, fp32", seconds, "fp32", "bare", least=0.95, peer=BARE, limit=ours, **shown),
    ]
    goal = f"{what}, bf16"
    if amx():
        items.append(compared(goal, seconds, "bf16", "original", least=6, peer=ORIGINAL, limit=slow, **shown))
    else:
        also = "which emulates bf16" if emulated else f"bf16 is {statistics.median(seconds['bf16']):.3g} s a step"
        items.append(not_here(goal, "6 x", f"AMX ({also})", ORIGINAL))
    write_row("cpu_train", asked, load_vendor("cpu"), row, items)
    return 0


def amx() -> bool:
    """Whether this CPU has AMX's bf16 tiles."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def training_batch(batch: int) -> TrainBatch:
    """A batch as a loader gives it: random pixels, 7 boxes an image, drawn colours."""
    images, draws = inputs.images(batch)
    corners = torch.rand(batch, 7, 2, generator=torch.Generator().manual_seed(0)) * 0.6
    boxes = torch.cat([corners, corners + 0.3], dim=2)
    labels = torch.arange(batch * 7).view(batch, 7) % 80 + 1
    return TrainBatch(images, boxes, labels, draws.flip, draws.factors, draws.order, tuple(range(batch)))


def network(width: float, channels_last: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model in training mode, and its optimizer."""
    model, _ = build_model(seed=0, width=width)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    return model.train(), make_sgd(
        model.parameters(), learning_rate=1e-6, momentum=0.9, weight_decay=5e-4, fused=channels_last
    )


def our_step(batch: TrainBatch, width: float, precision: str) -> Callable[[], None]:
    """A step as a run takes it."""
    model, optimizer = network(width, channels_last=True)
    step = TrainStep(
        model, REFERENCE, default_boxes(), lambda loss: loss.backward(), CPU, precision, channels_last=True
    )

    def take() -> None:
        step(batch)
        optimizer.step()
        optimizer.zero_grad()

    return take


def bare_step(batch: TrainBatch, width: float) -> Callable[[], None]:
    """The model alone, on tensors that are there."""
    model, optimizer = network(width, channels_last=True)
    images = normalised(batch).contiguous(memory_format=torch.channels_last)

    def take() -> None:
        locations, logits = model(images)
        (locations.sum() + logits.sum()).mul(1e-9).backward()
        optimizer.step()
        optimizer.zero_grad()

    return take


def original_step(batch: TrainBatch, width: float) -> Callable[[], None]:
    """The original's step on the images and targets that its loader has made."""
    model, optimizer = network(width, channels_last=False)
    images, defaults = normalised(batch), default_boxes()
    offsets, labels = REFERENCE.encode(batch.boxes, batch.labels, defaults)

    def take() -> None:
        locations, logits = model(images)
        original_loss(locations, logits, offsets, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return take


def normalised(batch: TrainBatch) -> Tensor:
    """The network's input (B, 3, 300, 300) float32."""
    return REFERENCE.augment(batch.images, ColourDraws(batch.flip, batch.factors, batch.order))


def original_loss(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
    """The original's loss (): cross-entropy of every box, negatives found by two sorts.

    locations, offsets (B, 4, D), logits (B, C, D) float32; labels (B, D) int64.
    """
    positive = labels > 0
    count = positive.sum(1)
    place = functional.smooth_l1_loss(locations, offsets, reduction="none").sum(1)
    place = (positive.float() * place).sum(1)
    entropy = functional.cross_entropy(logits, labels, reduction="none")
    background = entropy.clone()
    background[positive] = 0
    _, order = background.sort(1, descending=True)
    _, rank = order.sort(1)
    negative = rank < (3 * count).clamp(max=labels.shape[1]).unsqueeze(1)
    kind = (entropy * (positive.float() + negative.float())).sum(1)
    return ((place + kind) * (count > 0).float() / count.float().clamp(min=1e-6)).mean()


if __name__ == "__main__":
    sys.exit(main())
