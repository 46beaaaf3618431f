"""Vendor: what an accelerator may change, with defaults that work on any torch device; and how its folder is loaded.

A vendor's folder is never importable by name (wheels may install a package called like one): `load_vendor` runs its
vendor.py by path, as module `ssd_vendor_<name>`, so that relative imports work inside and nothing else changes.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ssd import apex
from ssd.errors import ConfigError, MachineError, SsdError
from ssd.folders import vendor_folder, vendor_folders
from ssd.gradients import communicate_in_bf16
from ssd.memory import available_bytes, required_bytes
from ssd.nearest import did_you_mean
from ssd.ops import OP_NAMES, REFERENCE, Ops
from ssd.optimizer import make_sgd

if TYPE_CHECKING:
    from ssd.config import Config, Resolved
    from ssd.report.mfu import Peak

__all__ = [
    "SMOKE_RUN",
    "Check",
    "Override",
    "Vendor",
    "compile_model",
    "load_vendor",
    "require_machine",
    "require_own_sizes",
    "select_ops",
    "vendor_folders",
]

SMOKE_RUN = "for a smoke run on this machine: --device cpu --nproc_per_node 1 --train_batch_size 2 --max_steps 2"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


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

    def device_of(self, config: Config) -> str:
        """torch device type of a run: `config.device` wins over `device_type`."""
        return config.device or self.device_type

    def backend_for(self, device: torch.device) -> str:
        """torch.distributed backend for gradients on a device; gloo, which works everywhere, on another's."""
        return self.backend if device.type == self.device_type else "gloo"

    def checks(self, config: Config) -> list[Check]:
        """What must hold of this machine before a run; the first failed one ends it with MachineError."""
        device = self.device_of(config)
        checks = [_memory_check(config) if device == "cpu" else _device_check(self.name, device, config.nproc_per_node)]
        return [*self.torch_checks(), *checks] if device == self.device_type else checks

    def torch_checks(self) -> list[Check]:
        """Whether torch is the build that this vendor's devices need; not asked on another's device."""
        return []

    def set_up(self, config: Config, local_rank: int) -> torch.device:
        """Choose this process's device, before the process group exists. `config.device` wins over `device_type`."""
        kind = self.device_of(config)
        if kind == "cpu":
            return torch.device("cpu")
        getattr(torch, kind).set_device(local_rank)
        return torch.device(kind, local_rank)

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
        return compile_model(model) if config.compile else model

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

    def clear_caches(self) -> str | None:
        """Drop file caches before a timed run: None when done, else why not."""
        os.sync()
        try:
            DROP_CACHES.write_text("3\n")
        except OSError as error:
            return f"file caches were not dropped: {DROP_CACHES}: {error.strerror} (it takes root)"
        return None

    def describe_system(self) -> dict[str, str]:
        """Facts of the accelerators for the system description, all strings."""
        module = getattr(torch, self.device_type)
        if self.device_type == "cpu" or not module.is_available():
            return {"accelerators_per_node": "0", "accelerator_model_name": "none"}
        return {
            "accelerators_per_node": str(module.device_count()),
            "accelerator_model_name": str(module.get_device_name(0)),
        }

    def peaks(self) -> Sequence[Peak]:
        """What its devices can compute at most, for the share of it that a run used; empty: nobody says."""
        return ()

    def telemetry(self, device: torch.device) -> dict[str, float | None]:
        """Power (W), temperature (C), memory (MiB), clock (MHz); None is unknown. Empty: nothing can be read."""
        return {}


