"""A vendor's replacements of ops: how one is offered, and how a run takes those that its config asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ssd.config.nearest import did_you_mean
from ssd.errors import ConfigError, MachineError, SsdError
from ssd.ops import OP_NAMES, REFERENCE, AnyOp, Ops

if TYPE_CHECKING:
    from ssd.config import Config
    from ssd.vendor.vendor import Vendor

__all__ = ["Compile", "Override", "select_ops"]

Compile: TypeAlias = Callable[[], Iterable[str]]
"""Compiles an op's kernels for a device that this machine lacks. Gives one line for each kernel that was compiled."""


@dataclass(frozen=True)
class Override:
    """A vendor's replacement of one op, asked for by `<op>_op = "<name>"`.

    op: "augment", "encode", "loss" or "detect". name: the value that asks for it. origin: the source file, for the log.
    load: gives the function; raises MachineError with a remedy where it cannot. Argument: by what means it is to run,
        one of `means()`; a training run always asks for "hardware". "compiled only" gives a `Compile` and not the op.
    means: the ways this machine can execute it, best first: "hardware", or stand-ins such as "emulator" and
        "host build, warp 64"; what is missing from it is reported as not run.
    """

    op: str
    name: str
    origin: str
    load: Callable[[str], AnyOp | Compile]
    means: Callable[[], Sequence[str]]


def select_ops(vendor: Vendor, config: Config) -> tuple[Ops, list[str]]:
    """The ops a config asks for, and one line for each override: what, by whom, from which file.

    ConfigError where the vendor has no such override, MachineError where this machine cannot run it: the run never
    falls back to the reference by itself.
    """
    vendor.cache_dir = config.cache_dir
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
