"""What a run's records, or a result log's events, say of its course, in one form: what the account and anomalies read.

A run's own metrics.jsonl says everything; anybody's result log says when epochs and evaluations began and ended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Epoch", "Evaluation", "Facts", "facts_of", "last_process", "read_metrics"]


@dataclass(frozen=True)
class Epoch:
    """A whole epoch. seconds: of training. data_wait: of them, waiting for batches; None where nobody says.

    ranks: what each rank said of it (ssd.run.sampling). skipped_steps, skipped_images: so far.
    """

    number: int
    seconds: float
    steps: int = 1
    data_wait: float | None = None
    ranks: Sequence[Mapping[str, Any]] = ()
    skipped_steps: int = 0
    skipped_images: int = 0


@dataclass(frozen=True)
class Evaluation:
    """An evaluation after an epoch. parts: seconds by part, where they are known."""

    epoch: int
    seconds: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """The course of a run. rates: (step, images/s) of each logging interval; losses: (step, loss).

    checkpoints: (seconds, bytes). telemetry: readings, a list of values by device under each name. last_step: optimizer
    steps done.
    """

    epochs: Sequence[Epoch] = ()
    evaluations: Sequence[Evaluation] = ()
    checkpoints: Sequence[tuple[float, int]] = ()
    rates: Sequence[tuple[int, float]] = ()
    losses: Sequence[tuple[int, float]] = ()
    telemetry: Sequence[Mapping[str, Sequence[float | None]]] = ()
    last_step: int = 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl. A line that a kill cut off is left out, and one that lacks its numbers.

    An absent file has none.
    """
    records = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("kind"), str) and _is_whole(record):
            records.append(record)
    return records


NEEDED = {
    "train": ("time", "step", "epoch", "loss"),
    "epoch": ("time", "step", "epoch"),
    "evaluation": ("time", "epoch"),
    "checkpoint": ("time", "seconds", "bytes"),
    "account": ("wall_s",),
    "resumed": ("time", "step"),
}
"""Numbers that a record of a kind must have. Other kinds need the time alone."""


def _is_whole(record: Mapping[str, Any]) -> bool:
    values = [record.get(name) for name in NEEDED.get(record["kind"], ("time",))]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def last_process(records: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The records since the run was last resumed; all of a run that never was."""
    resumed = [place for place, record in enumerate(records) if record["kind"] == "resumed"]
    return records[resumed[-1] :] if resumed else records


def facts_of(records: Iterable[Mapping[str, Any]]) -> Facts:
    """The facts that records of a metrics.jsonl state of the run's last process."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for record in last_process(list(records)):
        kinds.setdefault(record["kind"], []).append(record)
    train = kinds.get("train", [])
    begun = kinds.get("resumed", [{"step": 0}])[-1].get("step", 0)
    return Facts(
        epochs=_epochs(kinds.get("epoch", []), begun),
        evaluations=[
            Evaluation(one["epoch"], sum(one["seconds"].values()), one["seconds"])
            for one in kinds.get("evaluation", [])
            if one.get("seconds")
        ],
        checkpoints=[(one["seconds"], one["bytes"]) for one in kinds.get("checkpoint", [])],
        rates=[(one["step"], one["images_per_s"]) for one in train if one.get("images_per_s")],
        losses=[(one["step"], one["loss"]) for one in train],
        telemetry=kinds.get("telemetry", []),
        last_step=train[-1]["step"] if train else 0,
    )


def _epochs(records: Iterable[Mapping[str, Any]], begun: int) -> list[Epoch]:
    found, before = [], begun
    for record in records:
        ranks = record.get("ranks") or []
        if ranks:
            first = ranks[0]
            epoch = Epoch(
                record["epoch"],
                first["data_wait"] + first["step"],
                max(record["step"] - before, 1),
                first["data_wait"],
                ranks,
                record.get("skipped_steps", 0),
                record.get("skipped_images", 0),
            )
            found.append(epoch)
        before = record["step"]
    return found
