"""nvidia: GPUs with CUDA and nccl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

import ssd.vendor
from ssd.config import Config
from ssd.report.mfu import Peak
from ssd.vendor import SMOKE_RUN, Check, Override
from ssd.vendor.csrc.build import Toolchain, build, nvcc, nvcc_capabilities
from ssd.vendor.csrc.overrides import csrc_overrides
from ssd.vendor.triton.overrides import triton_overrides

from . import telemetry
from .peaks import PEAKS
from .telemetry import Nvml

__all__ = ["Vendor"]

TRITON_CAPABILITY = (8, 0)
"""Triton promises nothing for older GPUs: V100 (7.0) runs the reference ops or the kernels of base/csrc."""
TARGETS = ("sm_80", "sm_90")
"""What "compiled only" compiles the Triton kernels for: A100, and H100 or H200."""
REMEDY = "Run in base/: python3 prepare.py --name nvidia"


class Vendor(ssd.vendor.Vendor):
    """What differs from base: the device, the kernels, and that torch must be built for CUDA."""

    device_type = "cuda"
    backend = "nccl"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self._nvml: Nvml | None = None
        self._sought_nvml = False

    def checks(self, config: Config) -> list[Check]:
        """Base's, and whether power and temperature will be known where a run wants them."""
        wanted = config.telemetry_interval and self.device_of(config) == self.device_type
        return [*super().checks(config), *([telemetry.check()] if wanted else [])]

    def torch_checks(self) -> list[Check]:
        """Builds of torch for the CPU or for another maker's GPUs have no CUDA version."""
        found = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
        remedy = f"install a build of torch for CUDA, or {SMOKE_RUN}"
        return [Check("torch built for CUDA", torch.version.cuda is not None, found, remedy)]

    def set_up(self, config: Config, local_rank: int) -> torch.device:
        """As base does; and cuDNN times its algorithms at the first step of each shape, in the warm-up.

        Shapes never change after it. Runs may then take different algorithms, and differ in rounding.
        """
        device = super().set_up(config, local_rank)
        torch.backends.cudnn.benchmark = device.type == self.device_type
        return device

    def overrides(self) -> Sequence[Override]:
        """The ops by `<op>_op = "triton"`, and all but `crop` by `<op>_op = "cuda"`."""
        cuda = csrc_overrides("cuda", _toolchain, lambda: self.cache_dir, REMEDY, lambda: _capability() > (0, 0))
        return [*triton_overrides("triton", TARGETS, lambda: _capability() >= TRITON_CAPABILITY), *cuda]

    def build(self, cache_dir: Path) -> list[str]:
        """Compile base/csrc with CUDA's nvcc. Without one there is nothing to build: V100's configs ask for them."""
        if (toolchain := _toolchain()) is None:
            return ["kernels of base/csrc: not built, no nvcc; <op>_op = cuda needs them (the configs of V100)"]
        return [f"kernels of base/csrc by {toolchain.label}: {build(toolchain, cache_dir)}"]

    def peaks(self) -> Sequence[Peak]:
        """Peak arithmetic, for the share of it that a run used."""
        return PEAKS

    def telemetry(self, device: torch.device) -> dict[str, float | None]:
        """Power, temperature, memory, clock and use by NVML; nothing where nvidia-ml-py or a driver is missing."""
        nvml = self._reader() if device.type == self.device_type else None
        return nvml.read(device.index or 0) if nvml else {}

    def describe_system(self) -> dict[str, str]:
        """Names, memory and power limits of the GPUs, and the versions of what drives them; all strings."""
        if not torch.cuda.is_available():
            return super().describe_system()
        count = torch.cuda.device_count()
        gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
        facts = {
            "accelerators_per_node": str(count),
            "accelerator_model_name": _counted([gpu.name for gpu in gpus]),
            "accelerator_memory_capacity": _counted([f"{gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]),
        }
        stack = {"CUDA": torch.version.cuda or "", "cuDNN": str(torch.backends.cudnn.version() or "")}
        stack["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
        if nvml := self._reader():
            limits = [nvml.power_limit_w(index) for index in range(count)]
            facts["power limit"] = _counted(["unknown" if limit is None else f"{limit:g} W" for limit in limits])
            stack["driver"] = nvml.driver_version()
        facts["other_software_stack"] = ", ".join(f"{name} {version}" for name, version in stack.items() if version)
        return facts

    def _reader(self) -> Nvml | None:
        """NVML's reader, sought once."""
        if not self._sought_nvml:
            self._nvml, self._sought_nvml = telemetry.reader(), True
        return self._nvml


def _toolchain() -> Toolchain | None:
    """nvcc, for the usual GPUs, or for this one alone where no code for those runs on it; None without nvcc.

    Code runs on GPUs of its own major capability that are as new. Newer ones compile the newest PTX for themselves.
    Raises MachineError where this nvcc has dropped this GPU, as CUDA 13 has dropped V100.
    """
    major, minor = _capability()
    usual = nvcc_capabilities()
    runs = any(int(name[:-1]) == major and int(name[-1]) <= minor for name in usual)
    older = (0, 0) < (major, minor) < TRITON_CAPABILITY
    return nvcc((f"{major}{minor}",) if usual and older and not runs else ())


def _capability() -> tuple[int, int]:
    """Compute capability of this process's GPU; (0, 0) without one, or where torch is not built for CUDA."""
    here = torch.version.hip is None and torch.cuda.is_available()
    return torch.cuda.get_device_capability() if here else (0, 0)


def _counted(values: Sequence[str]) -> str:
    """One value where all GPUs have the same, else how many have which: "4 x A, 4 x B"."""
    counts = Counter(values)
    return values[0] if len(counts) == 1 else ", ".join(f"{count} x {value}" for value, count in counts.items())
