"""What the benchmarks share: the rows of `make bench` with their goals, the machine in words, and kept rows.

Two things are compared by running them in turn (ssd.measure). A row says what was measured, beside what, and whether
the goal is met. Importing this puts base/ on the path, so that a benchmark runs from any folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "base"))

from ssd.compute.device import Abilities  # noqa: E402
from ssd.measure import Ratio, alternate, ratio_of, spread  # noqa: E402
from ssd.mlperf.system import describe_system  # noqa: E402
from ssd.report.summary import source_commit  # noqa: E402
from ssd.vendor import Vendor  # noqa: E402

__all__ = ["ROOT", "Item", "alternate", "bounded", "compared", "held_mb", "not_here", "parser", "peak_anew", "spread"]
__all__ += ["synchronize", "write_row"]

RESULTS = Path(__file__).resolve().parent / "results"
DESCRIBED = (
    *("host_processor_model_name", "host_processor_vcpu_count", "accelerators_per_node", "accelerator_model_name"),
    *("accelerator_memory_capacity", "hw_notes", "framework", "other_software_stack"),
)
"""What a row says of the machine, by the names of MLPerf's system description. No names of hosts, no paths."""
MET, MISSED, ABSENT = "met", "missed", "n/a"


@dataclass(frozen=True)
class Item:
    """One row of the table of `make bench`.

    name: what is measured. ours, theirs: as text with their units; "" where there is none. peer: what it is compared
    with, with its version. goal: in words. status: MET, MISSED or ABSENT. reason: what limits it, or what this machine
    lacks. ratio: how many times better ours is.
    """

    name: str
    ours: str
    peer: str
    theirs: str
    ratio: Ratio | None
    goal: str
    status: str
    reason: str = ""


def compared(
    name: str,
    seconds: Mapping[str, Sequence[float]],
    ours: str,
    theirs: str,
    *,
    least: float,
    peer: str,
    limit: str,
    count: float = 1,
    unit: str = "s",
) -> Item:
    """A row of two calls that were timed in turn. seconds: those of each turn, by call; ours, theirs: names of calls.

    least: the goal, how many times faster than the peer. limit: what limits ours now. count: what a call does, in
    `unit`, such as images; with the unit "s" the seconds themselves are shown.
    """
    ratio = ratio_of(seconds[theirs], seconds[ours])

    def shown(call: str) -> str:
        median = statistics.median(seconds[call])
        return f"{median:.3g} s" if unit == "s" else f"{count / median:.4g} {unit}/s"

    met = ratio.value >= least
    return Item(
        name, shown(ours), peer, shown(theirs), ratio, f"{least:g} x", MET if met else MISSED, "" if met else limit
    )


def bounded(name: str, value: float, unit: str, *, most: float, limit: str, peer: str = "", theirs: str = "") -> Item:
    """A row whose goal is a bound: `value` is to be at most `most`, both in `unit`."""
    met = value <= most
    status, reason = (MET, "") if met else (MISSED, limit)
    return Item(name, f"{value:.3g} {unit}", peer, theirs, None, f"at most {most:g} {unit}", status, reason)


def not_here(name: str, goal: str, lacks: str, peer: str = "") -> Item:
    """A row that cannot be measured on this machine, which lacks something."""
    return Item(name, "", peer, "", None, goal, ABSENT, f"this machine lacks {lacks}")


def held_mb(what: str) -> float:
    """The memory of this process in MB as Linux counts it: "VmRSS", what it holds now, or "VmHWM", the most it held."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024 / 1e6


def peak_anew() -> None:
    """From now on "VmHWM" counts from what this process holds now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quick", action="store_true", help="seconds, to see that it works; not to be quoted")
    flags.add_argument("--output", type=Path, help="file the row is appended to (default: in bench/results)")
    return flags


def synchronize(device: torch.device) -> None:
    """Wait for the device; nothing to wait for on the CPU."""
    Abilities(device).synchronize()


def write_row(
    benchmark: str, asked: argparse.Namespace, vendor: Vendor, row: Mapping[str, Any], items: Sequence[Item] = ()
) -> None:
    """Append one line of JSON to the results, with date, commit and machine; show it on standard output.

    items: the rows of the table of `make bench` that were measured with it.
    """
    system = describe_system(vendor.describe_system())
    whole = {
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%d"),
        "commit": source_commit(),
        "quick": asked.quick,
        **row,
        **({"items": [asdict(item) for item in items]} if items else {}),
        "torch_threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        **{field: system[field] for field in DESCRIBED if system[field]},
    }
    path = asked.output or RESULTS / f"{benchmark}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(whole) + "\n")
    print(json.dumps(row, indent=1))
