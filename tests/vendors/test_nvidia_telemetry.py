"""nvidia's reader against a made-up NVML with the names and errors of the real package; and its table of peaks."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace

import pytest

from ssd.report.mfu import find_peak
from ssd.run.telemetry import TELEMETRY
from ssd.vendor import load_vendor


@pytest.fixture(scope="module")
def telemetry() -> ModuleType:
    load_vendor("nvidia", {})
    return importlib.import_module("ssd_vendor_nvidia.telemetry")


class FakeNvml:
    """Two GPUs of 300 W and 310 W; `unsupported` queries raise as NVML does."""

    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1
    UUIDS = ("GPU-aaaa", "GPU-bbbb")

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(self, unsupported: tuple[str, ...] = (), lost: bool = False) -> None:
        self.unsupported, self.lost, self.opened = unsupported, lost, []

    def __getattribute__(self, name: str):
        if name in object.__getattribute__(self, "__dict__").get("unsupported", ()):
            raise FakeNvml.NVMLError_NotSupported
        return object.__getattribute__(self, name)

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.opened.append(uuid)
        return self.UUIDS.index(uuid)

    def nvmlDeviceGetPowerUsage(self, gpu):
        if self.lost:
            raise self.NVMLError("GPU is lost")
        return 300_000 + 10_000 * gpu

    def nvmlDeviceGetTemperature(self, gpu, sensor):
        return 60 + gpu if sensor == self.NVML_TEMPERATURE_GPU else None

    def nvmlDeviceGetMemoryInfo(self, gpu):
        return SimpleNamespace(total=80 * 2**30, free=78 * 2**30, used=2 * 2**30)

    def nvmlDeviceGetClockInfo(self, gpu, clock):
        return 1980 if clock == self.NVML_CLOCK_SM else None

    def nvmlDeviceGetUtilizationRates(self, gpu):
        return SimpleNamespace(gpu=97, memory=40)

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu):
        return 700_000

    def nvmlSystemGetDriverVersion(self):
        return b"580.82.07"


def test_a_gpu_that_nvml_does_not_find_has_no_power_limit(telemetry: ModuleType) -> None:
    """In a container or on a partitioned GPU, names may differ; the machine is described all the same."""
    nvml = FakeNvml()

    def not_found(uuid):
        raise nvml.NVMLError("Not Found")

    nvml.nvmlDeviceGetHandleByUUID = not_found
    assert telemetry.Nvml(nvml, lambda index: "MIG-cccc").power_limit_w(0) is None


def test_units_and_keys(telemetry: ModuleType) -> None:
    reading = telemetry.Nvml(FakeNvml(), lambda index: f"GPU-{'ab'[index] * 4}").read(1)
    assert reading == {
        "power_w": 310.0,
        "temperature_c": 61.0,
        "memory_mib": 2048.0,
        "clock_mhz": 1980.0,
        "use_percent": 97.0,
    }
    assert tuple(reading) == TELEMETRY


def test_devices_are_found_by_uuid_once(telemetry: ModuleType) -> None:
    """torch's device 0 may be any GPU of the host."""
    nvml = FakeNvml()
    reader = telemetry.Nvml(nvml, lambda index: FakeNvml.UUIDS[1 - index])
    assert [reader.read(index)["power_w"] for index in (0, 1, 0)] == [310.0, 300.0, 310.0]
    assert nvml.opened == ["GPU-bbbb", "GPU-aaaa"]
    assert reader.power_limit_w(0) == 700.0
    assert reader.driver_version() == "580.82.07"


@pytest.mark.parametrize(
    ("query", "key"), [("nvmlDeviceGetPowerUsage", "power_w"), ("nvmlDeviceGetTemperature", "temperature_c")]
)
def test_what_is_not_supported_is_none(telemetry: ModuleType, query: str, key: str) -> None:
    reading = telemetry.Nvml(FakeNvml((query,)), lambda index: "GPU-aaaa").read(0)
    assert reading[key] is None
    assert sum(value is None for value in reading.values()) == 1


def test_a_lost_gpu_is_an_error_of_the_reader(telemetry: ModuleType) -> None:
    with pytest.raises(FakeNvml.NVMLError, match="GPU is lost"):
        telemetry.Nvml(FakeNvml(lost=True), lambda index: "GPU-aaaa").read(0)


def test_the_real_package_has_the_names_we_use(telemetry: ModuleType) -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is optional")
    names = [name for name in vars(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert len(names) == 12
    assert all(hasattr(pynvml, name) for name in names)


def test_without_nvml_the_check_says_so(telemetry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, "pynvml", None)
    assert telemetry.check().ok
    assert "nvidia-ml-py" in telemetry.check().found


@pytest.mark.parametrize(
    ("device", "arithmetic", "tflops"),
    [
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("A100-SXM4-80GB", "tf32", 156),
        ("NVIDIA A100 80GB PCIe", "bf16", 312),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "bf16", None),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA A1000", "bf16", None),
    ],
)
def test_peaks(device: str, arithmetic: str, tflops: float | None) -> None:
    load_vendor("nvidia", {})
    found = find_peak(importlib.import_module("ssd_vendor_nvidia.peaks").PEAKS, device, arithmetic)
    assert (found and found[0]) == tflops