def compile_model(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """Have torch.compile replace the model's forward and backward, in place, one program for each shape it meets.

    Names of parameters and buffers stay. It compiles at the first call of each shape: see `ssd.step.warm_up`.
    """
    model.compile(backend=backend, dynamic=False)
    return model


def _memory_check(config: Config) -> Check:
    """Whether the processes of one host fit into the memory of this one; ok where the system does not say."""
    what = f"memory for {config.nproc_per_node} x batch {config.train_batch_size} on the CPU"
    needed, available = required_bytes(config) / 2**30, available_bytes()
    if available is None:
        return Check(what, True, f"about {needed:.1f} GiB needed; what is available is unknown")
    found = f"about {needed:.1f} GiB needed, {available / 2**30:.1f} GiB available"
    return Check(what, needed * 2**30 <= available, found, "lower train_batch_size, eval_batch_size or nproc_per_node")


def _device_check(vendor: str, device: str, wanted: int) -> Check:
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


def load_vendor(name: str, environ: Mapping[str, str] = os.environ) -> Vendor:
    """Load a vendor by name. Unknown: ConfigError that lists the vendors found.

    A vendor.py that does not run, or has no class Vendor, is a ConfigError naming file and line; one that needs a
    library this machine lacks is a MachineError.
    """
    folder = vendor_folder(name, environ)
    module = _load_module(name, folder)
    kind = getattr(module, "Vendor", None)
    if not (isinstance(kind, type) and issubclass(kind, Vendor) and kind.__module__ == module.__name__):
        raise ConfigError(f"{folder / 'vendor.py'}: defines no class Vendor that inherits from ssd.vendor.Vendor.")
    return kind(name, folder)


def _load_module(name: str, folder: Path) -> ModuleType:
    """Run vendor.py by path as `ssd_vendor_<name>`, once a process and folder."""
    module_name = "ssd_vendor_" + re.sub(r"\W", "_", name)
    path = folder / "vendor.py"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    _forget(module_name)
    spec = importlib.util.spec_from_file_location(module_name, path, submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a vendor's file does while it is run: _loading_error puts it into words
        _forget(module_name)
        raise _loading_error(path, error) from error
    return module


def _forget(module_name: str) -> None:
    """Take a vendor's module and what it imported from its own folder out of sys.modules."""
    for loaded in list(sys.modules):
        if loaded == module_name or loaded.startswith(module_name + "."):
            del sys.modules[loaded]


def _loading_error(path: Path, error: Exception) -> SsdError:
    """What went wrong in a vendor.py, as a message with the line of the vendor's folder that raised it."""
    if isinstance(error, SsdError):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    message = f"{path}, line {line}: {type(error).__name__}: {error}."
    if isinstance(error, ImportError):
        return MachineError(f"{message} Install what it imports, or choose another vendor.")
    return ConfigError(f"{message} Correct the file.")


def select_ops(vendor: Vendor, config: Config) -> tuple[Ops, list[str]]:
    """The ops a config asks for, and one line for each override: what, by whom, from which file.

    ConfigError where the vendor has no such override, MachineError where this machine cannot run it: the run never
    falls back to the reference by itself.
    """
    asked = {op: wanted for op in OP_NAMES if (wanted := getattr(config, f"{op}_op")) != "reference"}
    overrides = [_find_override(vendor, op, wanted) for op, wanted in asked.items()]
    if asked and vendor.device_of(config) != vendor.device_type:
        raise MachineError(
            f"{', '.join(f'{op}_op = {wanted}' for op, wanted in asked.items())}: vendor {vendor.name} has that for "
            f"{vendor.device_type}, and this run is on {vendor.device_of(config)}. Remedy: "
            f"{' '.join(f'--{op}_op reference' for op in asked)}."
        )
    ops = replace(REFERENCE, **{override.op: _load_override(override) for override in overrides})
    return ops, [f"{o.op}: {o.name} of vendor {vendor.name}, {o.origin}" for o in overrides]


def _find_override(vendor: Vendor, op: str, wanted: str) -> Override:
    known = {override.name: override for override in vendor.overrides() if override.op == op}
    if wanted not in known:
        names = ["reference", *known]
        raise ConfigError(
            f"{op}_op = {wanted!r}: vendor {vendor.name} has no such override.{did_you_mean(wanted, names)} "
            f"It has: {', '.join(names)}."
        )
    return known[wanted]


def _load_override(override: Override) -> Callable[..., Any]:
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
