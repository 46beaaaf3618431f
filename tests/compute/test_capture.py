"""What the guard must refuse, each in the way it is written by mistake, and what it must let pass."""

from __future__ import annotations

import pytest
import torch

from ssd.compute.capture import CaptureError, CaptureGuard

X = torch.arange(6.0).view(2, 3)
MASK = X > 2

REFUSED = {
    "item": lambda: X.sum().item(),
    "float": lambda: float(X.sum()),
    "if": lambda: 1 if MASK.any() else 2,
    "slice by a tensor": lambda: X[:, : MASK.sum()],
    "nonzero": lambda: MASK.nonzero(),
    "where with one argument": lambda: torch.where(MASK),
    "select by a mask": lambda: X[MASK],
    "masked_select": lambda: X.masked_select(MASK),
    "write tensors by a mask": lambda: X.clone().__setitem__(MASK, torch.ones(3)),
    "unique": lambda: X.unique(),
    "unique_consecutive": lambda: X.unique_consecutive(),
    "repeat_interleave": lambda: torch.repeat_interleave(torch.arange(3), torch.arange(3)),
    "bincount": lambda: torch.arange(3).bincount(),
    "equal": lambda: torch.equal(X, X.clone()),
    "tensor from numbers": lambda: torch.tensor([1.0, 2.0]),
    "to another device": lambda: X.to("meta"),
    "copy from another device": lambda: torch.empty(2, 3, device="meta").copy_(X),
}

PASSED = {
    "gather by index": lambda: X[torch.arange(2), torch.arange(2)],
    "write a number": lambda: X.clone().__setitem__((slice(None), 1), 0),
    "masked_fill": lambda: X.masked_fill(MASK, 0.0),
    "where": lambda: torch.where(MASK, X, 0.0),
    "repeat_interleave by a number": lambda: X.repeat_interleave(2),
    "another type": lambda: X.to(torch.bfloat16),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(CaptureError, match=r"^aten"), CaptureGuard():
        REFUSED[name]()


@pytest.mark.parametrize("name", PASSED)
def test_passed_and_listed(name: str) -> None:
    with CaptureGuard() as guard:
        PASSED[name]()
    assert guard.calls


def test_calls_are_the_operations_with_their_shapes() -> None:
    with CaptureGuard() as guard:
        X @ X.mT
    assert guard.calls[-1] == ("aten.mm.default", ((2, 3), (3, 2), (2, 2)))


def test_the_backward_pass_is_watched_too() -> None:
    x = X.clone().requires_grad_()
    x.register_hook(lambda gradient: gradient * gradient.sum().item())
    loss = x.square().sum()
    with pytest.raises(CaptureError, match="reads a value back"), CaptureGuard():
        loss.backward()
