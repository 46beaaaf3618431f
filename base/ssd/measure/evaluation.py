"""The time of an evaluation on one device, by the code of a run: for `plan --measure` and `bench`."""

from __future__ import annotations

from ssd.account.parts import evaluation_parts
from ssd.account.timeline import Timeline
from ssd.run.evaluation import detect_all, evaluate
from ssd.run.live import Run

__all__ = ["evaluation_seconds"]

FIXED = ("eval_metric", "eval_gather")
"""Parts of an evaluation that more accelerators do not make shorter."""


def evaluation_seconds(run: Run, seconds: float) -> list[tuple[float, float]]:
    """(fixed, shared) seconds of each evaluation of a run of one process, repeated until they took `seconds` together.

    fixed: what takes as long on any number of accelerators. shared: the rest, which they share. There is one at least.
    """
    taken: list[tuple[float, float]] = []
    while not taken or sum(map(sum, taken)) < seconds:
        timeline = Timeline()
        before = timeline.totals()
        batches, captured = run.source.loader, run.work.detect
        rows = detect_all(run.model, batches, run.ops, run.defaults, run.abilities, run.config, timeline, captured)
        evaluate(run.source, rows, run.ranks, run.config.coco_metric, timeline)
        spent = timeline.since(before)
        fixed = sum(spent.get(part, 0.0) for part in FIXED)
        taken.append((fixed, sum(spent.get(part, 0.0) for part in evaluation_parts()) - fixed))
    return taken
