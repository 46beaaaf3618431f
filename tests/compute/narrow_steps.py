"""Steps of a narrow network and drawn batches, which the tests of eager and captured steps share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssd.boxes import default_boxes
from ssd.compute.step import TrainStep
from ssd.data import TrainBatch
from ssd.model import build_model
from ssd.ops import REFERENCE

CPU = torch.device("cpu")


def make_model(**changed: object) -> nn.Module:
    return build_model(**{"seed": 3, "num_classes": 4, "width": 0.125, **changed})[0]


def make_step(model: nn.Module, device: torch.device = CPU, **changed: object) -> TrainStep:
    return TrainStep(model, REFERENCE, default_boxes().to(device), lambda loss: loss.backward(), device, **changed)


def make_batch(boxes: int, seed: int, images: int = 2) -> TrainBatch:
    """Random images, jitter and boxes; the first image of an odd seed has no box."""
    generator = torch.Generator().manual_seed(seed)
    corner = 0.6 * torch.rand(images, boxes, 2, generator=generator)
    labels = torch.randint(1, 4, (images, boxes), generator=generator)
    labels[: seed % 2] = 0
    ltrb = torch.cat((corner, corner + 0.1 + 0.3 * torch.rand(images, boxes, 2, generator=generator)), dim=2)
    return TrainBatch(
        images=torch.randint(0, 256, (images, 300, 300, 3), generator=generator, dtype=torch.uint8),
        boxes=ltrb * (labels > 0).unsqueeze(2),
        labels=labels,
        flip=torch.rand(images, generator=generator) < 0.5,
        factors=torch.rand(images, 4, generator=generator) * torch.tensor([1.0, 1.0, 1.0, 0.1]) + 0.1,
        order=torch.stack([torch.randperm(4, generator=generator) for _ in range(images)]),
        rows=tuple(range(images)),
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 0.0) -> None:
    """Largest difference over the largest magnitude of each tensor; exactly equal by default."""
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert (actual[name] - value).abs().max() <= tolerance * value.abs().max(), name
