"""Wrong overrides by somebody who knows the suite: each is right for ordinary batches, and one named case is for it.

docs/kernel-mutants.md tells which of them the suite once let pass.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ssd.conformance.cases import cases_of, small_case
from ssd.conformance.compare import Mismatch
from ssd.conformance.trial import trial
from ssd.ops import REFERENCE

CPU = torch.device("cpu")


def below(limit: float) -> float:
    """The float32 before `limit`: what was "more than" becomes "at least"."""
    return float(np.nextafter(np.float32(limit), np.float32(-9)))


def infinite_is_nan(locations, logits, offsets, labels, **options):
    broken = logits.isinf().any(2).any(1)
    return torch.where(broken, float("nan"), REFERENCE.loss(locations, logits, offsets, labels, **options))


def clamped_logits(locations, logits, offsets, labels, **options):
    return REFERENCE.loss(locations, logits.clamp(-1000, 1000), offsets, labels, **options)


class Flushed(torch.autograd.Function):
    """The identity, whose gradient loses what fp16 has below its normal numbers."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.where(gradient.abs() < 2.0**-14, 0.0, gradient) if gradient.dtype == torch.float16 else gradient


def flushed_gradients(locations, logits, *targets, **options):
    return REFERENCE.loss(Flushed.apply(locations), Flushed.apply(logits), *targets, **options)


def first_64_boxes(boxes, labels, defaults, **options):
    return REFERENCE.encode(boxes[:, :64], labels[:, :64], defaults, **options)


def no_small_area(boxes, labels, defaults, **options):
    area = (boxes[..., 2:] - boxes[..., :2]).prod(2)
    return REFERENCE.encode(boxes, torch.where(area > 0, labels, 0), defaults, **options)


def at_criteria(boxes, labels, defaults, criteria=0.5, **options):
    return REFERENCE.encode(boxes, labels, defaults, criteria=below(criteria), **options)


def at_threshold(*inputs, score_threshold=0.05, **options):
    return REFERENCE.detect(*inputs, score_threshold=below(score_threshold), **options)


def few_rounds(suppresses):
    """NMS as rounds of "kept unless a kept better box overlaps", but only 24 of them."""
    keep, over = torch.ones_like(suppresses[:, 0]), suppresses & torch.ones_like(suppresses).triu(1)
    for _ in range(24):
        keep = ~(over & keep.unsqueeze(2)).any(1)
    return keep


def short_chains(*inputs, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["ssd.ops.detect"], "_greedy", few_rounds)
        return REFERENCE.detect(*inputs, **options)


class RoundedEarly(torch.autograd.Function):
    """The loss, whose gradients are rounded to the network's precision before they are weighted."""

    @staticmethod
    def forward(ctx, locations, logits, offsets, labels):
        with torch.enable_grad():
            given = locations.detach().requires_grad_(), logits.detach().requires_grad_()
            losses = REFERENCE.loss(*given, offsets, labels)
            ctx.save_for_backward(*torch.autograd.grad(losses.sum(), given))
        return losses.detach()

    @staticmethod
    def backward(ctx, weights):
        return *((one * weights.view(-1, 1, 1)).to(one.dtype) for one in ctx.saved_tensors), None, None


def rounded_early(locations, logits, offsets, labels):
    return RoundedEarly.apply(locations, logits, offsets, labels)


def clamped_differences(locations, logits, offsets, labels, **options):
    return REFERENCE.loss(offsets + (locations - offsets).clamp(-8, 8), logits, offsets, labels, **options)


def padding_by_its_box(boxes, labels, defaults, **options):
    return REFERENCE.encode(boxes, labels.clamp(min=1), defaults, **options)


def few_candidates(*inputs, **options):
    module = sys.modules["ssd.ops.detect"]
    all_of_them = module._over_threshold

    def first(*arguments):
        found = all_of_them(*arguments)
        return found[torch.arange(min(len(found.score), 65_536))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_over_threshold", first)
        return REFERENCE.detect(*inputs, **options)


def forgotten_channel(images, draws, **options):
    out = REFERENCE.augment(images, draws, **options)
    if draws is None:
        out[:, 3:] = float("nan")
    return out


@pytest.mark.parametrize(
    ("op", "function", "words"),
    [
        ("augment", forgotten_channel, "no draws, float16, 4 channels"),
        ("encode", padding_by_its_box, "padding that has a box"),
        ("loss", rounded_early, "float16, weighted by a loss scaler"),
        ("loss", clamped_differences, "locations far from their targets"),
        ("detect", few_candidates, "more than 65,536 candidates a batch"),
        ("loss", infinite_is_nan, "logits of minus infinity"),
        ("loss", clamped_logits, "logits of minus infinity, and in thousands"),
        ("loss", flushed_gradients, "float16"),
        ("encode", first_64_boxes, "150 places"),
        ("encode", no_small_area, "sides whose product is 0"),
        ("encode", at_criteria, "exactly the criteria"),
        ("detect", at_threshold, "exactly the threshold"),
        ("detect", short_chains, "a chain of 100 boxes"),
    ],
)
def test_what_is_wrong_for_rare_values_only_has_a_case(op: str, function, words: str) -> None:
    def passes(case) -> bool:
        try:
            return trial(case, function, CPU).ok
        except Mismatch:
            return False

    assert passes(small_case(op))
    cases = [case for case in cases_of(op) if words in case.name]
    assert cases
    assert not all(passes(case) for case in cases)


def test_small_gradients_that_are_lost_are_named() -> None:
    case = next(case for case in cases_of("loss") if case.name == "gradients against float64, float16")

    def lost(locations, logits, *targets, **options):
        return REFERENCE.loss(locations, Least.apply(logits), *targets, **options)

    class Least(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.where(gradient.abs() < 2.0**-20, 0.0, gradient)

    with pytest.raises(Mismatch, match="grad_logits is 0 where the reference's is not"):
        trial(case, lost, CPU)
