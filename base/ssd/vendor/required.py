"""What a run requires of its vendor and its machine: checks that must hold, and the ops that its config asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ssd.config.nearest import did_you_mean
from ssd.errors import ConfigError, MachineError, SsdError
from ssd.ops import OP_NAMES, REFERENCE, AnyOp, Ops
from ssd.vendor.checks import Check
from ssd.vendor.interface import Vendor
from ssd.vendor.overrides import Compile, Override

if TYPE_CHECKING:
    from ssd.config import Config, Resolved

__all__ = ["require_device", "require_machine", "require_own_sizes", "select_ops"]


def require_machine(vendor: Vendor, resolved: Resolved) -> None:
    """End a run that this machine cannot do, before anything slow: the first failed check as MachineError."""
    require_own_sizes(vendor, resolved)
    _require(vendor.checks(resolved.config))


def require_device(vendor: Vendor, config: Config, device: torch.device) -> None:
    """End a run whose keys ask for what its device lacks: MachineError with the key to change."""
    _require(vendor.key_checks(config, device))


def _require(checks: Iterable[Check]) -> None:
    for check in checks:
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


def select_ops(vendor: Vendor, config: Config) -> tuple[Ops, list[str]]:
    """The ops a config asks for, and one line for each override: what, by whom, from which file.

    ConfigError where the vendor has no such override, MachineError where this machine cannot run it: the run never
    falls back to the reference by itself.
    """
    vendor.config, vendor.cache_dir = config, config.cache_dir
    asked = {op: wanted for op in OP_NAMES if (wanted := getattr(config, f"{op}_op")) != "reference"}
    overrides = [_find_override(vendor, op, wanted) for op, wanted in asked.items()]
    if asked and vendor.device_of(config) != vendor.device_type:
        raise MachineError(
            f"{', '.join(f'{op}_op = {wanted}' for op, wanted in asked.items())}: vendor {vendor.name} has that for "
            f"{vendor.device_type}, and this run is on {vendor.device_of(config)}. Remedy: "
            f"{' '.join(f'--{op}_op reference' for op in asked)}."
        )
    loaded: dict[str, Any] = {override.op: _load_override(override) for override in overrides}
    return replace(REFERENCE, **loaded), [f"{o.op}: {o.name} of vendor {vendor.name}, {o.origin}" for o in overrides]


def _find_override(vendor: Vendor, op: str, wanted: str) -> Override:
    known = {override.name: override for override in vendor.overrides() if override.op == op}
    if wanted not in known:
        names = ["reference", *known]
        raise ConfigError(
            f"{op}_op = {wanted!r}: vendor {vendor.name} has no such override.{did_you_mean(wanted, names)} "
            f"It has: {', '.join(names)}."
        )
    return known[wanted]


def _load_override(override: Override) -> AnyOp | Compile:
    key = f"{override.op}_op = {override.name!r} ({override.origin})"
    remedy = f"Remedy: run it on its accelerator, or set {override.op}_op = reference."
    means = list(override.means())
    if "hardware" not in means:
        others = ", ".join(means) or "no other means"
        raise MachineError(f"{key}: this machine lacks its hardware (it can run by {others}). {remedy}")
    try:
        return override.load("hardware")
    except (SsdError, ImportError, OSError, RuntimeError) as error:
        raise MachineError(f"{key}: cannot be loaded: {error} {remedy}") from error
