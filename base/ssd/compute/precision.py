"""Mixed precision: autocast for the forward pass, dynamic loss scaling for fp16, and a count of skipped steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["DTYPES", "LossScaler", "autocast"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtype that each value of the key `precision` means."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context manager of the forward pass: mixed precision for "bf16" and "fp16", a no-op for "fp32".

    For "fp32" the device is not asked for mixed precision, which it may lack.
    """
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=DTYPES[precision])


class LossScaler:
    """torch's GradScaler, active only for fp16, with a count of the optimizer steps that it skipped.

    GradScaler skips a step in which a gradient overflowed. A fused optimizer reads the overflow flag on the device. For
    any other optimizer GradScaler copies the flag to the host, which synchronises with the device once a step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, precision: str) -> None:
        self._optimizer = optimizer
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._asked = 0
        self._taken = 0
        self._overflows = torch.zeros((), device=device)
        optimizer.register_step_post_hook(self._count)

    def _count(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._taken += 1
        found_inf = getattr(optimizer, "found_inf", None)  # set by the scaler while a fused optimizer steps
        if found_inf is not None:
            self._overflows += found_inf

    def backward(self, loss: torch.Tensor) -> None:
        """Back-propagate loss (), float32, multiplied by the loss scale."""
        self._scaler.scale(loss).backward()

    def step(self) -> None:
        """Make one optimizer step. It is skipped where a gradient overflowed."""
        self._asked += 1
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def replayed(self) -> None:
        """Count one optimizer step that a CUDA graph made. At a replay `step` does not run, but its work does."""
        self._asked += 1
        self._taken += 1  # a fused optimizer takes every step; what it skips inside is counted on the device

    def skipped(self) -> int:
        """The number of steps skipped so far. It synchronises with the device, so call it at the end of an epoch."""
        known, more = self.skipped_later()
        return known + int(more.item())

    def skipped_later(self) -> tuple[int, torch.Tensor]:
        """The number of steps skipped so far, in two parts: what the host knows, and () float32 on the device.

        It does not wait for the device.
        """
        return self._asked - self._taken, self._overflows

    def state_dict(self) -> dict[str, Any]:
        """The loss scale, GradScaler's counter of its growth, and the numbers of steps asked for and taken."""
        return {"scaler": self._scaler.state_dict(), "asked": self._asked, "taken": self._asked - self.skipped()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._scaler.load_state_dict(state["scaler"])
        self._asked, self._taken = state["asked"], state["taken"]
        self._overflows.zero_()
