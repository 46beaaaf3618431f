"""Run one case on an override and on the reference, and say how far apart they are.

The reference runs on the CPU, whatever the override runs on: it is the specification, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssd.conformance.cases import Case
from ssd.ops import REFERENCE

__all__ = ["Mismatch", "Outcome", "compare", "each_tensor", "judge", "outputs", "tensors_of", "to_device", "wanted"]


LEAST_FP16 = 2.0**-22
"""Four times the least fp16 above 0. A gradient above it must not become 0, however large others are."""


class Mismatch(Exception):
    """Outputs that no tolerance covers: another shape, precision or layout, or numbers where there should be none."""


@dataclass(frozen=True)
class Outcome:
    """The output that is furthest off in terms of its tolerance."""

    output: str
    error: float
    tolerance: float

    def share(self) -> float:
        """How much of the tolerance the error takes."""
        return self.error / max(self.tolerance, 1e-30)

    @property
    def ok(self) -> bool:
        """Within the tolerance."""
        return self.error <= self.tolerance


def compare(case: Case, function: Callable[..., Any], device: torch.device) -> Outcome:
    """The worst output of one call of `function` on `device`. Raises Mismatch.

    `ssd.conformance.trial` tries a function with more calls.
    """
    found = outputs(case, function, to_device(case.make(), device))
    return judge(case, found, wanted(case, case.make()))


def wanted(case: Case, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """The right outputs for some inputs of a case, by name, of any shape and dtype that the op's contract has.

    They come from the reference on the CPU, or from the case's own exact computation.
    """
    if case.exact is not None:
        return case.exact(*inputs, **case.options)
    return outputs(case, getattr(REFERENCE, case.op), inputs)


def judge(case: Case, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Outcome:
    """The output whose error is largest in relation to its tolerance. Raises Mismatch.

    found, wanted: outputs by name, of any shape; the two must have the same shape and dtype.
    """
    outcomes = [_outcome(name, found[name], wanted[name], case.tolerance) for name in case.only or wanted]
    return max(outcomes, key=Outcome.share)


def outputs(
    case: Case,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    around: AbstractContextManager[Any] | None = None,
) -> dict[str, Tensor]:
    """The outputs of an op for some inputs, by name, of any shape and dtype that the op's contract has (ssd.ops).

    For the loss they include the gradients, where each image has another weight. around: a context for the calls of the
    op and of its backward pass alone.
    """
    around = around or nullcontext()
    if case.op == "loss":
        locations, logits = (x.detach().requires_grad_() for x in inputs[:2])
        weights = torch.arange(1, len(logits) + 1, device=logits.device, dtype=torch.float32) * case.weight
        with around:
            loss = function(locations, logits, *inputs[2:], **case.options)
            grads = torch.autograd.grad(loss, (locations, logits), weights)
        return {"loss": loss.detach(), "grad_locations": grads[0], "grad_logits": grads[1]}
    with around:
        found = function(*inputs, **case.options)
    if case.op == "augment":
        layouts = (torch.contiguous_format, torch.channels_last)
        return {"images": found, "layout": torch.tensor([found.is_contiguous(memory_format=m) for m in layouts])}
    if case.op == "encode":
        offsets, labels = found
        return {"labels": labels, "offsets": offsets}
    return {name: getattr(found, name) for name in ("count", "labels", "scores", "boxes")}


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors of a tuple or dataclass on another device, their strides kept."""
    return each_tensor(value, lambda tensor: tensor.to(device))


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tuple or dataclass in which `change` was applied to each tensor, of any shape and dtype."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(each_tensor(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: each_tensor(getattr(value, f.name), change) for f in fields(value)})
    return value


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor, of any shape and dtype, of a tuple and of the dataclasses in it."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in tensors_of(item)]
    if is_dataclass(value):
        return [tensor for f in fields(value) for tensor in tensors_of(getattr(value, f.name))]
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
    kind, found, wanted = found.dtype, found.double(), wanted.double()
    special = ~wanted.isfinite()
    if not torch.equal(found.isfinite(), ~special):
        raise Mismatch(f"{name} is not finite in other places than the reference's")
    found, wanted = found.masked_fill(special, 0.0), wanted.masked_fill(special, 0.0)
    size = wanted.abs()
    scale = size.max().clamp(min=1e-30) if name.startswith("grad_") and size.numel() else size.clamp(min=1.0)
    if kind == torch.float16 and name.startswith("grad_") and bool(((found == 0) & (size > LEAST_FP16)).any()):
        raise Mismatch(f"{name} is 0 where the reference's is not: small gradients are lost")
    distance = (found - wanted).abs() / scale
    return Outcome(name, float(distance.max()) if distance.numel() else 0.0, tolerance[name])
