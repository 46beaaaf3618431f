"""What must hold of a machine before a run: checks that every vendor inherits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ssd.compute.memory import available_bytes, required_bytes

if TYPE_CHECKING:
    from ssd.config import Config

__all__ = ["SMOKE_RUN", "Check", "device_check", "memory_check"]

SMOKE_RUN = "for a smoke run on this machine: --device cpu --nproc_per_node 1 --train_batch_size 2 --max_steps 2"


@dataclass(frozen=True)
class Check:
    """One thing known before a run: what was looked at, what was found, and what to do if it will not do."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def memory_check(config: Config) -> Check:
    """Whether the processes of one host fit into the memory of this one; ok where the system does not say."""
    what = f"memory for {config.nproc_per_node} x batch {config.train_batch_size} on the CPU"
    needed, available = required_bytes(config) / 2**30, available_bytes()
    if available is None:
        return Check(what, True, f"about {needed:.1f} GiB needed; what is available is unknown")
    found = f"about {needed:.1f} GiB needed, {available / 2**30:.1f} GiB available"
    return Check(what, needed * 2**30 <= available, found, "lower train_batch_size, eval_batch_size or nproc_per_node")


def device_check(vendor: str, device: str, wanted: int) -> Check:
    """Whether torch sees as many devices of a type as a node has processes."""
    what = f"{wanted} device{'s' * (wanted > 1)} of type {device}"
    module = getattr(torch, device, None)
    count = module.device_count() if module is not None and module.is_available() else 0
    if count == 0:
        found = f"torch {torch.__version__} sees none"
        return Check(what, False, found, f"run on a machine of vendor {vendor} with its build of torch, or {SMOKE_RUN}")
    remedy = f"set nproc_per_node to at most {count}"
    return Check(what, count >= wanted, f"torch {torch.__version__} sees {count}", remedy)
