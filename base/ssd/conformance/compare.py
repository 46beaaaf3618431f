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

from ssd.conformance.case import Case
from ssd.conformance.inputs import altered, each_tensor, with_layout
from ssd.conformance.reference import reference
from ssd.ops import Detections

__all__ = ["Mismatch", "Outcome", "compare", "judge", "outputs", "tensors_of", "to_device", "wanted"]


LEAST_FP16 = 2.0**-22
"""Four times the least fp16 above 0. A gradient above it must not become 0, however large others are."""
ROUNDED = ("images", "grad_locations", "grad_logits")
"""Outputs of the case's precision: an override rounds them from float32, to the nearest value."""
ARITHMETIC = 2e-5
"""What float32 arithmetic may add to the rounding of a value to a short format, in terms of what counts as large."""


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
    """The right outputs for some inputs of a case, by name, of any shape that the op's contract has.

    They come from the reference on the CPU, or from the case's own exact computation. Those of ROUNDED are float32, not
    rounded yet: beside what the reference rounds, a value that was cut off would be one unit wrong or right.
    """
    if case.exact is not None:
        return case.exact(*inputs, **case.options)
    if case.op == "augment":
        case = replace(case, options={**case.options, "dtype": torch.float32})
    if case.op == "loss":
        inputs = (inputs[0].float(), inputs[1].float(), *inputs[2:])
    return outputs(case, reference(case.op), inputs)


