"""What the benchmarks share: alternating timings, the machine in words, and rows appended to bench/results.

Two things are compared by running them in turn, many times, in one process: what disturbs the machine disturbs both.
The figure is the ratio of the medians. Importing this puts base/ on the path, so that a benchmark runs from any folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "base"))

from ssd.compute.device import Abilities  # noqa: E402
from ssd.mlperf.system import describe_system  # noqa: E402
from ssd.report.summary import source_commit  # noqa: E402
from ssd.vendor import Vendor  # noqa: E402

__all__ = ["ROOT", "alternate", "parser", "spread", "synchronize", "write_row"]

RESULTS = Path(__file__).resolve().parent / "results"
DESCRIBED = (
    *("host_processor_model_name", "host_processor_vcpu_count", "accelerators_per_node", "accelerator_model_name"),
    *("accelerator_memory_capacity", "hw_notes", "framework", "other_software_stack"),
)
"""What a row says of the machine, by the names of MLPerf's system description. No names of hosts, no paths."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quick", action="store_true", help="seconds, to see that it works; not to be quoted")
    flags.add_argument("--output", type=Path, help="file the row is appended to (default: in bench/results)")
    return flags


def alternate(calls: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, run in turn `rounds` times after some turns that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-warm_up, rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(seconds: Mapping[str, Sequence[float]]) -> float | None:
    """How far apart the quartiles of the least steady call are, as a share of its median; None for a single round.

    Differences below it are not resolved.
    """
    quartiles = [statistics.quantiles(times, n=4) for times in seconds.values() if len(times) > 1]
    return max((round((high - low) / middle, 3) for low, middle, high in quartiles), default=None)


def synchronize(device: torch.device) -> None:
    """Wait for the device; nothing to wait for on the CPU."""
    Abilities(device).synchronize()


def write_row(benchmark: str, asked: argparse.Namespace, vendor: Vendor, row: Mapping[str, Any]) -> None:
    """Append one line of JSON to the results, with date, commit and machine; show it on standard output."""
    system = describe_system(vendor.describe_system())
    whole = {
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%d"),
        "commit": source_commit(),
        "quick": asked.quick,
        **row,
        "torch_threads": torch.get_num_threads(),
        **{field: system[field] for field in DESCRIBED if system[field]},
    }
    path = asked.output or RESULTS / f"{benchmark}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(whole) + "\n")
    print(json.dumps(row, indent=1))
