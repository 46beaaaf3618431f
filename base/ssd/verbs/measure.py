"""`plan --measure`: this machine measured, as a file that `plan` takes in place of published numbers.

Two short runs, started as users start a run, tell the time of a step at two batches: the config's and half of it. Then
this process restores the first run's checkpoint and times an evaluation on one device, by the code of a run.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ssd.config import Config, Resolved, require_run_keys
from ssd.measure.evaluation import evaluation_seconds
from ssd.measure.one_process import alone, open_run
from ssd.measure.short_run import enough_steps, timed_run
from ssd.plan.measured import (
    Measured,
    kept_file,
    machine_of,
    set_up_of,
    step_keys,
    timed_of,
    write_measured,
)
from ssd.report.summary import source_commit
from ssd.text import counted
from ssd.vendor import load_vendor, require_machine
from ssd.verbs.given import require_data
from ssd.verbs.restored import open_checkpoint

__all__ = ["measure"]

log = logging.getLogger(__name__)

SECONDS, SECONDS_ON_CPU = 60, 20
"""How long the steps of one batch are timed, about. A CPU keeps no clock low at first, so it needs less."""
EVALUATING_S = 5
"""Evaluations are repeated until they took so long together. The median counts."""


def measure(resolved: Resolved, argv: list[str], seconds: float | None = None) -> Path:
    """Measure this machine by the config; the file in which that is kept. argv: the keys of the run, as given.

    seconds: how long the steps of one batch are timed, about, and evaluations at most; by default as long as it takes
    to be right. Raises what a run raises that cannot start, and SsdError where a timing run fails.
    """
    config = resolved.config
    require_run_keys(config)
    require_data(config)
    vendor = load_vendor(config.name)
    require_machine(vendor, resolved)
    device = vendor.device_of(config)
    stepping_s = seconds or (SECONDS_ON_CPU if device == "cpu" else SECONDS)
    evaluating_s = min(EVALUATING_S, seconds or EVALUATING_S)
    with TemporaryDirectory(prefix="ssd-measure-") as name:
        folder = Path(name)
        log.info(
            "measuring %s / %s: two runs of about %g s of steps each, then an evaluation", *_named(config), stepping_s
        )
        steps = enough_steps(argv, stepping_s, folder / "probe")
        timed, batches = [], _two_batches(config.train_batch_size)
        for batch in batches:
            at = folder / f"batch-{batch}"
            summary = timed_run([*argv, "--train_batch_size", str(batch)], steps, at)
            timed.append(timed_of(at, summary, config.world_size))
            log.info("batch %d a process: %.1f ms a step, %s", batch, timed[-1].step_ms, counted(steps, "step"))
            if batch == batches[0]:
                whole = float(summary["seconds"]["run"]) - steps * timed[0].step_ms / 1000
                start, before = max(whole, 0.0), set_up_of(summary)
        evaluation, images = _evaluation(resolved, folder / f"batch-{batches[0]}", evaluating_s)
    log.info("one evaluation: %.2f s, and %.2f s that accelerators share", *evaluation)
    found = Measured(
        origin="measured here",
        accelerators=config.world_size,
        nodes=config.nodes,
        timed=tuple(timed),
        images=images,
        start_s=start,
        set_up_s=before,
        evaluation_s=evaluation,
    )
    machine = machine_of(vendor.describe_system())
    path = kept_file(config, machine)
    about = {"date": time.strftime("%Y-%m-%d"), "commit": source_commit(), "config": " / ".join(_named(config))}
    write_measured(path, found, {**about, "machine": machine, "keys": step_keys(config), "steps": steps})
    log.info("kept in %s", path)
    return path


def _named(config: Config) -> tuple[str, str]:
    return config.name, config.config


def _two_batches(batch: int) -> tuple[int, int]:
    """The config's batch a process, and half of it; of a batch of one, the double."""
    return batch, max(batch // 2, 1) if batch > 1 else 2


def _evaluation(resolved: Resolved, folder: Path, seconds: float) -> tuple[tuple[float, float], int]:
    """Seconds of one evaluation on one device, (fixed, shared), and the number of training images.

    folder: of a run whose checkpoint is evaluated. The evaluation is a run's own, with its warm-up before it. It is
    repeated until all took `seconds` together.
    """
    run = open_run(alone(resolved, pretrained=False, cuda_graph=False), folder, open_checkpoint(folder))
    taken = evaluation_seconds(run, seconds)
    fixed, shared = (median(values) for values in zip(*taken, strict=True))
    return (fixed, shared), run.loader.samples
