"""How well `plan --measure` predicts whole runs: a measurement before each run, and the seconds that the run took.

    python bench/plan.py [--seeds 1 2 ...] [--done FILE] [--beside] [--key value ...] [--quick]
    make plan-runs

The config is the CPU's demo unless keys of a run name another. Each run has a seed of its own. The prediction is made
for the epochs that the run needed, from the measurement alone; the load of the machine stands beside it, since other
work changes both. The epochs are held to the interval that `plan` gives for eight of ten runs, made without this run.
--beside measures while the run trains, where other work changes the machine from minute to minute: it disturbs both
alike. --done keeps each finished run in a file, from which the same command goes on.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import ROOT, parser, write_row
from rich.table import Table

from ssd.config import Config, resolve
from ssd.console import console
from ssd.plan.measured import read_measured
from ssd.plan.observed import observed_epochs, span_of
from ssd.plan.predict import predict, run_seconds
from ssd.plan.sources import by_measured, known_rows
from ssd.report.summary import source_commit
from ssd.vendor import load_vendor
from ssd.verbs.measure import measure

NEAR = 0.15
DEMO = ["--name", "cpu", "--config", "demo"]
SMOKE = ["--name", "cpu", "--config", "smoke"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and run in turn, print the table, keep a row. Returns 0."""
    flags = parser(__doc__)
    flags.add_argument("--seeds", type=int, nargs="+", default=range(1, 11), help="of each run (default: 1 to 10)")
    flags.add_argument("--beside", action="store_true", help="measure while the run trains, and not before it")
    flags.add_argument("--done", type=Path, help="file of finished runs, one a line; the same command goes on from it")
    asked, keys = flags.parse_known_args(argv)
    keys = [*(SMOKE if asked.quick else DEMO), *keys]
    config = resolve(keys).config
    seeds = asked.seeds[:1] if asked.quick else asked.seeds
    runs = [run_or_done(keys, seed, asked.done, asked.beside, 1.0 if asked.quick else None) for seed in seeds]
    ratios = [one["predicted_s"] / one["seconds"] for one in runs]
    spans = [epochs_span(config, one["seed"]) for one in runs]
    row = {
        "vendor": config.name,
        "config": config.config,
        "runs": len(runs),
        "measured": "beside each run" if asked.beside else "before each run",
        "near": sum(abs(ratio - 1) <= NEAR for ratio in ratios),
        "median_ratio": round(statistics.median(ratios), 3),
        "epochs_inside": [
            low <= one["epochs"] <= high for one, (low, high) in zip(runs, spans, strict=True) if low is not None
        ].count(True),
        "epochs_spans": spans,
        "each": runs,
    }
    show(runs, ratios)
    write_row("plan", asked, load_vendor(config.name), row)
    return 0


def epochs_span(config: Config, seed: int) -> tuple[float, float] | tuple[None, None]:
    """The epochs of eight of ten runs, by the runs that are kept of this config with other seeds; None without any."""
    others = observed_epochs(config, without=seed)
    low, _, high = span_of(others) if others else (None, None, None)
    return (low, high) if low is not None and high is not None else (None, None)


def run_or_done(
    keys: Sequence[str], seed: int, done: Path | None, beside: bool, seconds: float | None
) -> dict[str, Any]:
    """A finished run as it is kept, or a new one, which is then kept."""
    lines = done.read_text(encoding="utf-8").splitlines() if done and done.is_file() else []
    for line in lines:
        if (kept := json.loads(line))["seed"] == seed:
            return dict(kept)
    found = one_run(keys, seed, beside, seconds)
    if done:
        with done.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    return found


def one_run(keys: Sequence[str], seed: int, beside: bool, seconds: float | None) -> dict[str, Any]:
    """A run to its end, and a measurement before it, or beside it. seconds: of the steps that are measured."""
    load, resolved = os.getloadavg()[0], resolve(keys)
    measured = None if beside else measure(resolved, list(keys), seconds)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "run")
        command = ["bash", str(ROOT / "base" / "run_training.sh"), *keys, "--seed", str(seed), "--output", str(output)]
        environ = os.environ | {"PYTHON": sys.executable}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ) as run:
            measured = measured or measure(resolved, list(keys), seconds)
            run.wait()  # its summary says how it ended
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    source = by_measured([read_measured(measured)], known_rows())
    found = predict(resolved.config, source, resolved.config.world_size)
    epochs = summary["steps"] / found.steps_per_epoch
    predicted = run_seconds(resolved.config, source, resolved.config.world_size, epochs, found.step_ms)
    return {
        "seed": seed,
        "commit": source_commit(),
        "exit_code": summary["exit_code"],
        "epochs": round(epochs, 3),
        "predicted_s": round(predicted, 1),
        "seconds": round(summary["seconds"]["run"], 1),
        "predicted_step_ms": round(found.step_ms, 1),
        "step_ms": round(summary["global_batch"] / summary["images_per_s"] * 1000, 1),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }


def show(runs: Sequence[dict[str, Any]], ratios: Sequence[float]) -> None:
    """The table of runs."""
    table = Table(title="Seconds from run_start to run_stop: predicted from a measurement, and as they were")
    for heading in (
        "seed",
        "epochs",
        "predicted, s",
        "took, s",
        "predicted / took",
        "step: predicted, took, ms",
        "load",
    ):
        table.add_column(heading, justify="right")
    for one, ratio in zip(runs, ratios, strict=True):
        steps = f"{one['predicted_step_ms']:.0f}, {one['step_ms']:.0f}"
        load = f"{one['load'][0]:g} to {one['load'][1]:g}"
        table.add_row(
            *(str(one["seed"]), f"{one['epochs']:g}", f"{one['predicted_s']:.1f}", f"{one['seconds']:.1f}"),
            *(f"{ratio:.2f}", steps, load),
        )
    console().print(table)


if __name__ == "__main__":
    sys.exit(main())
