"""iluvatar's folder without the hardware: CoreX's compiler by its command line, ixsmi by constructed samples.

The samples are made from the query forms in ixsmi's public use (csv, noheader, nounits; N/A where a board does not
tell; "not a valid field" from releases that do not know one). No ixsmi was run.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ssd.config import Config, resolve
from ssd.errors import EXIT_MAX_STEPS, MachineError
from ssd.ops import OP_NAMES
from ssd.run.telemetry import TELEMETRY
from ssd.train import train
from ssd.vendor import Vendor, load_vendor, require_machine, select_ops
from ssd.vendor.csrc.build import CSRC, Toolchain


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """The vendor on a machine that has neither CoreX nor ixsmi."""
    monkeypatch.setenv("COREX_HOME", str(tmp_path / "corex"))
    monkeypatch.setenv("SSD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SSD_COREX_ARCH", raising=False)
    return load_vendor("iluvatar")


@pytest.fixture
def build(vendor: Vendor) -> ModuleType:
    return sys.modules["ssd_vendor_iluvatar.build"]


@pytest.fixture
def telemetry(vendor: Vendor) -> ModuleType:
    return sys.modules["ssd_vendor_iluvatar.telemetry"]


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# --- the compiler -----------------------------------------------------------------------------------------------------

RECORDING_COMPILER = """
[ "$1" = --version ] && echo 'clang version 16.0.0, CoreX 4.3.0' && exit 0
echo "$@" >> "$(dirname "$0")/calls"
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""


@pytest.fixture
def corex_home(tmp_path: Path) -> Path:
    """A CoreX folder whose compiler writes down how it was called."""
    program(tmp_path / "corex" / "bin" / "clang++", RECORDING_COMPILER)
    return tmp_path / "corex"


def test_the_kernels_are_built_by_corex_for_64_lanes(vendor: Vendor, corex_home: Path, tmp_path: Path) -> None:
    (line,) = vendor.build(tmp_path / "cache")
    assert line.startswith("kernels for corex-ivcore10, 64 lanes a warp: ")
    assert Path(line.split(": ")[1]).read_text().startswith("made\n")
    (call,) = (corex_home / "bin" / "calls").read_text().splitlines()
    words = call.split()
    for expected in ("--cuda-gpu-arch=ivcore10", "-DSSD_WARP=64", "-ffp-contract=off", f"--cuda-path={corex_home}"):
        assert expected in words
    assert sorted(word for word in words if word.endswith(".cu")) == sorted(map(str, CSRC.glob("*.cu")))
    assert words[-1] == "-lcudart"
    vendor.build(tmp_path / "cache")
    assert len((corex_home / "bin" / "calls").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "arch"), [("Iluvatar BI-V100", "ivcore10"), ("Iluvatar BI-V150", "ivcore11"), ("Tomorrow's", "ivcore10")]
)
def test_the_instruction_set_follows_the_accelerators_name(
    build: ModuleType, corex_home: Path, monkeypatch: pytest.MonkeyPatch, name: str, arch: str
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.4.1+corex.4.3.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: name)
    assert build.corex().label == f"corex-{arch}"
    monkeypatch.setenv("SSD_COREX_ARCH", "ivcore20")
    assert build.corex().label == "corex-ivcore20"


