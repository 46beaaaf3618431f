"""Run one case on an override and on the reference, and say how far apart they are.

The reference runs on the CPU, whatever the override runs on: it is the specification, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssd.conformance.cases import Case
from ssd.ops import REFERENCE

__all__ = ["Mismatch", "Outcome", "compare", "outputs", "to_device"]


class Mismatch(Exception):
    """Outputs that no tolerance covers: another shape, precision or layout, or numbers where there should be none."""


@dataclass(frozen=True)
class Outcome:
    """The output that is furthest off in terms of its tolerance."""

    output: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Within the tolerance."""
        return self.error <= self.tolerance


def compare(case: Case, function: Callable[..., Any], device: torch.device) -> Outcome:
    """Worst output of `function` on `device` against the reference on the CPU. Raises Mismatch."""
    inputs = case.make()
    # The override gets its own copy: one that writes to its inputs would otherwise agree with itself.
    found = outputs(case, function, to_device(inputs, device))
    wanted = outputs(case, getattr(REFERENCE, case.op), case.make())
    unchanged = zip(_tensors(inputs), _tensors(case.make()), strict=True)
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in unchanged):
        raise Mismatch("the override wrote to its inputs")
    outcomes = [_outcome(name, found[name], wanted[name], case.tolerance) for name in case.only or wanted]
    return max(outcomes, key=lambda o: o.error / max(o.tolerance, 1e-30))


def outputs(case: Case, function: Callable[..., Any], inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """What an op gives for some inputs, by name; of the loss its gradients too, for an uneven weight of the images."""
    if case.op == "augment":
        images = function(*inputs, **case.options)
        layouts = (torch.contiguous_format, torch.channels_last)
        return {"images": images, "layout": torch.tensor([images.is_contiguous(memory_format=m) for m in layouts])}
    if case.op == "encode":
        offsets, labels = function(*inputs, **case.options)
        return {"labels": labels, "offsets": offsets}
    if case.op == "loss":
        locations, logits = (x.detach().requires_grad_() for x in inputs[:2])
        loss = function(locations, logits, *inputs[2:], **case.options)
        weights = torch.arange(1, len(loss) + 1, device=loss.device) / 2
        grads = torch.autograd.grad(loss, (locations, logits), weights)
        return {"loss": loss.detach(), "grad_locations": grads[0], "grad_logits": grads[1]}
    found = function(*inputs, **case.options)
    return {name: getattr(found, name) for name in ("count", "labels", "scores", "boxes")}


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors of a tuple or dataclass on another device, their strides kept."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(to_device(item, device) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: to_device(getattr(value, f.name), device) for f in fields(value)})
    return value


def _tensors(value: Any) -> list[Tensor]:
    """Every tensor of a tuple, those of dataclasses in it included."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    if is_dataclass(value):
        return [tensor for f in fields(value) for tensor in _tensors(getattr(value, f.name))]
    return []


def _outcome(name: str, found: Tensor, wanted: Tensor, tolerance: Mapping[str, float]) -> Outcome:
    """Error of one output: how many integers differ, or the largest distance of the floats.

    Distances of gradients are relative to the largest gradient, all others to max(1, |wanted|).
    """
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        raise Mismatch(f"{name} is {tuple(found.shape)} {found.dtype}, not {tuple(wanted.shape)} {wanted.dtype}")
    found = found.detach().cpu()
    if name not in tolerance:
        return Outcome(name, float((found != wanted).sum()), 0.0)
    found, wanted = found.double(), wanted.double()
    special = ~wanted.isfinite()
    if not torch.equal(found.isfinite(), ~special):
        raise Mismatch(f"{name} is not finite in other places than the reference's")
    found, wanted = found.masked_fill(special, 0.0), wanted.masked_fill(special, 0.0)
    size = wanted.abs()
    scale = size.max().clamp(min=1e-30) if name.startswith("grad_") and size.numel() else size.clamp(min=1.0)
    distance = (found - wanted).abs() / scale
    return Outcome(name, float(distance.max()) if distance.numel() else 0.0, tolerance[name])
