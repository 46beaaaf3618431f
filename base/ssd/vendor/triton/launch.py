"""How the kernels here are started: on the GPU, by Triton's interpreter, or recorded, to be compiled without a GPU.

Every start goes through `launch`. Inside `recording()` nothing is executed: kernel, argument types and compile-time
constants are noted instead, which is all that `build.py` needs to compile the same kernels for a GPU that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import triton

__all__ = ["INTERPRETED", "Launch", "launch", "power_of_2", "recording"]

INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
"""Whether the kernels run on Triton's interpreter: its cost is by the operation, hardly by the
size of a block, so blocks are larger there; still several to a row, for what happens between blocks to be tried too."""


@dataclass(frozen=True)
class Launch:
    """One start of a kernel: the kernel, its arguments by position, its compile-time constants and options by name."""

    kernel: Any
    arguments: tuple[Any, ...]
    meta: dict[str, Any]


_recorded: ContextVar[list[Launch] | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Collect the launches of the block instead of executing them; what the ops return meanwhile is meaningless."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **meta: Any) -> None:
    """Start `kernel` over `grid`; `meta` holds its constexpr arguments and options (num_warps, enable_fp_fusion)."""
    launches = _recorded.get()
    if launches is not None:
        launches.append(Launch(kernel, arguments, meta))
    elif all(grid):
        if not INTERPRETED:
            kernel[grid](*arguments, **meta)
            return
        from ssd.vendor.triton.checked import checked

        with checked(kernel, arguments):
            kernel[grid](*arguments, **meta)


def power_of_2(n: int, *, least: int = 1) -> int:
    """Smallest power of two that is >= n and >= least."""
    return max(least, triton.next_power_of_2(max(n, 1)))