def test_without_corex_nvcc_proves_the_sources_and_without_both_the_remedy_is_named(
    vendor: Vendor, build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = program(tmp_path / "bin" / "nvcc", RECORDING_COMPILER)
    monkeypatch.setattr(build, "nvcc", lambda: Toolchain("nvcc-80", (str(compiler),), 32))
    (line,) = vendor.build(tmp_path / "cache")
    assert "by nvcc, 32 lanes a warp, as a check of the sources" in line
    monkeypatch.setattr(build, "nvcc", lambda: None)
    with pytest.raises(MachineError, match=r"neither .*clang\+\+ \(set COREX_HOME.*reference"):
        vendor.build(tmp_path / "cache")


def test_corexs_warp_size_cannot_be_got_wrong(tmp_path: Path) -> None:
    """The one place that knows CoreX's macro refuses another warp size; checked with the host's preprocessor."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    call = [compiler, "-x", "c++", "-std=c++17", "-fsyntax-only", "-D__ILUVATAR__", str(CSRC / "dialect.h")]
    wrong = subprocess.run([*call, "-DSSD_WARP=32"], capture_output=True, text=True, check=False)
    assert wrong.returncode != 0
    assert "SSD_WARP must be 64" in wrong.stderr
    assert subprocess.run([*call, "-DSSD_WARP=64"], capture_output=True, check=False).returncode == 0


def test_no_source_names_32_where_it_means_the_warp() -> None:
    """What is left of 32 is a number of bits: in a type's name or in a shift."""
    for path in [*CSRC.glob("*.cu"), *CSRC.glob("*.h")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("//")[0]
            for word in ("u32", "<< 32", ">> 32"):
                code = code.replace(word, "")
            assert "32" not in code, f"{path.name}, line {number}: {line}"
            assert "warpSize" not in code


def test_one_override_for_each_op_and_it_runs(vendor: Vendor) -> None:
    overrides = {override.op: override for override in vendor.overrides()}
    assert tuple(overrides) == OP_NAMES
    assert [override.name for override in vendor.overrides()] == ["cuda"] * 4 + ["triton"] * 5
    assert "hardware" not in overrides["loss"].means()


def test_hardware_is_offered_only_by_corexs_torch(
    vendor: Vendor, corex_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Iluvatar BI-V100")
    assert "hardware" not in vendor.overrides()[0].means()
    monkeypatch.setattr(torch, "__version__", "2.4.1+corex.4.3.0")
    assert vendor.overrides()[0].means()[0] == "hardware"
    with pytest.raises(MachineError, match=r"not built .*prepare\.py --name iluvatar"):
        vendor.overrides()[0].load("hardware")


def test_libraries_are_looked_for_where_the_config_says(
    vendor: Vendor, corex_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.4.1+corex.4.3.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Iluvatar BI-V100")
    config = Config(name="iluvatar", loss_op="cuda", cache_dir=tmp_path / "elsewhere")
    with pytest.raises(MachineError, match=f"no {tmp_path / 'elsewhere'}/csrc/"):
        select_ops(vendor, config)


def test_torch_from_elsewhere_is_named(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = vendor.torch_checks()
    assert not check.ok
    assert "CoreX's own torch wheel" in check.remedy
    monkeypatch.setattr(torch, "__version__", "2.7.1+corex.4.4.0")
    assert vendor.torch_checks()[0].ok


# --- ixsmi, constructed samples ---------------------------------------------------------------------------------------

COREX_4 = {
    "index": ["0", "1"],
    "uuid": ["GPU-aa", "GPU-bb"],
    "gpu.power.draw": ["187", "N/A"],
    "temperature.gpu": ["61", "58"],
    "memory.used": ["25531", "257"],
    "clocks.current.sm": ["1500", "[Not Supported]"],
    "utilization.gpu": ["99", "0"],
}
COREX_3 = {("power.draw" if name == "gpu.power.draw" else name): values for name, values in COREX_4.items()}
COREX_3.pop("clocks.current.sm")


class Samples:
    """ixsmi as constructed: the fields it knows, and what it was asked."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self.fields, self.asked = fields, []

    def __call__(self, arguments: list[str]) -> str:
        query, form = arguments
        assert form == "--format=csv,noheader,nounits"
        names = query.removeprefix("--query-gpu=").split(",")
        self.asked.append(names)
        for name in names:
            if name not in self.fields:
                return f'Field "{name}" is not a valid field to query.\n'
        return "".join(", ".join(row) + "\n" for row in zip(*(self.fields[name] for name in names), strict=True))


def test_the_record_has_the_keys_of_every_vendor(telemetry: ModuleType) -> None:
    assert tuple(telemetry.FIELDS) == TELEMETRY


def test_corex_4(telemetry: ModuleType) -> None:
    ixsmi = telemetry.Ixsmi(Samples(COREX_4))
    first = {"power_w": 187, "temperature_c": 61, "memory_mib": 25531, "clock_mhz": 1500, "use_percent": 99}
    assert ixsmi.read(0) == first
    assert ixsmi.read(1) == first | {
        "power_w": None, "temperature_c": 58, "memory_mib": 257, "clock_mhz": None, "use_percent": 0
    }  # fmt: skip


def test_corex_3_calls_power_otherwise_and_has_no_clock(
    telemetry: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    reading = telemetry.Ixsmi(Samples(COREX_3)).read(0)
    assert (reading["power_w"], reading["clock_mhz"]) == (187, None)
    assert "does not tell clock_mhz" in caplog.text


def test_one_call_reads_all_accelerators_and_fields_are_tried_once(telemetry: ModuleType) -> None:
    samples = Samples(COREX_4)
    ixsmi = telemetry.Ixsmi(samples)
    for _ in range(3):
        for index in range(2):
            ixsmi.read(index)
    full = [names for names in samples.asked if len(names) > 1]
    assert len(full) == 3
    assert len(samples.asked) - len(full) == sum(map(len, telemetry.FIELDS.values()))


@pytest.mark.parametrize(("visible", "index", "power"), [("1,0", 1, 187), ("GPU-bb, GPU-aa", 1, 187), ("", 0, 187)])
def test_visible_devices_renumber(telemetry: ModuleType, visible: str, index: int, power: float) -> None:
    assert telemetry.Ixsmi(Samples(COREX_4), visible).read(index)["power_w"] == power


@pytest.mark.parametrize("text", ["", "Failed to initialise IXML: driver not loaded\n", "1, 2\n3\n"])
def test_output_that_is_no_table_is_unknown(telemetry: ModuleType, text: str) -> None:
    assert telemetry.Ixsmi(lambda arguments: text).read(0) == dict.fromkeys(TELEMETRY)


@pytest.mark.parametrize(
    ("text", "value"),
    [("187", 187.0), (" 187.25 W", 187.25), ("25531 MiB", 25531.0), ("0", 0.0), ("-3 C", -3.0)]
    + [(unknown, None) for unknown in ("N/A", "[N/A]", "[Not Supported]", "", "Unknown Error", "12 parsecs")],
)
def test_what_is_not_a_number_is_unknown_and_never_zero(telemetry: ModuleType, text: str, value: float | None) -> None:
    assert telemetry.parse_value(text) == value


def test_the_program_is_found_and_gets_its_libraries(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
case "$LD_LIBRARY_PATH" in *corex/lib:*) ;; *) exit 1;; esac
case "$1" in
    --query-gpu=index,uuid,*) echo '0, GPU-aa, 90, 40, 100, 1000, 5';;
    *) echo 1;;
esac
"""
    program(tmp_path / "corex" / "bin" / "ixsmi", script)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    reading = vendor.telemetry(torch.device("cuda", 0))
    assert reading == dict(zip(TELEMETRY, (90, 40, 100, 1000, 5), strict=True))


def test_a_program_that_fails_is_unknown(vendor: Vendor, tmp_path: Path) -> None:
    program(tmp_path / "corex" / "bin" / "ixsmi", "echo 1; exit 3")
    assert vendor.telemetry(torch.device("cuda", 0)) == dict.fromkeys(TELEMETRY)


def test_without_ixsmi_there_is_no_telemetry(vendor: Vendor, caplog: pytest.LogCaptureFixture) -> None:
    assert vendor.telemetry(torch.device("cuda", 0)) == {}
    vendor.telemetry(torch.device("cuda", 1))
    assert caplog.text.count("no ixsmi on PATH") == 1


@pytest.mark.slow
def test_the_readmes_smoke_run_of_a_config_without_its_accelerator(root: Path, tmp_path: Path) -> None:
    """The command as it stands there, with generated images and a narrow network in the places of D and P."""
    readme = (root / "README.md").read_text()
    command = re.search(r"`bash run_training\.sh (--name iluvatar [^`]* --device cpu [^`]*)`", readme)
    assert command, "the README has no such command"
    words = command[1].replace("--data_dir D --backbone_path P/resnet34-333f7ec4.pth", "").split()
    assert "D" not in words
    small = ["--width", "0.125", "--no-pretrained", "--data_backend", "synthetic", "--synthetic_samples", "8"]
    resolved = resolve([*words, *small, "--output", str(tmp_path / "run")], {})
    require_machine(load_vendor("iluvatar"), resolved)
    assert train(resolved) == EXIT_MAX_STEPS
