"""Loss scaling: only with fp16, dynamic, and every skipped step is counted."""

from __future__ import annotations

import pytest
import torch

from ssd.compute.precision import LossScaler, autocast

CPU = torch.device("cpu")


def optimizer_of(weight: torch.nn.Parameter, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD([weight], lr=1.0, momentum=0.9, fused=fused or None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_scaling_without_fp16(precision: str) -> None:
    """The original scaled, and could skip steps, in fp32 as well."""
    weight = torch.nn.Parameter(torch.zeros(1))
    scaler = LossScaler(optimizer_of(weight, fused=False), CPU, precision)
    scaler.backward(3 * weight.sum())
    assert weight.grad is not None
    assert weight.grad.item() == 3
    scaler.step()
    assert weight.item() == -3
    assert scaler.skipped() == 0


@pytest.mark.parametrize("fused", [False, True])
def test_fp16_skips_an_overflow_and_counts_it(fused: bool) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = optimizer_of(weight, fused)
    scaler = LossScaler(optimizer, CPU, "fp16")
    for factor in (1.0, float("inf"), 2.0):
        optimizer.zero_grad()
        scaler.backward(factor * weight.sum())
        scaler.step()
    assert scaler.skipped() == 1
    assert weight.item() == pytest.approx(-1 - (0.9 + 2)), "momentum of the taken steps, the overflow left no trace"


@pytest.mark.parametrize("fused", [False, True])
def test_counts_and_scale_survive_a_resume(fused: bool) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = optimizer_of(weight, fused)
    scaler = LossScaler(optimizer, CPU, "fp16")
    scaler.backward(float("inf") * weight.sum())
    scaler.step()
    again = LossScaler(optimizer_of(weight, fused), CPU, "fp16")
    again.load_state_dict(scaler.state_dict())
    assert again.skipped() == 1
    assert again.state_dict() == scaler.state_dict()
    assert scaler.state_dict()["scaler"]["scale"] == 2**15, "halved by the overflow"


def test_autocast() -> None:
    a = torch.ones(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, precision):
            assert (a @ a).dtype == dtype
