"""What must hold of a machine before a run: checks that every vendor inherits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ssd.compute.device import NEEDED_DTYPES, Abilities, device_count, is_known
from ssd.compute.memory import available_bytes, required_bytes
from ssd.compute.native import emulation_words, native_units
from ssd.compute.ranks import GLOO_DEVICES

if TYPE_CHECKING:
    from ssd.config import Config

__all__ = ["SMOKE_RUN", "Check", "device_check", "key_checks", "memory_check", "precision_check"]

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


def precision_check(config: Config) -> Check:
    """Which precisions this CPU computes itself, and whether the one that is asked for is emulated. Always ok."""
    units = native_units()
    what = "precisions of this CPU"
    if units is None:
        return Check(what, True, "fp32; whether it computes bf16 and fp16 itself is unknown")
    found = ", ".join(["fp32", *(f"{precision} ({unit})" for precision, unit in units.items())])
    return Check(what, True, "; ".join(filter(None, [found, emulation_words(config.precision, units)])))


def device_check(vendor: str, device: str, wanted: int) -> Check:
    """Whether torch sees as many devices of a type as a node has processes."""
    what = f"{wanted} device{'s' * (wanted > 1)} of type {device}"
    if not is_known(device):
        found = f"torch {torch.__version__} knows no such type"
        return Check(what, False, found, f"import the library that registers it on top of {vendor}/vendor.py")
    count = device_count(device)
    if count == 0:
        found = f"torch {torch.__version__} sees none"
        return Check(what, False, found, f"run on a machine of vendor {vendor} with its build of torch, or {SMOKE_RUN}")
    remedy = f"set nproc_per_node to at most {count}"
    return Check(what, count >= wanted, f"torch {torch.__version__} sees {count}", remedy)


def key_checks(config: Config, abilities: Abilities, backend: str) -> list[Check]:
    """What the keys of a run ask of its device, and whether that has it; nothing on the host, which has it all.

    backend: of torch.distributed, for tensors of the device.
    """
    device = abilities.device
    if abilities.is_host:
        return []
    checks = [_computes(device)]
    if not checks[0].ok:
        return checks

    def ask(key: str, is_there: bool, lacks: str, otherwise: str) -> None:
        value = str(getattr(config, key)).lower()
        found = f"{device.type} {'has it' if is_there else lacks}"
        checks.append(Check(f"{key} = {value}", is_there, found, f"set {key} = {otherwise}"))

    if config.nhwc:
        ask("nhwc", abilities.channels_last, "has no channels-last tensors", "false")
    if config.precision != "fp32":
        ask("precision", abilities.autocast(config.precision), "has no mixed precision in it", "fp32")
    if config.allreduce_dtype == "bf16":
        ask("allreduce_dtype", abilities.bfloat16, "has no such tensors", "fp32")
    if config.cuda_graph:
        ask("cuda_graph", device.type == "cuda", "has no CUDA graphs", "false")
        if config.world_size > 1 and (config.graph_scope != "gradients" or config.bn_group > 1):
            ask("cuda_graph", backend != "gloo", "has no collectives that a graph can hold", "false")
    if config.compile:
        ask("compile", abilities.compiles, "has no compiler that torch.compile finds", "false")
    if config.world_size > 1:
        if config.ddp == "apex":
            ask("ddp", backend != "gloo" or device.type in GLOO_DEVICES, "has no collectives of its own", "torch")
        checks.append(_collectives(backend))
    return checks


def _computes(device: torch.device) -> Check:
    """Whether tensors of every type of a step reach the device and come back."""
    what = f"tensors on {device}"
    try:
        for dtype in NEEDED_DTYPES:
            sent = torch.tensor([0, 1, 1, 0]).to(dtype)
            if not torch.equal(sent.to(device).flip(0).cpu(), sent.flip(0)):
                return Check(what, False, f"{dtype} comes back with other values", "repair the device or its driver")
    except Exception as error:  # each maker's library raises its own
        return Check(what, False, f"{type(error).__name__}: {error}", "install its driver and its build of torch")
    return Check(what, True, ", ".join(str(dtype).removeprefix("torch.") for dtype in NEEDED_DTYPES))


def _collectives(backend: str) -> Check:
    """Whether torch has the library that the processes communicate by."""
    known = dist.is_available() and dist.is_backend_available(backend)
    remedy = 'import the library that brings it in vendor.py, or state backend = "gloo" there: it goes through the host'
    return Check(f"collectives by {backend}", known, "torch has them" if known else "torch has no such backend", remedy)
