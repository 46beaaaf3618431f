"""What must hold of a machine before a run: checks that every vendor inherits, and how a failed one ends the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ssd.compute.memory import available_bytes, required_bytes
from ssd.errors import ConfigError, MachineError

if TYPE_CHECKING:
    from ssd.config import Config, Resolved
    from ssd.vendor.vendor import Vendor

__all__ = ["SMOKE_RUN", "Check", "device_check", "memory_check", "require_machine", "require_own_sizes"]

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


def require_machine(vendor: Vendor, resolved: Resolved) -> None:
    """End a run that this machine cannot do, before anything slow: the first failed check as MachineError."""
    require_own_sizes(vendor, resolved)
    for check in vendor.checks(resolved.config):
        if not check.ok:
            raise MachineError(f"{check.what}: {check.found}. Remedy: {check.remedy}.")


def require_own_sizes(vendor: Vendor, resolved: Resolved) -> None:
    """ConfigError for a run on a device that is not the vendor's (`--device cpu` on a laptop) in the vendor's sizes.

    Those are meant for its accelerators: processes and batch must be given on the command line.
    """
    config = resolved.config
    if vendor.device_of(config) != vendor.device_type:
        for key in ("nproc_per_node", "train_batch_size"):
            if not resolved.on_command_line(key):
                raise ConfigError(
                    f"--device {config.device} is not the device of vendor {vendor.name} ({vendor.device_type}), and "
                    f"{key} = {getattr(config, key)} ({resolved.provenance[key]}) was chosen for that one. "
                    f"Give --{key} on the command line, for example --nproc_per_node 1 --train_batch_size 2."
                )
