"""The first day with a card: correctness, speed, and whole runs, each part within nine minutes, each useful alone.

    python bench/gpu_day.py --output OUT [--parts 1 2 3] [--data FOLDER] [--device cpu]      # or: make gpu-day OUT=DIR

Every trial is a command that a user can give. A trial ends as ok, FAILED (with the last lines it printed) or not run
(with the reason); nothing is skipped in silence. OUT gets gpu-day.jsonl, one row a trial, and gpu-day.md, a page made
from the rows. `--device cpu` tries the script itself in small sizes: its rows say so and never count as measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_trials import PARTS, Day, NotHere, TrialFailed
from measure import DESCRIBED

from ssd.mlperf.system import describe_system
from ssd.report.summary import source_commit
from ssd.vendor import load_vendor

PART_SECONDS = 540
"""Nine minutes: a lent machine may allow no more than ten a command."""


@dataclass
class Trial:
    """One trial and how it went. status: ok, FAILED, not run. figures: what it measured."""

    part: int
    name: str
    status: str = "not run"
    seconds: float = 0.0
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for, write rows and page; 0 where every trial that ran is ok, else 1."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--output", type=Path, required=True, help="folder for rows, page and the runs' folders")
    flags.add_argument("--parts", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3])
    flags.add_argument("--data", type=Path, help="COCO folder of part 3; without it images are drawn")
    flags.add_argument("--name", default="nvidia", help="vendor")
    flags.add_argument("--config", default="H100x1x1", help="its config of one device")
    flags.add_argument("--device", choices=("cpu",), help="try the script on the CPU, in small sizes")
    asked = flags.parse_args(argv)
    small = asked.device == "cpu"
    name, config = ("cpu", "smoke") if small else (asked.name, asked.config)
    asked.output.mkdir(parents=True, exist_ok=True)
    day = Day(name, config, asked.output.resolve(), asked.data.resolve() if asked.data else None, small)
    trials = [trial for part in asked.parts for trial in run_part(part, day)]
    write_rows(day, trials)
    print(page(day, trials))
    return 0 if all(trial.status != "FAILED" for trial in trials) else 1


def run_part(part: int, day: Day) -> list[Trial]:
    """Every trial of a part, in turn; those that its time does not reach are listed as not run."""
    began = time.monotonic()
    trials = []
    for name, work in PARTS[part](day):
        trial = Trial(part, name)
        left = PART_SECONDS - (time.monotonic() - began)
        if left < 10:
            trial.why = "the part's nine minutes were over"
        else:
            start = time.monotonic()
            try:
                trial.figures, trial.status = work(left), "ok"
            except (TrialFailed, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
                trial.status, trial.why = "FAILED", f"{type(error).__name__}: {error}"[-2000:]
            except NotHere as error:
                trial.why = str(error)
            trial.seconds = round(time.monotonic() - start, 1)
        trials.append(trial)
        print(f"part {part}: {trial.status:8} {trial.seconds:7.1f} s  {name}  {trial.why[:200]}", flush=True)
    return trials


def machine(day: Day) -> dict[str, str]:
    """What the rows say of the machine, by the names of MLPerf's system description."""
    described = describe_system(load_vendor(day.name).describe_system())
    return {key: described[key] for key in DESCRIBED if described[key]}


def write_rows(day: Day, trials: Sequence[Trial]) -> None:
    """One JSON row a trial, appended; and the page. emulated: the script alone was tried, nothing was measured."""
    about = {
        "benchmark": "gpu-day",
        "date": time.strftime("%Y-%m-%d"),
        "commit": source_commit(),
        "emulated": day.small,
    }
    about |= {"torch": torch.__version__, **machine(day)}
    with (day.out / "gpu-day.jsonl").open("a", encoding="utf-8") as file:
        for trial in trials:
            file.write(json.dumps({**about, **asdict(trial)}) + "\n")
    (day.out / "gpu-day.md").write_text(page(day, trials), encoding="utf-8")


def page(day: Day, trials: Sequence[Trial]) -> str:
    """The trials as a Markdown page."""
    where = ", ".join(f"{key} {value}" for key, value in machine(day).items())
    said = "**A trial of the script on a CPU: nothing here was measured on a card.**\n\n" if day.small else ""
    rows = [
        f"| {trial.part} | {trial.name} | {trial.status} | {trial.seconds:.1f} | "
        f"{(trial.why or _figures(trial)).replace(chr(10), ' ').replace('|', '/')[:300]} |"
        for trial in trials
    ]
    counts = {status: sum(trial.status == status for trial in trials) for status in ("ok", "FAILED", "not run")}
    total = ", ".join(f"{count} {status}" for status, count in counts.items())
    head = f"# GPU day\n\n{said}{time.strftime('%Y-%m-%d')}, commit {source_commit()}, {where}. {total}.\n\n"
    return (
        head + "| part | trial | status | seconds | figures, or why |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _figures(trial: Trial) -> str:
    return ", ".join(f"{key} {value}" for key, value in trial.figures.items() if key not in ("said", "losses"))


if __name__ == "__main__":
    sys.exit(main())
