"""The end of a run in one file (summary.json) and one screen: target reached or not, how fast, and where things are."""

from __future__ import annotations

import io
import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ssd.console import SafeConsole, console, is_quiet
from ssd.errors import EXIT_KILLED, EXIT_MEANING, EXIT_REACHED
from ssd.files import write_whole
from ssd.text import counted

__all__ = ["REPORT", "RunSummary", "show_summary", "source_commit", "write_summary"]

REPORT = "report.html"
"""The page of a run, in its folder."""
SAID = {"lost": "from a checkpoint to the resume"}
"""Kinds of seconds whose names alone say too little to people."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSummary:
    """Everything that people, campaigns and packages ask of a finished run. Times in seconds, since run_start.

    evaluations: (epoch, mAP). images_per_s: training alone, first logging interval left out; None for a shorter run.
    status: MLPerf's word, "success", or "aborted" for every other end. outcome: the same in words that tell ends apart.
    mfu: share 0..1 of the devices' peak arithmetic that this rate is, None where unknown; peak: which, and who says so.
    seconds: by kind of work: run, data, evaluation, checkpoint. backbone_sha256: "" when trained from scratch.
    steps: all that were trained. steps_beyond: those of them after the evaluated weights that reached the target, whose
    score was computed meanwhile (async_eval).
    None in the next four: nobody says. max_memory_allocated_mib: of the device that took the most, warm-up included.
    compile_s: compiling or capturing, before run_start. host_cores: cores that a process kept busy since run_start,
    mean of all processes. launches_per_step: of one more step after run_stop, without communication.
    account: where all time of the process went (ssd.account.books). anomalies: name and words of what is unusual.
    """

    name: str
    config: str
    exit_code: int
    target: float
    seed: int
    steps: int
    global_batch: int
    width: float
    backbone_sha256: str
    resumed: bool
    commit: str
    images_per_s: float | None
    seconds: dict[str, float]
    evaluations: Sequence[tuple[int, float]]
    images_per_s_per_device: float | None = None
    mfu: float | None = None
    peak: str = ""
    steps_beyond: int = 0
    max_memory_allocated_mib: float | None = None
    compile_s: float | None = None
    host_cores: float | None = None
    launches_per_step: float | None = None
    picture: str = ""
    account: Mapping[str, Any] = field(default_factory=dict)
    anomalies: Sequence[Mapping[str, str]] = ()
    status: str = field(init=False)
    outcome: str = field(init=False)
    time_to_target_s: float | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", "success" if self.exit_code == 0 else "aborted")
        object.__setattr__(self, "outcome", _in_words(self.exit_code))
        object.__setattr__(self, "time_to_target_s", self.seconds["run"] if self.exit_code == 0 else None)


def _in_words(exit_code: int) -> str:
    if exit_code == EXIT_REACHED:
        return "reached the target"
    return f"stopped by signal {exit_code - EXIT_KILLED}" if exit_code > EXIT_KILLED else EXIT_MEANING[exit_code]


def write_summary(path: Path, summary: RunSummary) -> None:
    """Write summary.json, whole or not at all."""
    write_whole(path, json.dumps(asdict(summary), indent=1) + "\n")


def show_summary(summary: RunSummary, folder: Path) -> None:
    """Print the summary for people, on standard output, and log it. Whether anybody can read it changes nothing."""
    table = Table(title=f"{summary.name} / {summary.config}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    mlperf = "" if summary.exit_code == EXIT_REACHED else f" (in MLPerf's words: {summary.status})"
    table.add_row("result", f"{summary.outcome}{mlperf}")
    if summary.time_to_target_s is not None:
        table.add_row("time to target", f"{summary.time_to_target_s:.1f} s from run_start to mAP >= {summary.target}")
    else:
        table.add_row("trained for", f"{summary.seconds['run']:.1f} s from run_start; target mAP {summary.target}")
    table.add_row("throughput", _rate(summary))
    beyond = f", {summary.steps_beyond:,} of them beyond the target" if summary.steps_beyond else ""
    table.add_row("steps", f"{summary.steps:,}, {counted(summary.global_batch, 'image')} each{beyond}")
    kinds = sorted((SAID.get(kind, kind), seconds) for kind, seconds in summary.seconds.items() if kind != "run")
    shares = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in kinds)
    table.add_row("of which", shares or "-")
    table.add_row("taken", _taken(summary))
    maps = "  ".join(f"epoch {epoch}: {value:.4f}" for epoch, value in summary.evaluations)
    table.add_row("mAP by evaluation", maps or "not evaluated")
    table.add_row("seed", str(summary.seed))
    for one in summary.anomalies:
        table.add_row("unusual", escape(f"{one['name']}: {one['words']}"))
    text = io.StringIO()
    for out in (SafeConsole(file=text, width=120), *([] if is_quiet() else [console(120)])):
        out.print(table)
        # Below the table and never wrapped, so that they can be copied.
        out.print(f"run's folder:  {folder}", soft_wrap=True)
        if (folder / REPORT).is_file():
            out.print(f"report:        {folder / REPORT}", soft_wrap=True)
        if summary.picture:
            out.print(f"detections:    {folder / summary.picture}", soft_wrap=True)
    log.debug("%s", text.getvalue().rstrip())  # for run.log; the screen has had it


def _rate(summary: RunSummary) -> str:
    """The training rate in words, and the share of the peak where it is known."""
    if summary.images_per_s is None:
        return "too short a run to say"
    rate = f"{summary.images_per_s:.1f} images/s while training, {summary.images_per_s_per_device:.1f} a device"
    return rate if summary.mfu is None else f"{rate}: {summary.mfu:.1%} of {summary.peak}"


def _taken(summary: RunSummary) -> str:
    """What the run took of its machine, in words; "unknown" for what nobody says."""
    said = {
        "device memory {:,.0f} MiB at most": summary.max_memory_allocated_mib,
        "compiling {:.1f} s": summary.compile_s,
        "{:.2f} cores a process": summary.host_cores,
        "{:g} launches a step": summary.launches_per_step,
    }
    return ", ".join(words.format(value) for words, value in said.items() if value is not None) or "unknown"


def source_commit() -> str:
    """The commit of the running code, "+changed" behind it where files differ; "unknown" outside a git checkout."""
    root = Path(__file__).resolve().parents[3]
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+changed", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()
