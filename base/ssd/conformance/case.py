"""A case: one trial of an op, with how far each output may be from the reference's. Letters as in `ssd.ops`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssd.conformance.exact import exact_crop
from ssd.conformance.inputs import with_layout

__all__ = ["GRADIENTS", "Case", "Make", "augment_case", "crop_case", "detect_case", "encode_case", "loss_case"]

Make = Callable[[], tuple[Any, ...]]

AUGMENT = {torch.float32: 2e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Of values up to 2.7: rounding differences in float32, and half a unit in the last place of the two short formats."""
GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Of the image's largest gradient, and of each gradient in the short formats: see `ssd.conformance.compare`."""
SCORE = 2e-6
"""Half of it is the reference's, which adds up the classes in a row. Beside rounding, 2^-24 an operation, a GPU's exp
costs a kernel 3e-7 at most: x * log2(e) is rounded, which is 2^-24 |x|, and ex2.approx is off by 2^-22 of a result."""

CROPPED = 0.5 + 0.02
"""Grey levels, of the reference's values before it rounds them. A unit in the last place of a pixel's centre moves a
value by up to 0.01 in each direction, where neighbours are black and white. GPUs divide by a number in another way."""

GRADIENTS = ("of both", "of both, after another call", "of both, twice", "of locations", "of logits", "of none")
"""Ways to take gradients. "After another call": the loss of other inputs is computed before the backward pass."""


@dataclass(frozen=True)
class Case:
    """One trial of an op. make: the inputs, positional, on the CPU. options: keyword arguments.

    tolerance: largest error of each float output, see `ssd.conformance.compare`. dtype: the precision that the case is
        about: of what `augment` and `crop` give, and of the network's outputs that the loss and the detections take.
    exact: gives the outputs to compare with; None for the reference op.
    weights: of the losses of the images, where gradients are computed. () is 0.5, 1, 1.5, ..., which `exact` assumes.
        One weight is for all images, and its memory is one number: so is the gradient of a mean.
    gradients: one of GRADIENTS: which gradients of the loss are taken, and when.
    inference: the op is called in torch's inference mode, as evaluations call it.
    """

    op: str
    name: str
    make: Make
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    quick: bool = False
    exact: Callable[..., dict[str, Tensor]] | None = None
    weights: tuple[float, ...] = ()
    gradients: str = "of both"
    inference: bool = False


def augment_case(
    name: str, make: Make, options: Mapping[str, Any], quick: bool = False, inference: bool = False
) -> Case:
    """Images and draws, or None for them. options: keyword arguments of the op."""
    dtype = options.get("dtype", torch.float32)
    return Case("augment", name, make, options, {"images": AUGMENT[dtype]}, dtype, quick, inference=inference)


def encode_case(name: str, make: Make, quick: bool = False, **options: Any) -> Case:
    """Boxes, labels and default boxes. options: keyword arguments of the op."""
    return Case("encode", name, make, options, {"offsets": 1e-5}, quick=quick)


def loss_case(
    name: str, make: Make, dtype: torch.dtype = torch.float32, quick: bool = False,
    exact: Callable[..., dict[str, Tensor]] | None = None, weights: tuple[float, ...] = (), gradients: str = "of both",
    **options: Any,
) -> Case:  # fmt: skip
    """Locations (B, 4, D) and logits (B, C, D), both of `dtype`, and targets.

    exact: gives the outputs, (B,) float32 and gradients, to compare with. options: keyword arguments of the op.
    """
    tolerance = {"loss": 1e-5, "grad_locations": GRADIENT[dtype], "grad_logits": GRADIENT[dtype]}
    return Case("loss", name, _in(dtype, make), options, tolerance, dtype, quick, exact, weights, gradients)


def detect_case(
    name: str, make: Make, dtype: torch.dtype = torch.float32, quick: bool = False, inference: bool = False,
    **options: Any,
) -> Case:  # fmt: skip
    """Locations and logits, both of `dtype`, and default boxes. options: keyword arguments of the op."""
    tolerance = {"boxes": 1e-5, "scores": SCORE}
    return Case("detect", name, _in(dtype, make), options, tolerance, dtype, quick, inference=inference)


def crop_case(name: str, make: Make, options: Mapping[str, Any], quick: bool = False, inference: bool = False) -> Case:
    """Slots, rectangles and planes. options: keyword arguments of the op."""
    tolerance = {"images": CROPPED}
    return Case("crop", name, make, options, tolerance, torch.uint8, quick, exact=exact_crop, inference=inference)


def _in(dtype: torch.dtype, make: Make) -> Make:
    """Makes locations and logits, the first two inputs, in another precision than float32."""
    return make if dtype == torch.float32 else partial(_converted, make, dtype)


def _converted(make: Make, dtype: torch.dtype) -> tuple[Any, ...]:
    locations, logits, *rest = make()
    return with_layout(locations, dtype=dtype), with_layout(logits, dtype=dtype), *rest
