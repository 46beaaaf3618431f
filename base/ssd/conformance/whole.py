"""What is no op of its own, tried on a device and held to the CPU: network, optimizer, a whole step, an evaluation.

A narrow network on two made-up images. Both sides have the same weights and draws; the CPU's is float32 and the
reference throughout. Batch norm uses fixed statistics, and is tried alone with those of a batch: over the few values of
a small map these would turn the last bit of a convolution into another gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from ssd.boxes import default_boxes
from ssd.compute.precision import DTYPES, LossScaler, autocast
from ssd.compute.step import TrainStep
from ssd.config import Config
from ssd.conformance import inputs
from ssd.data import TrainBatch
from ssd.model import build_model
from ssd.ops import REFERENCE, Ops
from ssd.vendor import Vendor

__all__ = ["PARTS", "Part", "Side", "cpu_side", "worst"]

BATCH, PLACES, CLASSES, WIDTH = 2, 6, 4, 0.25
LEARNING_RATE = 1e-3
TOLERANCE = {"fp32": 1e-2, "bf16": 0.2, "fp16": 0.05}
"""Of the largest value of an output. Measured on the CPU: 3e-6, 0.07 and 0.009. A wrong op is off by about 1."""
GRADIENT = {"fp32": 1e-2, "bf16": 0.6, "fp16": 0.25}
"""Of the norm of a gradient; measured 1e-4, 0.3 and 0.1."""
SMALL = 1e-3
"""A gradient's norm counts as at least this share of the largest one: some gradients are sums that come to nothing."""


@dataclass(frozen=True)
class Side:
    """Where and how the numbers of one side are computed. config: precision, layout, optimizer."""

    vendor: Vendor
    config: Config
    device: torch.device
    ops: Ops = REFERENCE

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return 4 if self.config.pad_input else 3

    def model(self) -> nn.Module:
        """The network with weights of seed 0, and the statistics that its first images have."""
        layout = self.config.head_layout
        network, _ = build_model(
            seed=0, num_classes=CLASSES, width=WIDTH, in_channels=self.channels, head_layout=layout
        )
        network.load_state_dict(_state(self.channels))
        return self.converted(network).eval()

    def converted(self, module: nn.Module) -> nn.Module:
        """A module as the vendor puts it on the device. It is not compiled: that takes minutes."""
        return self.vendor.convert_model(module, self.config.model_copy(update={"compile": False}), self.device)

    def images(self) -> Tensor:
        """Two images (2, C, 300, 300) float32 as the network takes them, C being `channels`."""
        return _images(self.channels, self.config.nhwc).to(self.device)

    def forward(self, model: nn.Module) -> dict[str, Tensor]:
        """Locations (2, 4, D) and logits (2, 4, D) of the two images, as float32."""
        with autocast(self.device, self.config.precision):
            locations, logits = model(self.images())
        return {"locations": locations.float(), "logits": logits.float()}


Part = Callable[[Side], Mapping[str, Tensor]]
"""Computes named numbers of one side."""


def cpu_side(side: Side) -> Side:
    """The same on the CPU, by base alone: float32, torch's layout and plain SGD, separate heads, the reference ops."""
    plain = {"precision": "fp32", "nhwc": False, "optimizer": "torch", "amp": "torch", "compile": False}
    plain |= {"head_layout": "separate"}
    base = Vendor(side.vendor.name, side.vendor.folder)
    return Side(base, side.config.model_copy(update=plain), torch.device("cpu"))


@cache
def _state(channels: int) -> dict[str, Tensor]:
    """Weights of seed 0, and the statistics of two images in batch norm, computed on the CPU."""
    network, _ = build_model(seed=0, num_classes=CLASSES, width=WIDTH, in_channels=channels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(_images(channels))
    return network.state_dict()


def _images(channels: int, channels_last: bool = False) -> Tensor:
    pixels, draws = inputs.images(BATCH, seed=1)
    return REFERENCE.augment(pixels, draws, channels=channels, channels_last=channels_last)


def _forward(side: Side) -> Mapping[str, Tensor]:
    return side.forward(side.model())


def _batch_norm(side: Side) -> Mapping[str, Tensor]:
    """Batch norm in training: outputs, statistics after it, and gradients."""
    norm = side.converted(nn.Sequential(nn.BatchNorm2d(8))).train()
    draw = inputs.generator(7)
    x, weights = (torch.randn(4, 8, 9, 9, generator=draw).to(side.device) for _ in range(2))
    x = (x * 3 + 1).requires_grad_()
    with autocast(side.device, side.config.precision):
        y = norm(x)
    (y.float() * weights).sum().backward()
    assert x.grad is not None
    after = {name: value for name, value in norm.named_buffers() if value.is_floating_point()}
    return {"y": y, "grad_x": x.grad, **after, **{f"grad_{name}": _grad(one) for name, one in norm.named_parameters()}}


def _backward(side: Side) -> Mapping[str, Tensor]:
    """Every parameter's gradient, for the sum of the outputs' mean squares."""
    model = side.model()
    total = sum(value.square().mean() for value in side.forward(model).values())
    assert isinstance(total, Tensor)
    total.backward()
    return {f"grad_{name}": _grad(parameter) for name, parameter in model.named_parameters()}


def _optimizer(side: Side) -> Mapping[str, Tensor]:
    """Parameters after three steps with made gradients and a learning rate that changes."""
    model = side.model()
    optimizer = side.vendor.make_optimizer(model, side.config, LEARNING_RATE)
    draw = inputs.generator(3)
    for number in range(3):
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape, generator=draw).to(side.device)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (number + 1)
        optimizer.step()
    return dict(model.named_parameters())


