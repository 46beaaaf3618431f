"""Vendor: what an accelerator may change, with defaults that work on any torch device; and how its folder is loaded.

A vendor's folder is never importable by name (pip wheels of NVIDIA install a package called `nvidia`): `load_vendor` runs
its vendor.py by path, as module `ssd_vendor_<name>`, so that relative imports work inside and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from ssd.config import Config
    from ssd.ops import Ops

__all__ = ["Check", "Override", "Vendor", "load_vendor", "vendor_folders"]


@dataclass(frozen=True)
class Check:
    """One thing known before a run: what was looked at, what was found, and what to do if it will not do."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Override:
    """A vendor's replacement of one op, asked for by `<op>_op = "<name>"`.

    op: "augment", "encode", "loss" or "detect". name: the value that asks for it. origin: the source file, for the log.
    load: gives the function; raises MachineError with a remedy where it cannot. Argument: by what means it is to run,
        one of `means()`; a training run always asks for "hardware".
    means: the ways this machine can execute it, best first: "hardware", or stand-ins such as "emulator" and
        "host build, warp 64"; what is missing from it is reported as not run.
    """

    op: str
    name: str
    origin: str
    load: Callable[[str], Callable[..., Any]]
    means: Callable[[], Sequence[str]]


class Vendor:
    """Defaults for any torch device. A subclass named `Vendor` in <folder>/vendor.py overrides what differs."""

    device_type = "cpu"
    """torch device type the vendor trains on."""
    backend = "gloo"
    """torch.distributed backend for gradients on that device."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def checks(self, config: Config) -> list[Check]:
        """What must hold of this machine before a run; the first failed one ends it with MachineError."""

    def set_up(self, config: Config, local_rank: int) -> torch.device:
        """Choose this process's device, before the process group exists. `config.device` wins over `device_type`."""

    def overrides(self) -> Sequence[Override]:
        """The replacements this vendor has, all ops together."""
        return ()

    def convert_model(self, model: nn.Module, config: Config, device: torch.device) -> nn.Module:
        """Move the model to the device in the layout the config asks for; a vendor may compile it here."""

    def make_optimizer(self, model: nn.Module, config: Config, learning_rate: float) -> torch.optim.Optimizer:
        """Momentum SGD, one parameter group, weight decay on every parameter (golden/README.md section 8)."""

    def distribute(self, model: nn.Module, config: Config, device: torch.device) -> nn.Module:
        """Wrap for averaged gradients; called only when there is more than one process."""

    def clear_caches(self) -> str | None:
        """Drop file caches before a timed run: None when done, else why not."""

    def describe_system(self) -> dict[str, str]:
        """Facts of the accelerators for the system description, all strings."""

    def telemetry(self, device: torch.device) -> dict[str, float | None]:
        """Power (W), temperature (C), memory (MiB), clock (MHz); None is unknown."""


def vendor_folders() -> dict[str, Path]:
    """Vendors by name: folders with a vendor.py in the repository's root and in each folder of SSD_VENDOR_PATH."""


def load_vendor(name: str) -> Vendor:
    """Load a vendor by name. Unknown: ConfigError that lists the vendors found."""


def select_ops(vendor: Vendor, config: Config) -> tuple[Ops, list[str]]:
    """The ops a config asks for, and one line for each override: what, by whom, from which file."""
