"""The fused SGD against the plain one, with and without loss scaling, also where a gradient overflowed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssd.compute.optimizer import make_sgd
from ssd.compute.precision import LossScaler
from ssd.errors import MachineError


def trained(fused: bool, precision: str, overflow: int = 2) -> tuple[list[torch.Tensor], int]:
    """Parameters after 6 steps of a changing rate, and how many steps the scaler skipped."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    optimizer = make_sgd(model.parameters(), learning_rate=0.0, momentum=0.9, weight_decay=0.01, fused=fused)
    scaler = LossScaler(optimizer, torch.device("cpu"), precision)
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 * (step + 1)
        loss = model(torch.randn(4, 5)).square().mean()
        # The loss of one step, the third, overflows once it is scaled by 65,536, and not otherwise.
        scaler.backward(loss * (1e38 if step == overflow and precision == "fp16" else 1))
        scaler.step()
        optimizer.zero_grad(set_to_none=step % 2 == 0)
    return [p.detach() for p in model.parameters()], scaler.skipped()


@pytest.fixture
def dirty_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written holds no numbers, as it may at any time."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kind: empty_like(*args, **kind).fill_(float("nan")))


@pytest.mark.usefixtures("dirty_memory")
@pytest.mark.parametrize(("precision", "skipped", "overflow"), [("fp32", 0, 2), ("fp16", 1, 2), ("fp16", 1, 0)])
def test_fused_equals_plain(precision: str, skipped: int, overflow: int) -> None:
    plain, fused = trained(False, precision, overflow), trained(True, precision, overflow)
    assert plain[1] == fused[1] == skipped
    for expected, actual in zip(plain[0], fused[0], strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_the_rule_of_the_benchmark() -> None:
    """By hand: velocity = 0.9 * velocity + gradient + 0.1 * weight, with the first velocity the gradient itself."""
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = make_sgd([weight], learning_rate=0.5, momentum=0.9, weight_decay=0.1, fused=False)
    for gradient in (1.0, 3.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    # 2 - 0.5 * 1.2 = 1.4;  1.4 - 0.5 * (0.9 * 1.2 + 3.14) = -0.71
    assert weight.item() == pytest.approx(-0.71)
    assert len(optimizer.param_groups) == 1


def test_a_fused_step_sees_gradients_with_their_parameters_strides() -> None:
    """Where an axis has length 1 autograd may choose another stride, and the kernel of an accelerator refuses that."""
    weight = nn.Parameter(torch.zeros(2, 1, 5))
    optimizer = make_sgd([weight], learning_rate=1.0, momentum=0.9, weight_decay=0.0, fused=True)
    x = torch.arange(30.0).view(3, 2, 5)
    torch.bmm(x.transpose(0, 1), weight.transpose(1, 2)).sum().backward()
    assert weight.grad is not None
    if weight.grad.stride() == weight.stride():  # a later torch may agree by itself
        weight.grad = weight.grad.as_strided((2, 1, 5), (5, 1, 1))
    address = weight.grad.data_ptr()
    optimizer.step()
    assert weight.grad.stride() == weight.stride()
    assert weight.grad.data_ptr() == address
    assert torch.equal(-weight.detach(), x.sum(0).unsqueeze(1))


def test_no_kernel_for_the_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def sgd(*_: object, fused: bool | None, **__: object) -> None:
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on supported devices.")

    monkeypatch.setattr("torch.optim.SGD", sgd)
    with pytest.raises(MachineError, match=r'optimizer = "torch_fused".*supported devices.*Set optimizer = "torch"'):
        make_sgd([], learning_rate=0.1, momentum=0.9, weight_decay=0.0, fused=True)
    make_sgd([], learning_rate=0.1, momentum=0.9, weight_decay=0.0, fused=False)
