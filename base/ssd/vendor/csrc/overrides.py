"""The kernels of base/csrc as a vendor's overrides: on its hardware, or run by the host at either warp size.

A vendor gives its toolchain; the stand-ins are the same for all. Two host builds, with 64 and with 32 lanes a warp,
tell a kernel that asks for the warp size from one that assumes it. They draw the order of blocks, warps and lanes anew
for every launch, and look at every access to memory: a race, an access outside of the call's tensors, or a read of
shared memory that nobody wrote ends the launch (csrc/shadow.h). nvcc, where it is, shows what a device's compiler says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from ssd.errors import MachineError
from ssd.ops import AnyOp
from ssd.vendor import Override
from ssd.vendor.csrc.build import Toolchain, build, built, gxx, nvcc, open_library
from ssd.vendor.csrc.ops import check_warp, ops_of
from ssd.vendor.overrides import Compile

__all__ = ["COMPILED_ONLY", "HARDWARE", "HOST_WARPS", "OPS", "csrc_overrides"]

HARDWARE, COMPILED_ONLY = "hardware", "compiled only"
"""Two means of `ssd.vendor.Override`: loading by the second gives a function that lists what was compiled."""

OPS = ("augment", "encode", "loss", "detect")
"""The ops that base/csrc has kernels of."""

HOST_WARPS = (64, 32)
"""Lanes of a warp that the host build emulates."""

ORDER_SEED = 3
"""Of the drawn orders of blocks, warps and lanes; see ssd_host_order in csrc/runtime.cu."""

FindToolchain = Callable[[], "Toolchain | None"]
"""Finds a compiler for the accelerator; None without one. MachineError where the one that is here refuses it."""


def csrc_overrides(
    name: str, hardware: FindToolchain, cache_dir: Callable[[], Path], remedy: str, is_hardware: Callable[[], bool]
) -> tuple[Override, ...]:
    """One override `name` for each of OPS. Nothing is built or loaded before one is asked for.

    hardware: finds the compiler for the vendor's accelerator. cache_dir: where libraries are, asked when one is loaded.
    remedy: what to tell a run whose kernels were not built. is_hardware: whether the vendor's accelerator is here.
    """
    means = partial(_means, hardware, is_hardware)
    load = partial(_load, hardware=hardware, cache_dir=cache_dir, remedy=remedy)
    return tuple(Override(op, name, f"base/csrc/{op}.cu", partial(load, op), means) for op in OPS)


def _means(hardware: FindToolchain, is_hardware: Callable[[], bool]) -> Sequence[str]:
    found = [HARDWARE] if is_hardware() and _is_here(hardware) else []
    if gxx(HOST_WARPS[0]) is not None:
        found += [_host_means(warp) for warp in HOST_WARPS]
    return [*found, COMPILED_ONLY] if _compilers(hardware) else found


def _compilers(hardware: FindToolchain) -> list[Toolchain]:
    """Device compilers of this machine: the vendor's, and nvcc."""
    usable = (hardware(), nvcc()) if _is_here(hardware, refusing=False) else (nvcc(),)
    return [toolchain for toolchain in usable if toolchain is not None]


def _is_here(hardware: FindToolchain, *, refusing: bool = True) -> bool:
    """Whether there is a compiler. refusing: what to answer for one that refuses the accelerator; loading says why."""
    try:
        return hardware() is not None
    except MachineError:
        return refusing


def _host_means(warp: int) -> str:
    return f"host build, warp {warp}"


def _load(
    op: str, means: str, *, hardware: FindToolchain, cache_dir: Callable[[], Path], remedy: str
) -> AnyOp | Compile:
    if means == COMPILED_ONLY:
        labels = [toolchain.label for toolchain in _compilers(hardware) if build(toolchain, cache_dir())]
        return lambda: [f"base/csrc/{op}.cu by {label}" for label in labels]
    if means == HARDWARE:
        path = _built_for_hardware(hardware, cache_dir(), remedy)
    else:
        path = _built_for_host(means, cache_dir())
    function: AnyOp = getattr(ops_of(path), op)
    return function


def _built_for_hardware(hardware: FindToolchain, cache_dir: Path, remedy: str) -> Path:
    toolchain = hardware()
    if toolchain is None:
        raise MachineError(f"no compiler for the accelerator's kernels was found. {remedy}")
    path = built(toolchain, cache_dir, remedy)
    check_warp(path, torch.cuda.current_device())
    return path


def _built_for_host(means: str, cache_dir: Path) -> Path:
    warps = {_host_means(warp): warp for warp in HOST_WARPS}
    if means not in warps:
        raise MachineError(
            f"kernels of base/csrc cannot run by {means!r}; known: {HARDWARE}, {', '.join(warps)}, {COMPILED_ONLY}"
        )
    toolchain = gxx(warps[means], checked=True)
    if toolchain is None:
        raise MachineError("no C++ compiler for the host build of base/csrc: install g++ or set CXX")
    path = build(toolchain, cache_dir)
    open_library(path).ssd_host_order(ORDER_SEED)
    return path