def judge(case: Case, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Outcome:
    """The output whose error is largest in relation to its tolerance. Raises Mismatch.

    found: outputs by name, of any shape and dtype. wanted: those of `wanted`, which must have the same shapes.
    Gradients are held in the images whose loss is finite: what the others' are is nobody's promise.
    """
    outcomes = []
    for name, right in wanted.items():
        mine, dtype = found[name], case.dtype if name in ROUNDED else right.dtype
        if (mine.shape, mine.dtype) != (right.shape, dtype):
            raise Mismatch(f"{name} is {tuple(mine.shape)} {mine.dtype}, not {tuple(right.shape)} {dtype}")
        mine = mine.detach().cpu()
        if _is_gradient(name):
            healthy = wanted["loss"].isfinite()
            mine, right = mine[healthy], right[healthy]
        outcomes.append(_outcome(name, mine, right, case.tolerance))
    return max(outcomes, key=Outcome.share)


def outputs(
    case: Case,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    around: AbstractContextManager[Any] | None = None,
) -> dict[str, Tensor]:
    """The outputs of an op for some inputs, by name, of any shape and dtype that the op's contract has (ssd.ops).

    For the loss they include the gradients, weighted as the case says. around: a context for the calls of the op and of
    its backward pass alone.
    """
    around = around or nullcontext()
    if case.op == "loss":
        return _loss_outputs(case, function, inputs, around)
    with around:
        found = function(*inputs, **case.options)
    _require_kind(case, found)
    if case.op == "augment":
        layouts = (torch.contiguous_format, torch.channels_last)
        return {"images": found, "layout": torch.tensor([found.is_contiguous(memory_format=m) for m in layouts])}
    if case.op == "encode":
        offsets, labels = found
        return {"labels": labels, "offsets": offsets, "layout": torch.tensor([offsets.is_contiguous()])}
    if case.op == "crop":
        return {"images": found, "layout": torch.tensor([found.is_contiguous()])}
    return {name: getattr(found, name) for name in ("count", "labels", "scores", "boxes")}


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors of a tuple or dataclass on another device, their strides and their place in memory kept."""

    return each_tensor(value, lambda x: x if x.device == device else with_layout(x, device=device))


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor, of any shape and dtype, of a tuple and of the dataclasses in it."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in tensors_of(item)]
    if is_dataclass(value):
        return [tensor for f in fields(value) for tensor in tensors_of(getattr(value, f.name))]
    return []


def _require_kind(case: Case, found: Any) -> None:
    """Mismatch for a result of another type than the op's contract has, or one that can be differentiated."""
    kind = {"encode": tuple, "detect": Detections}.get(case.op, Tensor)
    if not isinstance(found, kind):
        raise Mismatch(f"the result is of type {type(found).__name__}, not {kind.__name__}")
    if any(tensor.requires_grad for tensor in tensors_of(found)):
        raise Mismatch("the result asks for gradients, which this op does not have")


def _loss_outputs(
    case: Case, function: Callable[..., Any], inputs: tuple[Any, ...], around: AbstractContextManager[Any]
) -> dict[str, Tensor]:
    """The loss (B,) and its gradients, those that the case takes."""
    ways = {"of locations": (0,), "of logits": (1,), "of none": ()}
    which = ways.get(case.gradients, (0, 1))
    given = [x.detach().requires_grad_(place in which) for place, x in enumerate(inputs[:2])]
    weights, others = _weights(case, given[1]), altered("loss", tuple(x.detach() for x in inputs))
    wanted, again = [given[place] for place in which], case.gradients == "of both, twice"
    with around:
        loss = function(*given, *inputs[2:], **case.options)
        if case.gradients == "of both, after another call":
            function(*others, **case.options)
        if again:  # nobody keeps them, and they must leave the second ones as they would have been
            torch.autograd.grad(loss, wanted, 2 * weights, retain_graph=True)
        grads = torch.autograd.grad(loss, wanted, weights) if wanted else ()
    if not torch.equal(weights, _weights(case, given[1])):
        raise Mismatch("the override wrote to the gradient of its loss, which is an input too")
    names = ("grad_locations", "grad_logits")
    return {"loss": loss.detach()} | {names[place]: grad for place, grad in zip(which, grads, strict=True)}


def _weights(case: Case, logits: Tensor) -> Tensor:
    """Weights of the losses of images, (B,) float32, on the device of logits (B, C, D)."""
    batch, given = len(logits), case.weights or [(image + 1) / 2 for image in range(len(logits))]
    weights = torch.tensor(given, dtype=torch.float32, device=logits.device)
    return weights.expand(batch)


def _is_gradient(name: str) -> bool:
    return name.startswith("grad_")


def _outcome(name: str, found: Tensor, wanted: Tensor, tolerance: Mapping[str, float]) -> Outcome:
    """Error of one output, of equal shapes: how many integers differ, or the largest distance of the floats.

    Distances of float32 are relative to the image's largest gradient, all others to max(1, |wanted|). What a kernel
    rounds to a short format is held value by value: the tolerance is relative to |wanted|, beside ARITHMETIC. It is
    infinite where |wanted|, rounded, is. Whole numbers with a tolerance are held to values that are not rounded yet.
    """
    if name not in tolerance:
        return Outcome(name, float((found != wanted).sum()), 0.0)
    if not found.is_floating_point():  # whole numbers, beside what they were rounded from
        return Outcome(name, float((found.double() - wanted.double()).abs().amax()), tolerance[name])
    allowed, kind, rounded = tolerance[name], torch.finfo(found.dtype), wanted.to(found.dtype).double()
    found, wanted, special = found.double(), wanted.double(), ~rounded.isfinite()
    if not torch.equal(found.isfinite(), ~special):
        raise Mismatch(f"{name} is not finite in other places than the reference's")
    if not torch.equal(found[special].nan_to_num(), rounded[special].nan_to_num()):
        raise Mismatch(f"{name} is infinite where the reference's is not a number, or of another sign")
    found, wanted = found.masked_fill(special, 0.0), wanted.masked_fill(special, 0.0)
    size = wanted.abs()
    if not size.numel():
        return Outcome(name, 0.0, allowed)
    large = size.flatten(1).amax(1).clamp(min=1e-30).view(-1, 1, 1) if _is_gradient(name) else size.clamp(min=1.0)
    if kind.dtype == "float16" and _is_gradient(name) and bool(((found == 0) & (size > LEAST_FP16)).any()):
        raise Mismatch(f"{name} is 0 where the reference's is not: small gradients are lost")
    if kind.bits < 32:
        large = size + (ARITHMETIC * large + kind.smallest_normal * kind.eps) / allowed
    return Outcome(name, float(((found - wanted).abs() / large).max()), allowed)
