"""nvidia's vendor.py with made-up GPUs: the system's description, the checks before a run, and telemetry elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssd.config import Config, resolve
from ssd.errors import MachineError
from ssd.mlperf.system import FIELDS, describe_system
from ssd.vendor import Vendor, load_vendor, select_ops
from ssd.vendor.csrc.build import Toolchain, nvcc


class FakeReader:
    """Limits of three GPUs, one of which does not tell; one driver."""

    def power_limit_w(self, index: int) -> float | None:
        return (700.0, 700.0, None)[index]

    def driver_version(self) -> str:
        return "580.82.07"

    def read(self, index: int) -> dict[str, float | None]:
        return {"power_w": 100.0 + index}


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """Three GPUs of two kinds."""
    names = ["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA H200"]
    gpus = [SimpleNamespace(name=name, total_memory=(79 + 60 * (name[-1] == "0")) * 2**30) for name in names]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91200)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    vendor = load_vendor("nvidia")
    monkeypatch.setattr(vendor, "_nvml", FakeReader())
    monkeypatch.setattr(vendor, "_sought_nvml", True)
    return vendor


def test_the_description_has_names_counts_memory_limits_and_versions(vendor: Vendor) -> None:
    facts = vendor.describe_system()
    assert all(isinstance(value, str) for value in facts.values())
    assert facts["accelerators_per_node"] == "3"
    assert facts["accelerator_model_name"] == "2 x NVIDIA H100 80GB HBM3, 1 x NVIDIA H200"
    assert facts["accelerator_memory_capacity"] == "2 x 79 GiB, 1 x 139 GiB"
    assert facts["power limit"] == "2 x 700 W, 1 x unknown"
    for part in ("CUDA 13.0", "cuDNN 91200", "NCCL 2.27.3", "driver 580.82.07"):
        assert part in facts["other_software_stack"]


def test_the_systems_description_takes_all_of_it(vendor: Vendor) -> None:
    found = describe_system(vendor.describe_system())
    assert set(found) == set(FIELDS)
    assert "power limit 2 x 700 W, 1 x unknown" in found["hw_notes"]
    assert found["other_software_stack"].startswith("CUDA 13.0")
    assert "Python" in found["other_software_stack"]


def test_without_nvml_limits_and_driver_are_left_out(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "_nvml", None)
    facts = vendor.describe_system()
    assert "power limit" not in facts
    assert "driver" not in facts["other_software_stack"]


def test_without_a_gpu_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_vendor("nvidia").describe_system()["accelerators_per_node"] == "0"


@pytest.mark.parametrize(("device", "tried"), [(None, True), ("cpu", False)])
def test_cudnn_tries_its_algorithms_on_gpus(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, device: str | None, tried: bool
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not tried)
    config = resolve(["--name", "nvidia", "--config", "V100x1x1"], {}).config
    assert vendor.set_up(config.model_copy(update={"device": device}), 3).type == (device or "cuda")
    assert torch.backends.cudnn.benchmark is tried
    assert chosen == ([3] if tried else [])


def nvml_checks(vendor: Vendor, config: Config) -> list[str]:
    return [check.what for check in vendor.checks(config) if "NVML" in check.what]


def test_telemetry_is_checked_where_a_run_wants_it(vendor: Vendor) -> None:
    config = resolve(["--name", "nvidia", "--config", "V100x1x1"], {}).config
    assert nvml_checks(vendor, config) == ["NVML for telemetry"]
    assert nvml_checks(vendor, config.model_copy(update={"telemetry_interval": 0.0})) == []
    assert nvml_checks(vendor, config.model_copy(update={"device": "cpu"})) == []


def test_telemetry_of_another_device_is_nothing(vendor: Vendor) -> None:
    assert vendor.telemetry(torch.device("cuda", 1)) == {"power_w": 101.0}
    assert vendor.telemetry(torch.device("cpu")) == {}


@pytest.mark.parametrize("name", ["nvidia", "iluvatar"])
def test_a_vendor_that_knows_peaks_gives_them(name: str) -> None:
    assert load_vendor(name).peaks()
    assert load_vendor("cpu").peaks() == ()


def test_the_kernels_of_both_languages_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = load_vendor("nvidia").overrides()
    assert [override.name for override in overrides] == ["triton"] * 5 + ["cuda"] * 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    has = {override.name: list(override.means()) for override in overrides if override.op == "loss"}
    assert "hardware" not in has["triton"]
    assert ("hardware" in has["cuda"]) == (nvcc() is not None)


@pytest.mark.parametrize(
    ("gpu", "usual", "asked"),
    [
        ((7, 0), ("70", "80", "90"), ()),
        ((7, 5), ("70", "80", "90"), ()),  # code for 7.0 runs on 7.5
        ((7, 0), ("80", "90"), ("70",)),  # CUDA 13, which refuses it
        ((7, 5), ("80", "90"), ("75",)),
        ((8, 0), ("80", "90"), ()),
        ((12, 0), ("80", "90"), ()),  # compiles the PTX for itself
        ((0, 0), ("80", "90"), ()),  # no GPU
        ((7, 0), (), ()),  # no nvcc
    ],
)
def test_nvcc_is_asked_for_code_that_this_gpu_runs(
    gpu: tuple[int, int], usual: tuple[str, ...], asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_vendor("nvidia")
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr("ssd_vendor_nvidia._capability", lambda: gpu)
    monkeypatch.setattr("ssd_vendor_nvidia.nvcc_capabilities", lambda: usual)
    monkeypatch.setattr("ssd_vendor_nvidia.nvcc", seen.append)
    sys.modules["ssd_vendor_nvidia"]._toolchain()
    assert seen == [asked]


def test_a_compiler_that_refuses_the_gpu_is_said_where_the_kernels_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(capabilities: tuple[str, ...]) -> None:
        raise MachineError("nvcc does not build for compute capability 70")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (7, 0))
    config = resolve(["--name", "nvidia", "--config", "V100x1x1"], {}).config
    load_vendor("nvidia")
    monkeypatch.setattr("ssd_vendor_nvidia.nvcc", refuse)
    with pytest.raises(MachineError, match=r"augment_op = 'cuda' .*does not build for compute capability 70"):
        select_ops(load_vendor("nvidia"), config)


def test_prepare_builds_the_cuda_kernels_where_nvcc_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd_vendor_nvidia.nvcc", lambda capabilities: None)
    assert load_vendor("nvidia").build(tmp_path) == [
        "kernels of base/csrc: not built, no nvcc; <op>_op = cuda needs them (the configs of V100)"
    ]
    compiler = tmp_path / "nvcc"
    script = 'while [ "$1" != -o ] && [ $# -gt 0 ]; do shift; done; [ -z "$2" ] || echo made > "$2"'
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr("ssd_vendor_nvidia.nvcc", lambda capabilities: Toolchain("nvcc-80", (str(compiler),), 32))
    (line,) = load_vendor("nvidia").build(tmp_path)
    assert line.startswith("kernels of base/csrc by nvcc-80: ")
    assert Path(line.split(": ")[1]).read_text().startswith("made\n")
