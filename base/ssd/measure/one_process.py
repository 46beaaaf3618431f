"""A run of one process, built as a run is, that keeps nothing: `profile`, `plan --measure` and `bench` time it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ssd.account.timeline import Timeline
from ssd.compute.ranks import Ranks
from ssd.config import Resolved
from ssd.mlperf.events import EventWriter
from ssd.run.checkpoint import Checkpoint
from ssd.run.line import ProgressLine
from ssd.run.live import Run
from ssd.run.progress import Metrics
from ssd.run.records import Records
from ssd.run.setup import set_up
from ssd.run.start import start_run
from ssd.vendor import load_vendor

__all__ = ["alone", "open_run"]

ALONE = {"nproc_per_node": 1, "nodes": 1, "bn_group": 1, "resume": False, "restart": "no", "resume_from": "newest"}


def alone(resolved: Resolved, **changed: Any) -> Resolved:
    """The same run on one process, with these keys changed besides."""
    return replace(resolved, config=resolved.config.model_copy(update={**ALONE, **changed}))


def open_run(resolved: Resolved, folder: Path, saved: Checkpoint | None = None, ranks: Ranks | None = None) -> Run:
    """A run that is ready to train. Its records go nowhere.

    folder: the run's, in which nothing is written. saved: a checkpoint whose weights it starts from. ranks: those of
    the keys' processes, connected. None: one process, for keys that `alone` gave. Raises what a run raises that cannot
    start.
    """
    config, ranks = resolved.config, ranks or Ranks()
    vendor = load_vendor(config.name)
    device = vendor.set_up(config, ranks.local_rank)
    start = start_run(resolved, vendor, device, ranks, folder, None, Timeline())
    silent = Records(EventWriter(None), Metrics(None), ProgressLine(start.last_step, shown=False))
    return set_up(replace(start, saved=saved), silent)
