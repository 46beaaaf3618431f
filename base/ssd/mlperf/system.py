"""The system description, systems/NAME.json. It has 33 fields, and each is a string.

A run records what the machine says about itself, in system.json of its folder. A package adds what only the owner of
the machine knows. A field that nobody filled stays "", and the check of the package names it. The official checker
crashes at a number in place of a string. The official summarizer crashes at a count that is no whole number.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ssd.errors import ConfigError

__all__ = ["COUNTS", "FIELDS", "MAY_BE_EMPTY", "describe_system", "field_problems", "missing_fields"]

FIELDS = (
    "submitter",
    "division",
    "status",
    "system_name",
    "number_of_nodes",
    "host_processors_per_node",
    "host_processor_model_name",
    "host_processor_core_count",
    "host_processor_vcpu_count",
    "host_processor_frequency",
    "host_processor_caches",
    "host_processor_interconnect",
    "host_memory_capacity",
    "host_storage_type",
    "host_storage_capacity",
    "host_networking",
    "host_networking_topology",
    "host_memory_configuration",
    "accelerators_per_node",
    "accelerator_model_name",
    "accelerator_host_interconnect",
    "accelerator_frequency",
    "accelerator_on-chip_memories",
    "accelerator_memory_configuration",
    "accelerator_memory_capacity",
    "accelerator_interconnect",
    "accelerator_interconnect_topology",
    "cooling",
    "hw_notes",
    "framework",
    "other_software_stack",
    "operating_system",
    "sw_notes",
)
"""The fields every round's checker wants, in the order of published descriptions."""
COUNTS = ("number_of_nodes", "host_processors_per_node", "host_processor_core_count", "accelerators_per_node")
"""Fields that the official summarizer reads as whole numbers, or that must be one for a reader."""
MAY_BE_EMPTY = ("hw_notes", "sw_notes")
NOT_APPLICABLE = "N/A"

_STACK = ("torchvision", "numpy", "hotcoco", "pycocotools", "simplejpeg", "triton", "mlperf-logging")


def describe_system(
    accelerators: Mapping[str, str],
    *,
    submitter: str = "",
    system_name: str = "",
    division: str = "open",
    nodes: int = 1,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """All fields, filled from this machine. A field that the machine does not tell is "".

    accelerators: what the vendor knows, by the names of the fields. Its other_software_stack is added to ours. A fact
    without a field goes into hw_notes. given: the fields that the owner gives; they replace all others. Raises
    ConfigError for a given field that does not exist.
    """
    given = given or {}
    for field in given:
        if field not in FIELDS:
            raise ConfigError(f"system description: no field {field!r}; fields are {', '.join(FIELDS)}")
    description = dict.fromkeys(FIELDS, "")
    description |= {"submitter": submitter, "system_name": system_name, "division": division, "status": "onprem"}
    description |= (
        {"number_of_nodes": str(nodes)} | _processors() | _memory() | _storage() | _networking() | _software()
    )
    ours = description["other_software_stack"]
    description |= {key: value for key, value in accelerators.items() if value and key in FIELDS}
    others = [f"{key} {value}" for key, value in accelerators.items() if value and key not in FIELDS]
    description["hw_notes"] = ", ".join(filter(None, (description["hw_notes"], *others)))
    if accelerators.get("other_software_stack"):
        description["other_software_stack"] = f"{accelerators['other_software_stack']}, {ours}"
    if description["accelerators_per_node"] == "0":
        for field in FIELDS:
            if field.startswith("accelerator_") and not accelerators.get(field):
                description[field] = NOT_APPLICABLE
    return description | dict(given)


def missing_fields(description: Mapping[str, Any]) -> list[str]:
    """Fields that are absent or empty although the rules ask for them."""
    return [field for field in FIELDS if field not in MAY_BE_EMPTY and description.get(field, "") == ""]


def field_problems(description: Mapping[str, Any]) -> list[str]:
    """What the official tools cannot read, one line a field. Empty fields are found by `missing_fields`."""
    problems = [f"{field} is absent" for field in FIELDS if field not in description]
    for field, value in description.items():
        if not isinstance(value, str):
            problems.append(f"{field} = {json.dumps(value)} is no string: write {json.dumps(str(value))}")
        elif field in COUNTS and value and not (value.isascii() and value.isdigit()):
            problems.append(f"{field} = {value!r} is no whole number")
    if description.get("division") not in ("open", "closed"):
        problems.append(f"division = {description.get('division')!r} is neither open nor closed")
    return problems


def _run(*command: str) -> str:
    """What a command prints, in English. "" where the command does not exist or fails: then the field stays empty."""
    try:
        environment = os.environ | {"LC_ALL": "C"}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=environment).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _processors() -> dict[str, str]:
    said = dict(line.split(":", 1) for line in _run("lscpu").splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in said.items()}
    sockets, cores = facts.get("Socket(s)", ""), facts.get("Core(s) per socket", "")
    caches = [f"{key.removesuffix(' cache')} {value}" for key, value in facts.items() if key.endswith(" cache")]
    megahertz = facts.get("CPU max MHz", "")
    return {
        "host_processors_per_node": sockets,
        "host_processor_model_name": facts.get("Model name", ""),
        "host_processor_core_count": str(int(sockets) * int(cores)) if sockets.isdigit() and cores.isdigit() else "",
        "host_processor_vcpu_count": facts.get("CPU(s)") or str(os.cpu_count() or ""),
        "host_processor_frequency": f"{float(megahertz):.0f} MHz" if megahertz else "",
        "host_processor_caches": ", ".join(caches),
    }


def _memory() -> dict[str, str]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"host_memory_capacity": f"{pages / 2**30:.0f} GiB"}


def _storage() -> dict[str, str]:
    try:
        devices = json.loads(_run("lsblk", "-J", "-b", "-d", "-o", "NAME,SIZE,ROTA,TYPE"))["blockdevices"]
    except (ValueError, KeyError):
        return {}
    disks = [d for d in devices if d["type"] == "disk" and int(d["size"]) > 0 and not d["name"].startswith("zram")]
    if not disks:
        return {}
    total = sum(int(d["size"]) for d in disks)
    kinds = ", ".join(sorted({_disk_kind(d["name"], d["rota"] in (True, "1")) for d in disks}))
    return {"host_storage_type": kinds, "host_storage_capacity": f"{total / 1e9:.0f} GB"}


def _disk_kind(name: str, rotates: bool) -> str:
    if name.startswith(("vd", "xvd")):
        return "virtual disk"  # which always says that it rotates
    return "NVMe SSD" if name.startswith("nvme") else "HDD" if rotates else "SSD"


def _networking() -> dict[str, str]:
    speeds = []
    for interface in sorted(Path("/sys/class/net").glob("*/device")):  # virtual interfaces have no device
        try:
            speed = int((interface.parent / "speed").read_text())
        except (OSError, ValueError):
            continue  # a link that is down says nothing
        if speed > 0:
            speeds.append(f"{interface.parent.name} {speed / 1000:g} Gbit/s")
    return {"host_networking": ", ".join(speeds)}


def _software() -> dict[str, str]:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    stack = [f"{package} {version}" for package in _STACK if (version := _version(package))]
    torch = _version("torch")
    return {
        "operating_system": f"{name}, kernel {platform.release()}",
        "framework": f"PyTorch {torch}" if torch else "",
        "other_software_stack": ", ".join([f"Python {platform.python_version()}", *stack]),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