def _step(side: Side) -> Mapping[str, Tensor]:
    """Losses of a batch from its pixels and boxes; in float32 also the parameters after the optimizer's step."""
    model = side.model()
    optimizer = side.vendor.make_optimizer(model, side.config, LEARNING_RATE)
    scaler = LossScaler(optimizer, side.device, side.config.precision)
    step = TrainStep(
        model, side.ops, default_boxes().to(side.device), scaler.backward, side.device, side.config.precision,
        side.channels, side.config.nhwc, non_blocking=False,
    )  # fmt: skip
    losses = step(_batch())
    scaler.step()
    # fp16 skips a step whose scaled gradients overflow, which the first step of a run often does.
    return {"losses": losses, **(dict(model.named_parameters()) if side.config.precision == "fp32" else {})}


def _evaluation(side: Side) -> Mapping[str, Tensor]:
    """Outputs for pixels, and the scores of the detections: which of two equal ones is first may differ."""
    model, config = side.model(), side.config
    with torch.inference_mode():
        pixels = inputs.images(BATCH, seed=4)[0].to(side.device)
        images = side.ops.augment(
            pixels, None, dtype=DTYPES[config.precision], channels=side.channels, channels_last=config.nhwc
        )
        with autocast(side.device, config.precision):
            locations, logits = model(images)
        found = side.ops.detect(locations, logits, default_boxes().to(side.device))
    return {"locations": locations.float(), "logits": logits.float(), "scores": found.scores}


PARTS: dict[str, Mapping[str, Part]] = {
    "model": {"forward": _forward, "backward": _backward, "batch norm": _batch_norm},
    "optimizer": {"three steps": _optimizer},
    "step": {"one whole step": _step},
    "evaluation": {"one batch": _evaluation},
}
"""What is tried, by the name that `vendors check --op` takes."""


def worst(part: Part, side: Side) -> tuple[str, float, float]:
    """The output that is furthest from the CPU's in terms of what is allowed, its error, and what is allowed.

    The error is infinite where the output is not finite or has another shape. float32 is not rounded to TF32 here, as
    CUDA's convolutions are by default.
    """
    wanted = {name: value.detach().float() for name, value in part(cpu_side(side)).items()}
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        found = {name: value.detach().float().cpu() for name, value in part(side).items()}
    finally:
        torch.backends.cudnn.allow_tf32 = before
    errors = dict(_errors(found, wanted))
    allowed = {name: (GRADIENT if _is_gradient(name) else TOLERANCE)[side.config.precision] for name in errors}
    name = max(errors, key=lambda one: errors[one] / allowed[one])
    return name, errors[name], allowed[name]


def _is_gradient(name: str) -> bool:
    return name.startswith("grad_")


def _errors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    """The largest difference of each output, as a share of its largest value; of gradients the same of their norms.

    One value beside zero that a ReLU lets through or not changes single gradients, and hardly their norm.
    """
    floor = SMALL * max(float(value.norm()) for value in wanted.values())
    for name in found:  # in a short format the parameters after a step are not compared
        gradient = _is_gradient(name)
        size: Callable[[Tensor], Tensor] = Tensor.norm if gradient else lambda value: value.abs().max()
        scale = max(float(size(wanted[name])), floor if gradient else 0.0, 1e-30)
        same = found[name].shape == wanted[name].shape and bool(found[name].isfinite().all())
        yield name, float(size(found[name] - wanted[name])) / scale if same else float("inf")


def _grad(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _batch() -> TrainBatch:
    """Two images with boxes, labels and drawn colours."""
    pixels, draws = inputs.images(BATCH, seed=5)
    boxes, labels, _ = inputs.truth(BATCH, PLACES, seed=6)
    labels = torch.where(labels > 0, labels % (CLASSES - 1) + 1, 0)
    return TrainBatch(pixels, boxes, labels, draws.flip, draws.factors, draws.order, rows=tuple(range(BATCH)))
