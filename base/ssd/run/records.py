"""What a run writes while it trains: MLPerf's result log, metrics.jsonl with the telemetry, and the progress line.

Rank 0 writes. On other ranks the same calls are no-ops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from ssd.config import write_resolved
from ssd.config.resolved import read_resolved, without_resume
from ssd.config.resume import CONFIG_FILE
from ssd.errors import MachineError
from ssd.files import sync_folder, write_whole
from ssd.mlperf.events import EventWriter
from ssd.mlperf.system import describe_system
from ssd.run.line import ProgressLine
from ssd.run.progress import Metrics
from ssd.run.rewind import METRICS, RESULT_LOG, rewind, set_aside, synced_size
from ssd.run.start import Start
from ssd.run.telemetry import recorded
from ssd.run.tensorboard import FOLDER, curves

__all__ = ["Records", "open_records"]


@dataclass(frozen=True)
class Records:
    """The open files of a run. events: the result log. metrics: metrics.jsonl. line: the progress line for people."""

    events: EventWriter
    metrics: Metrics
    line: ProgressLine

    def places(self) -> dict[str, int]:
        """Sync each log file and its name to the disk, and return its bytes, by its name. Only rank 0 may call it.

        A run that resumes from a checkpoint of this moment cuts its logs back to these bytes. Raises MachineError where
        a file was removed.
        """
        assert self.events.path is not None
        try:
            sizes = {RESULT_LOG: synced_size(self.events.path), METRICS: self.metrics.synced_size()}
            sync_folder(self.events.path.parent)
            return sizes
        except FileNotFoundError as error:
            raise MachineError(
                f"{error.filename} was removed during the run, which cannot be resumed without it: start anew"
            ) from error


@contextmanager
def open_records(start: Start) -> Iterator[Records]:
    """A context with the run's files, new or continued. A run that raises an error is logged as aborted."""
    config, folder, first = start.config, start.folder, start.ranks.is_rank_0
    if first:
        for part in folder.glob("*.part"):  # what a killed run was writing
            part.unlink()
    if first and start.saved:
        rewind(folder, start.saved.logs)
        kept, path = without_resume(start.resolved), folder / CONFIG_FILE
        if not path.is_file() or read_resolved(path).config != kept.config:
            write_resolved(path, kept)
    elif first:
        set_aside(folder)
        _describe(start)
    drawn = folder / FOLDER if first and config.tensorboard else None
    with (
        curves(drawn, from_step=start.saved.step if start.saved else 0) as draw,
        Metrics(folder / METRICS if first else None, draw) as metrics,
        EventWriter(folder / RESULT_LOG if first else None, append=config.resume) as events,
        ProgressLine(
            start.last_step,
            shown=first,
            target=config.threshold,
            mean_ap=start.saved.evaluations[-1][1] if start.saved and start.saved.evaluations else None,
            timeline=start.timeline,
        ) as line,
        recorded(
            lambda index: start.vendor.telemetry(torch.device(start.device.type, index)),
            config.nproc_per_node,
            partial(metrics.write, "telemetry"),
            config.telemetry_interval if first else 0,
        ),
    ):
        yield Records(events, metrics, line)


def _describe(start: Start) -> None:
    """Write the resolved config and the machine's description."""
    write_resolved(start.folder / CONFIG_FILE, start.resolved)
    system = describe_system(start.vendor.describe_system(), nodes=start.config.nodes)
    write_whole(start.folder / "system.json", json.dumps(system, indent=1) + "\n")
