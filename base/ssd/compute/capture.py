"""Finds operations that a CUDA graph cannot capture, on any machine.

These are operations that synchronise with the device, and operations whose shapes depend on the data.

    with CaptureGuard() as guard:
        step.compute(batch)
    guard.calls       # every operation with its shapes; equal for two batches of one size

Tensors of the `meta` device have no values. So a step that runs on that device does not depend on any value. Kernels
that are called without torch's dispatcher are not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["CaptureError", "CaptureGuard"]

aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class CaptureError(RuntimeError):
    """An operation that a CUDA graph cannot capture. The traceback says where it was called."""


class CaptureGuard(TorchDispatchMode):
    """Raises CaptureError at the first operation that a CUDA graph cannot capture.

    `calls` lists the operations before it: the name, and the shapes of all tensors that go in and come out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[torch.Size, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if reason := _reason(func, args, kwargs):
            raise CaptureError(f"{func} {reason}")
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        self.calls.append((str(func), tuple(tensor.shape for tensor in tensors)))
        return result


def _reason(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Why an operation cannot be captured; None where it can."""
    if func in INDEXED:
        masks = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in tree_leaves(args[1]))
        return "with a mask: how much it touches depends on values; use where or masked_fill" if masks else None
    if torch.Tag.data_dependent_output in func.tags:
        return "reads a value back to the host"
    if torch.Tag.dynamic_output_shape in func.tags:
        return "has a result whose shape depends on values"
    if func is aten.lift_fresh.default and args[0].dim() > 0:  # x[...] = 0 also lifts a scalar, made on the device
        return "copies Python numbers to a tensor; make it before the step"
    if func is aten.copy_.default and args[0].device != args[1].device:
        return f"copies from {args[1].device} to {args[0].device}"
    if func is aten._to_copy.default and kwargs.get("device", args[0].device) != args[0].device:
        return f"copies from {args[0].device} to {kwargs['device']}"
    return None
