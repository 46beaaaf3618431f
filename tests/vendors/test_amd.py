"""amd's folder without the hardware: torch's build by a stubbed torch.version.hip, telemetry by a stand-in for amdsmi.

The stand-in has the names and the answers of the package's documented Python interface. The package was not installed.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ssd.config import resolve
from ssd.ops import OP_NAMES
from ssd.report.mfu import find_peak
from ssd.run.telemetry import TELEMETRY
from ssd.vendor import Vendor, load_vendor


@pytest.fixture
def vendor() -> Vendor:
    return load_vendor("amd")


class FakeAmdSmi(ModuleType):
    """Two GPUs by their places on the bus; values that a GPU does not tell are "N/A", or the query raises."""

    AmdSmiTemperatureType = SimpleNamespace(JUNCTION="junction")
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="current")
    AmdSmiClkType = SimpleNamespace(GFX="gfx")

    class AmdSmiLibraryException(Exception):
        pass

    def __init__(self, silent: tuple[str, ...] = ()) -> None:
        super().__init__("amdsmi")
        self.silent, self.started = silent, 0

    def amdsmi_init(self):
        self.started += 1

    def amdsmi_get_processor_handle_from_bdf(self, bdf):
        return {"0000:c5:00.0": 0, "0001:05:00.0": 1}[bdf]

    def amdsmi_get_power_info(self, gpu):
        return {"current_socket_power": "N/A" if "power" in self.silent else 600 + gpu, "average_socket_power": "N/A"}

    def amdsmi_get_temp_metric(self, gpu, sensor, metric):
        if "temperature" in self.silent:
            raise self.AmdSmiLibraryException("not supported")
        return 61 + gpu if (sensor, metric) == ("junction", "current") else None

    def amdsmi_get_gpu_vram_usage(self, gpu):
        return {"vram_total": 196_592, "vram_used": 2048}

    def amdsmi_get_clock_info(self, gpu, clock):
        return {"clk": 2100, "min_clk": 132} if clock == "gfx" else {}

    def amdsmi_get_gpu_activity(self, gpu):
        return {"gfx_activity": 97, "umc_activity": 40}


@pytest.fixture
def amdsmi(vendor: Vendor, monkeypatch: pytest.MonkeyPatch):
    """Put a stand-in in the package's place; the reader starts anew."""
    places = [(0, 0xC5), (1, 0x05)]
    gpus = [SimpleNamespace(pci_domain_id=domain, pci_bus_id=bus, pci_device_id=0) for domain, bus in places]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])

    def put(module: ModuleType | None) -> ModuleType | None:
        monkeypatch.setitem(sys.modules, "amdsmi", module)
        sys.modules["ssd_vendor_amd.telemetry"]._initialised.cache_clear()
        return module

    yield put
    sys.modules["ssd_vendor_amd.telemetry"]._initialised.cache_clear()


def test_the_vendors_code_is_under_100_lines(root: Path) -> None:
    lines = [line for name in ("vendor.py", "telemetry.py") for line in (root / "amd" / name).read_text().splitlines()]
    assert len(lines) < 100


def test_the_page_says_first_that_nothing_ran(root: Path) -> None:
    assert "not run on hardware" in (root / "docs" / "amd.md").read_text().splitlines()[0]


@pytest.mark.parametrize(("hip", "ok"), [("6.4.43482", True), (None, False)])
def test_rocm_is_told_from_cuda_by_torchs_hip_version(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, hip: str | None, ok: bool
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    config = resolve(["--name", "amd", "--config", "MI300Xx1x1"], {}).config
    check = vendor.checks(config)[0]
    assert (check.what, check.ok) == ("torch built for ROCm", ok)
    assert f"HIP {hip or 'none'}" in check.found
    assert "torch for ROCm" in check.remedy


@pytest.mark.parametrize(("hip", "here", "hardware"), [("6.4", True, True), ("6.4", False, False), (None, True, False)])
def test_kernels_run_on_the_hardware_only_with_rocm_and_a_gpu(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, hip: str | None, here: bool, hardware: bool
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here)
    overrides = vendor.overrides()
    assert [(override.op, override.name) for override in overrides] == [(op, "triton") for op in OP_NAMES]
    assert [("hardware" in override.means()) for override in overrides] == [hardware] * 5
    assert list(overrides[0].means())[-2:] == ["emulator", "compiled only"]


def test_readings_are_found_by_the_place_on_the_bus(vendor: Vendor, amdsmi) -> None:
    smi = amdsmi(FakeAmdSmi())
    first, second = (vendor.telemetry(torch.device("cuda", index)) for index in range(2))
    assert first == dict(zip(TELEMETRY, (600, 61, 2048, 2100, 97), strict=True))
    assert (second["power_w"], second["temperature_c"]) == (601, 62)
    assert smi.started == 1


def test_what_a_gpu_does_not_tell_is_none(vendor: Vendor, amdsmi) -> None:
    amdsmi(FakeAmdSmi(("power", "temperature")))
    reading = vendor.telemetry(torch.device("cuda", 0))
    assert (reading["power_w"], reading["temperature_c"], reading["memory_mib"]) == (None, None, 2048)


def test_without_amdsmi_nothing_is_read(vendor: Vendor, amdsmi) -> None:
    amdsmi(None)
    assert vendor.telemetry(torch.device("cuda", 0)) == {}
    assert vendor.telemetry(torch.device("cpu")) == {}


@pytest.mark.parametrize(
    ("device", "arithmetic", "tflops"),
    [
        ("AMD Instinct MI300X", "bf16", 1307.4),
        ("AMD Instinct MI300X VF", "tf32", 653.7),
        ("AMD Instinct MI355X", "fp16", 2516.6),
        ("AMD Instinct MI355X", "tf32", None),
        ("AMD Instinct MI300A", "bf16", None),
    ],
)
def test_peaks(vendor: Vendor, device: str, arithmetic: str, tflops: float | None) -> None:
    found = find_peak(importlib.import_module("ssd_vendor_amd.peaks").PEAKS, device, arithmetic)
    assert (found and found[0]) == tflops
