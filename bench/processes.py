"""N processes that average by gloo, with one thread each, beside one process with N threads: training on N cores.

    python bench/processes.py [--batch 4] [--width 1] [--steps 4] [--rounds 3] [--quick]

All take the optimizer steps of a run on synthetic images, with the same number of images a step on the whole host. The
third call is N processes that average nothing. What the second takes longer than the third is the part of the
averaging that the backward pass does not hide. `ssd.measure.all_reduce` times the averaging with nothing beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from measure import compared, not_here, parser, spread, write_row

from ssd.compute.ranks import Ranks
from ssd.config import resolve
from ssd.measure.all_reduce import all_reduced
from ssd.measure.one_process import open_run
from ssd.measure.steps import Steps
from ssd.measure.together import run_together
from ssd.vendor import load_vendor

TIMEOUT = 1200
THREADS, PROCESSES, APART = "one process", "processes", "processes, nothing averaged"


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--batch", type=int, default=4, help="images a step, on the whole host")
    flags.add_argument("--width", type=float, default=1.0)
    flags.add_argument("--steps", type=int, default=4)
    flags.add_argument("--rounds", type=int, default=3)
    asked = flags.parse_args(argv)
    cores = len(os.sched_getaffinity(0))
    width, steps, rounds = (0.0625, 1, 1) if asked.quick else (asked.width, asked.steps, asked.rounds)
    batch = cores if asked.quick else asked.batch // cores * cores
    what = f"training on {cores} cores, width {width:g}, batch {batch}, fp32"
    row, items = {"cores": cores, "batch": batch, "width": width, "steps": steps, "rounds": rounds}, []
    if cores == 1:
        items.append(not_here(what, "none", "a second core"))
    else:
        seconds: dict[str, list[float]] = {THREADS: [], PROCESSES: [], APART: []}
        for _ in range(rounds):
            seconds[THREADS].append(step_seconds(1, batch, width, steps, grouped=False))
            seconds[PROCESSES].append(step_seconds(cores, batch // cores, width, steps, grouped=True))
            seconds[APART].append(step_seconds(cores, batch // cores, width, steps, grouped=False))
        median = {name: statistics.median(times) for name, times in seconds.items()}
        averaging = all_reduced(keys(cores, batch // cores, width), cores)
        row |= {
            **{f"{name}_step_s".replace(", ", "_").replace(" ", "_"): round(s, 4) for name, s in median.items()},
            "averaging_s": round(averaging, 4),
            "averaging_hidden": hidden(averaging, median, spread(seconds)),
            "spread": spread(seconds),
        }
        items.append(
            compared(
                f"{what}: {cores} processes of one thread, gloo",
                seconds,
                PROCESSES,
                THREADS,
                least=1,
                peer=f"one process of {cores} threads",
                limit="averaging 88 MB of gradients at width 1",
                count=batch,
                unit="images",
            )
        )
    write_row("processes", asked, load_vendor("cpu"), row, items)
    return 0


def hidden(averaging: float, median: Mapping[str, float], apart: float | None) -> float | None:
    """The share of the averaging that costs a step nothing; None where the steps vary by more than the averaging takes.

    averaging: its seconds alone. median: seconds of a step, by call. apart: the spread of these, as a share.
    """
    if apart is None or averaging <= apart * median[PROCESSES]:
        return None
    return round(min(1.0, max(0.0, 1 - (median[PROCESSES] - median[APART]) / averaging)), 3)


def keys(processes: int, batch: int, width: float) -> list[str]:
    """The command line of a run with `batch` images a process."""
    found = ["--config", "smoke", "--num_classes", "81", "--width", str(width), "--train_batch_size", str(batch)]
    found += ["--nproc_per_node", str(processes), "--nhwc", "--optimizer", "torch_fused", "--epochs", "100"]
    return [*found, "--synthetic_samples", str(8 * processes * batch), "--seed", "0", "--log_freq", "1000"]


def step_seconds(processes: int, batch: int, width: float, steps: int, *, grouped: bool) -> float:
    """Seconds of an optimizer step where `processes` processes take steps at once, the slowest of them."""
    words = [str(Path(__file__).resolve()), "--one", str(steps)]
    said = run_together(
        [*words, *keys(processes if grouped else 1, batch, width)], processes, "steps", TIMEOUT, grouped=grouped
    )
    return max(json.loads(output.splitlines()[-1]) for output in said)


def one(steps: int, argv: Sequence[str]) -> int:
    """Be one of the processes: print the seconds of a step, by the clock."""
    resolved = resolve(argv)
    vendor, ranks = load_vendor("cpu"), Ranks.from_environment()
    device = vendor.set_up(resolved.config, ranks.local_rank)
    ranks = ranks.connect(vendor.backend_for(device), device, TIMEOUT)
    with tempfile.TemporaryDirectory(prefix="ssd-bench-") as folder:
        run = open_run(resolved, Path(folder), ranks=ranks)
        with closing(Steps(run)) as taker:
            taker.take(2)
            ranks.barrier()
            begun = time.perf_counter()
            taker.take(steps)
            seconds = (time.perf_counter() - begun) / steps
        ranks.barrier()
    sys.stdout.write(f"{json.dumps(seconds)}\n")
    ranks.close()
    return 0


if __name__ == "__main__":
    sys.exit(one(int(sys.argv[2]), sys.argv[3:]) if sys.argv[1:2] == ["--one"] else main())
