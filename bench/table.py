"""`make bench`: every benchmark in turn, and one table of what was measured, beside what, and whether the goal is met.

    python bench/table.py [--data_dir D] [--only NAME ...] [--quick] [--output FILE]

A row's status is met, missed with what limits it, or n/a with what this machine lacks. The last line counts them. The
exit code is 0 whatever was met; 1 where a benchmark could not be run. Each benchmark appends its row to bench/results.
docs/performance.md explains the rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import ABSENT, MET, MISSED, RESULTS, parser
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

BENCHMARKS: tuple[str, ...] = ("start", "annotations", "images", "loader", "loader_python", "data_wait")
BENCHMARKS += ("cpu_train", "processes", "detect", "metric")
NEED_IMAGES = ("images", "loader")
"""Benchmarks that read the images of a COCO folder."""
HERE = Path(__file__).resolve().parent
HEADINGS = ("what", "ours", "peer", "peer's", "ratio (quartiles)", "goal", "status")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print the table."""
    flags = parser(__doc__)
    flags.add_argument("--data_dir", type=Path, help="COCO folder, whose training images are read")
    flags.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="these benchmarks alone")
    asked = flags.parse_args(argv)
    rows, failed = [], []
    for name in asked.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        row = run(name, asked.data_dir, asked.quick, asked.output)
        if isinstance(row, str):
            failed.append(f"{name}: {row}")
        else:
            rows.append(row)
    show([item for row in rows for item in row.get("items", [])], rows)
    for line in failed:
        print(f"not run: {line}")
    counts = Counter(item["status"] for row in rows for item in row.get("items", []))
    print(f"goals: {counts[MET]} met, {counts[MISSED]} missed, {counts[ABSENT]} n/a")
    return int(bool(failed))


def run(name: str, data_dir: Path | None, quick: bool, output: Path | None) -> dict[str, Any] | str:
    """The row of one benchmark, which is appended to its results; or what it said where it failed."""
    if name == "loader" and data_dir is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="ssd-bench-") as folder:
        file = Path(folder, "row.jsonl")
        command = [sys.executable, str(HERE / f"{name}.py"), "--output", str(file)]
        command += ["--quick"] if quick else []
        command += ["--data_dir", str(data_dir.resolve())] if data_dir and name in NEED_IMAGES else []
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if done.returncode or not file.is_file():
            return f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"
        text = file.read_text(encoding="utf-8")
    target = output or (None if quick else RESULTS / f"{name}.jsonl")
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8") as kept:
            kept.write(text)
    return json.loads(text)


def show(items: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> None:
    """Print the machine and the table."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    machine = next((row for row in rows if row), {})
    cpu, cores = (machine.get(f"host_processor_{key}", "unknown") for key in ("model_name", "vcpu_count"))
    words = f"CPU {cpu}, {cores} cores, load {' to '.join(loads(rows))}; {machine.get('framework', '')}"
    console.print(escape(words), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for item in items:
        ratio = item["ratio"]
        words = f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
        status = f"{item['status']} ({item['reason']})" if item["reason"] else item["status"]
        cells = (item["name"], item["ours"], item["peer"], item["theirs"], words, item["goal"], status)
        table.add_row(*map(escape, cells))
    console.print(table)


def loads(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The least and the largest load of the machine at the end of a benchmark."""
    found = [row["load"] for row in rows if "load" in row]
    return [f"{one:g}" for one in sorted({min(found), max(found)})] if found else ["unknown"]


if __name__ == "__main__":
    sys.exit(main())
