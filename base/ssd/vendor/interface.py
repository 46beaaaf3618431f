"""Vendor: what an accelerator may change, with defaults that work on any torch device (see ssd.compute.device)."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ssd.compute import apex
from ssd.compute.device import Abilities, device_count, select
from ssd.compute.gradients import communicate_in_bf16
from ssd.compute.optimizer import make_sgd
from ssd.config import Config
from ssd.vendor.checks import Check, device_check, key_checks, memory_check, precision_check
from ssd.vendor.overrides import Override

if TYPE_CHECKING:
    from ssd.report.mfu import Peak

__all__ = ["Vendor", "compile_model"]

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Vendor:
    """Defaults for any torch device. A subclass named `Vendor` in <folder>/vendor.py overrides what differs."""

    device_type = "cpu"
    """torch device type the vendor trains on."""
    backend = "gloo"
    """torch.distributed backend for gradients on that device."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.cache_dir = Path(os.environ.get("SSD_CACHE_DIR") or Config.model_fields["cache_dir"].default)
        """Where built kernels lie: the key `cache_dir` of a run once its ops are selected, until then the default."""
        self.config: Config | None = None
        """The config of a run once its ops are selected, and of `prepare`: for the methods that do not get it.
        `Keys.of(self.config)` has the keys of a vendor's own (keys.py of its folder); of None, their defaults."""
        self._abilities: dict[torch.device, Abilities] = {}

    def device_of(self, config: Config) -> str:
        """torch device type of a run: `config.device` wins over `device_type`."""
        return config.device or self.device_type

    def backend_for(self, device: torch.device) -> str:
        """torch.distributed backend for gradients on a device; gloo, which works everywhere, on another's."""
        return self.backend if device.type == self.device_type else "gloo"

    def checks(self, config: Config) -> list[Check]:
        """What must hold of this machine before a run; the first failed one ends it with MachineError."""
        device = self.device_of(config)
        if device == "cpu":
            checks = [memory_check(config), precision_check(config)]
        else:
            checks = [device_check(self.name, device, config.nproc_per_node)]
        return [*self.torch_checks(), *checks] if device == self.device_type else checks

    def torch_checks(self) -> list[Check]:
        """Whether torch is the build that this vendor's devices need; not asked on another's device."""
        return []

    def set_up(self, config: Config, local_rank: int) -> torch.device:
        """Choose this process's device, before the process group exists. `config.device` wins over `device_type`."""
        return select(self.device_of(config), local_rank)

    def abilities(self, device: torch.device) -> Abilities:
        """What a device can do beside what every device must; base tries each. Override it to answer otherwise."""
        return self._abilities.setdefault(device, Abilities(device))

    def key_checks(self, config: Config, device: torch.device) -> list[Check]:
        """Whether a device has what the keys of a run ask of it. Asked once it is chosen; it computes a few numbers."""
        return key_checks(config, self.abilities(device), self.backend_for(device))

    def overrides(self) -> Sequence[Override]:
        """The replacements this vendor has, all ops together."""
        return ()

    def build(self, cache_dir: Path) -> list[str]:
        """Compile the vendor's extensions into `cache_dir`, once, for `prepare`: one line for each thing built."""
        return []

    def convert_model(self, model: nn.Module, config: Config, device: torch.device) -> nn.Module:
        """Move the model to the device in the layout the config asks for, and have it compiled where it says so.

        torch.compile works at the first call of each shape, before run_start; parameters keep their names.
        """
        model = model.to(device).to(memory_format=torch.channels_last if config.nhwc else torch.contiguous_format)
        return compile_model(model, combo_kernels=config.combo_kernels) if config.compile else model

    def make_optimizer(self, model: nn.Module, config: Config, learning_rate: float) -> torch.optim.Optimizer:
        """Momentum SGD, one parameter group, weight decay on every parameter: the benchmark's rule, biases included."""
        values = {"momentum": config.momentum, "weight_decay": config.weight_decay_rate}
        if config.optimizer == "apex_fused_sgd":
            return apex.fused_sgd(model, learning_rate=learning_rate, **values)
        fused = config.optimizer == "torch_fused"
        return make_sgd(model.parameters(), learning_rate=learning_rate, fused=fused, **values)

    def distribute(self, model: nn.Module, config: Config, device: torch.device) -> nn.Module:
        """Wrap for averaged gradients; called only when there is more than one process.

        Batch-norm statistics stay local (broadcast_buffers off): they are averaged before evaluations and checkpoints.
        """
        if config.ddp == "apex":
            return apex.distributed(model, gradient_accumulation_steps=config.gradient_accumulation_steps)
        device_ids = None if device.type == "cpu" else [device.index]
        # torch 2.14 renamed the argument, and warns of the old name.
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        off: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
        }
        wrapped = nn.parallel.DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True, **off)
        if config.allreduce_dtype == "bf16":
            communicate_in_bf16(wrapped)
        return wrapped

    def why_caches_stay(self) -> str | None:
        """Drop the machine's file caches before a timed run. None when that is done, else why they stay."""
        os.sync()
        try:
            DROP_CACHES.write_text("3\n")
        except OSError as error:
            return f"file caches were not dropped: {DROP_CACHES}: {error.strerror} (it takes root)"
        return None

    def describe_system(self) -> dict[str, str]:
        """Facts of the accelerators for the system description, all strings."""
        count = 0 if self.device_type == "cpu" else device_count(self.device_type)
        if not count:
            return {"accelerators_per_node": "0", "accelerator_model_name": "none"}
        name = self.abilities(torch.device(self.device_type, 0)).name
        return {"accelerators_per_node": str(count), "accelerator_model_name": name}

    def peaks(self) -> Sequence[Peak]:
        """What its devices can compute at most, for the share of it that a run used; empty: nobody says."""
        return ()

    def telemetry(self, device: torch.device) -> dict[str, float | None]:
        """Power (W), temperature (C), memory (MiB), clock (MHz); None is unknown. Empty: nothing can be read."""
        return {}


def compile_model(model: nn.Module, backend: str = "inductor", combo_kernels: bool = False) -> nn.Module:
    """Have torch.compile replace the model's forward and backward, in place, one program for each shape it meets.

    Names of parameters and buffers stay. It compiles at the first call of each shape: see `ssd.compute.step.warm_up`.
    combo_kernels: Inductor joins kernels that do not depend on each other. On a CPU that changes nothing.
    """
    options: dict[str, Any] = {"options": {"combo_kernels": True}} if combo_kernels else {}
    model.compile(backend=backend, dynamic=False, **options)
    return model
