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

from . import kernels, telemetry
from .peaks import PEAKS
from .telemetry import Nvml

__all__ = ["Vendor"]


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
        """The Triton kernels: each op's `<op>_op = "triton"`."""
        return kernels.overrides()

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


def _counted(values: Sequence[str]) -> str:
    """One value where all GPUs have the same, else how many have which: "4 x A, 4 x B"."""
    counts = Counter(values)
    return values[0] if len(counts) == 1 else ", ".join(f"{count} x {value}" for value, count in counts.items())
