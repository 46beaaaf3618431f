"""Binds each process to the CPUs near its accelerator, as torchrun does (the key `numa_binding`)."""

from __future__ import annotations

import shutil

import torch
from torch.distributed.launcher.api import LaunchConfig

from ssd.errors import MachineError

__all__ = ["bind"]


def _has_accelerator() -> bool:
    try:
        return torch.accelerator.is_available()
    except AttributeError:  # the module of the device's type cannot say
        return False


def bind(launch: LaunchConfig, mode: str) -> None:
    """Set torchrun's NUMA binding. Raises MachineError where it is asked for and this torch or machine has none.

    A newer torch may choose a binding by itself where none is set, so "none" is set explicitly.
    """
    known = hasattr(launch, "numa_options")
    if mode == "none":
        if known:
            launch.numa_options = None
        return
    missing = None if known else f"torch {torch.__version__} has no NUMA binding"
    if not missing:
        from torch.numa.binding import AffinityMode, NumaOptions  # newer than the oldest torch that runs this

        if mode not in {one.value for one in AffinityMode}:
            missing = f"torch {torch.__version__} does not know it"
        elif shutil.which("numactl") is None:
            missing = "the command numactl is not installed"
        elif not _has_accelerator():
            missing = "torch sees no accelerator to bind near to"
    if missing:
        raise MachineError(f"numa_binding = {mode}: {missing}. Remedy: provide it, or set numa_binding = none.")
    launch.numa_options = NumaOptions(affinity_mode=AffinityMode(mode))
