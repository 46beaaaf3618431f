"""The system description: 33 strings, filled from the machine, what is missing named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd.errors import ConfigError
from ssd.mlperf import system
from ssd.mlperf.system import FIELDS, _disk_kind, describe_system, field_problems, missing_fields

NONE = {"accelerators_per_node": "0", "accelerator_model_name": "none"}


def test_every_field_is_there_and_a_string() -> None:
    description = describe_system(NONE, submitter="Org", system_name="box")
    assert tuple(description) == FIELDS
    assert all(isinstance(value, str) for value in description.values())
    assert field_problems(description) == []


def test_the_machine_and_its_software_are_filled_in() -> None:
    description = describe_system(NONE)
    for field in ("host_memory_capacity", "operating_system", "framework", "other_software_stack"):
        assert description[field]
    assert description["framework"].startswith("PyTorch ")
    assert "Python 3." in description["other_software_stack"]
    assert int(description["host_processor_vcpu_count"]) >= 1


def test_without_accelerators_their_fields_do_not_apply() -> None:
    description = describe_system(NONE)
    assert description["accelerator_memory_capacity"] == "N/A"
    assert description["accelerator_model_name"] == "none"
    assert not [field for field in missing_fields(description) if field.startswith("accelerator")]


def test_the_vendors_words_are_taken_and_none_is_lost() -> None:
    vendor = {
        "accelerators_per_node": "8",
        "accelerator_model_name": "X1",
        "other_software_stack": "SDK 4",
        "driver": "1.2",
    }
    description = describe_system(vendor)
    assert description["accelerator_model_name"] == "X1"
    assert description["other_software_stack"].startswith("SDK 4, Python")
    assert "driver 1.2" in description["hw_notes"]
    assert "accelerator_interconnect" in missing_fields(description)


def test_the_owners_words_win_and_an_unknown_field_is_an_error() -> None:
    assert describe_system(NONE, given={"cooling": "water"})["cooling"] == "water"
    with pytest.raises(ConfigError, match="colling"):
        describe_system(NONE, given={"colling": "water"})


def test_missing_fields_are_named_and_notes_may_stay_empty() -> None:
    assert missing_fields({}) == [field for field in FIELDS if field not in ("hw_notes", "sw_notes")]
    assert missing_fields(dict.fromkeys(FIELDS, "x")) == []


def test_a_machine_without_lscpu_leaves_fields_empty_and_does_not_fail(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    description = describe_system(NONE)
    assert description["host_processor_model_name"] == ""
    assert "host_processor_model_name" in missing_fields(description)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("number_of_nodes", 1, 'write "1"'),
        ("host_memory_capacity", None, "no string"),
        ("accelerators_per_node", "8x", "no whole number"),
        ("accelerators_per_node", "-1", "no whole number"),
        ("division", "Closed", "neither open nor closed"),
    ],
)
def test_what_the_official_tools_would_stumble_over(field: str, value: object, words: str) -> None:
    description = describe_system(NONE) | {field: value}
    (problem,) = field_problems(description)
    assert problem.startswith(field)
    assert words in problem


@pytest.mark.parametrize(
    ("name", "rotates", "kind"),
    [("nvme0n1", False, "NVMe SSD"), ("sda", True, "HDD"), ("sdb", False, "SSD"), ("vda", True, "virtual disk")],
)
def test_a_disk_is_called_what_it_is(name: str, rotates: bool, kind: str) -> None:
    assert _disk_kind(name, rotates) == kind


LSCPU = """\
CPU(s):                128
Model name:            A CPU: the second
Socket(s):             2
Core(s) per socket:    32
CPU max MHz:           3400.5
L1d cache:             2 MiB (64 instances)
L3 cache:              512 MiB (32 instances)
"""


def test_what_lscpu_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_run", lambda *command: LSCPU if command == ("lscpu",) else "")
    description = describe_system(NONE)
    assert description["host_processors_per_node"] == "2"
    assert description["host_processor_core_count"] == "64"
    assert description["host_processor_vcpu_count"] == "128"
    assert description["host_processor_model_name"] == "A CPU: the second"
    assert description["host_processor_frequency"] == "3400 MHz"
    assert description["host_processor_caches"] == "L1d 2 MiB (64 instances), L3 512 MiB (32 instances)"


def disk(name: str, size: int, rotates: object, kind: str = "disk") -> dict[str, object]:
    return {"name": name, "size": size, "rota": rotates, "type": kind}


@pytest.mark.parametrize(
    ("devices", "kinds", "capacity"),
    [
        ([disk("nvme0n1", 3_840_000_000_000, False), disk("sda", 960_000_000_000, "1")], "HDD, NVMe SSD", "4800 GB"),
        ([disk("nvme0n1", 1_500_000_000, False), disk("nvme1n1", 1, "0")], "NVMe SSD", "2 GB"),
        ([disk("zram0", 10**9, False), disk("sr0", 10**9, True, "rom"), disk("sdb", 0, False)], "", ""),
    ],
)
def test_what_lsblk_says(monkeypatch: pytest.MonkeyPatch, devices: list, kinds: str, capacity: str) -> None:
    """Memory, CD drives and empty card readers are no storage; a kind is named once."""
    monkeypatch.setattr(system, "_run", lambda *command: json.dumps({"blockdevices": devices}))
    description = describe_system(NONE)
    assert (description["host_storage_type"], description["host_storage_capacity"]) == (kinds, capacity)


def test_the_links_that_are_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A link that is down has the speed -1 or none at all; one without a device is no card."""
    for name, speed in (("eth0", "25000"), ("eth1", "-1"), ("eth2", None), ("eth3", "2500"), ("lo", "1")):
        (tmp_path / name).mkdir()
        if name != "lo":
            (tmp_path / name / "device").mkdir()
        if speed is not None:
            (tmp_path / name / "speed").write_text(f"{speed}\n")
    monkeypatch.setattr(system, "Path", lambda name: {"/sys/class/net": tmp_path}[name])
    assert describe_system(NONE)["host_networking"] == "eth0 25 Gbit/s, eth3 2.5 Gbit/s"
