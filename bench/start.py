"""How long a user waits: for help, for a config, for `check`, and from a command to the first step of a run.

    python bench/start.py [--rounds 3] [--quick]

Each command is a process of its own. The time is the CPU's, of the process and those that it started: on quiet cores a
start waits for nothing else. The row keeps the seconds on the clock too, and the load of the machine beside them. The
first step is that of `run_training.sh --config smoke`, by the first record of it in metrics.jsonl.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measure import ROOT, bounded, parser, write_row

from ssd.vendor import load_vendor

COMMANDS = {
    "--help": (["--help"], 0.3),
    "config": (["config"], 1.0),
    "vendors": (["vendors"], 1.0),
    "check": (["check", "--config", "smoke"], 5.0),
}
"""The words of each command, and the most seconds that it may take."""
FIRST_STEP = 6.0
OF_TORCH = "importing torch, 1.5 s a process, and its compiler, 1.4 s"
OF_KEYS = "importing pydantic and making its model of the keys"


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=3)
    asked = flags.parse_args(argv)
    rounds = 1 if asked.quick else asked.rounds
    cpu: dict[str, list[float]] = {}
    wall: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="ssd-bench-") as folder:
        environ = {**os.environ, "SSD_CACHE_DIR": folder, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        for turn in range(rounds):
            for name, (words, _) in COMMANDS.items():
                found = command([sys.executable, "-m", "ssd", *words], environ)
                cpu.setdefault(name, []).append(found[0])
                wall.setdefault(name, []).append(found[1])
            found = first_step(Path(folder, f"run{turn}"), environ)
            cpu.setdefault("first step", []).append(found[0])
            wall.setdefault("first step", []).append(found[1])
    median = {name: statistics.median(seconds) for name, seconds in cpu.items()}
    row = {
        "threads": 1,
        "rounds": rounds,
        "cpu_s": {name: round(value, 3) for name, value in median.items()},
        "wall_s": {name: round(statistics.median(seconds), 3) for name, seconds in wall.items()},
    }
    most = {name: bound for name, (_, bound) in COMMANDS.items()} | {"first step": FIRST_STEP}
    items = [
        bounded(
            "from the command to the first step of smoke (CPU)" if name == "first step" else f"ssd {name} (CPU)",
            value,
            "s",
            most=most[name],
            limit=OF_KEYS if name in ("--help", "config", "vendors") else OF_TORCH,
        )
        for name, value in median.items()
    ]
    write_row("start", asked, load_vendor("cpu"), row, items)
    return 0


def command(words: Sequence[str], environ: dict[str, str]) -> tuple[float, float]:
    """Run a command to its end; its seconds of CPU, those of its children included, and its seconds on the clock."""
    begun, before = time.perf_counter(), os.times()
    subprocess.run(words, cwd=ROOT / "base", env=environ, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.perf_counter() - begun


def first_step(output: Path, environ: dict[str, str]) -> tuple[float, float]:
    """Start a run of smoke; the seconds of CPU of its processes up to its first step, and the seconds on the clock."""
    words = ["bash", "run_training.sh", "--config", "smoke", "--output", str(output)]
    metrics, begun = output / "metrics.jsonl", time.perf_counter()
    with subprocess.Popen(
        words, cwd=ROOT / "base", env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while not (metrics.is_file() and '"kind": "train"' in metrics.read_text(encoding="utf-8")):
            if run.poll() is not None:
                raise SystemExit(f"the run ended with exit code {run.returncode} before its first step")
            time.sleep(0.01)
        return used_by(run.pid), time.perf_counter() - begun


def used_by(pid: int) -> float:
    """Seconds of CPU of a process and of those below it, as /proc counts them."""
    ticks, parents = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks[one] for one in family if one in ticks) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
