"""The outcome of a run: its exit code, its summary for people and programs, and a picture of its last detections."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssd.account.anomalies import find_anomalies
from ssd.account.books import make_account
from ssd.account.facts import facts_of, read_metrics
from ssd.errors import EXIT_KILLED, EXIT_MAX_STEPS, EXIT_NOT_CONVERGED, EXIT_REACHED
from ssd.report.mfu import share_of_peak
from ssd.report.page import REPORT, write_report
from ssd.report.picture import Box, contact_sheet, detected, draw_boxes, truth
from ssd.report.story import DETAILS, METRICS, story_of_run, write_trace
from ssd.report.summary import RunSummary, show_summary, source_commit, write_summary
from ssd.run.analysis import write_analysis
from ssd.run.live import Run
from ssd.run.sources import EvalSource
from ssd.run.start import SUMMARY

__all__ = ["exit_code", "report_outcome", "write_run_summary"]

log = logging.getLogger(__name__)

PICTURE, PICTURED, PICTURED_SCORE = "detections.jpg", 8, 0.3


def exit_code(run: Run) -> int:
    """The exit code of a run that trained to its end, or was stopped by a signal (ssd.errors)."""
    if run.position.reached(run.config.threshold):
        return EXIT_REACHED
    if run.stops.number:
        return EXIT_KILLED + run.stops.number
    whole = run.position.step == run.config.epochs * run.loader.steps_per_epoch
    return EXIT_NOT_CONVERGED if whole else EXIT_MAX_STEPS


def report_outcome(run: Run, code: int, rows: np.ndarray | None, used: Mapping[str, Any]) -> None:
    """Write and show the summary, on rank 0. rows: (n, 7) float64, the detections of the last evaluation, or None.

    used: what ssd.run.usage says. The run has ended. So an error here is logged and not raised, and the exit code stays
    that of the outcome.
    """
    if not run.ranks.is_rank_0:
        return
    with _said("summary"):
        summary = _summary(run, code, used)  # the run's time ends here
        write_summary(run.folder / SUMMARY, summary)
        if rows is not None:
            with _said("picture of its detections"):
                summary = replace(summary, picture=_draw(run.folder / PICTURE, run.source, rows))
            with _said("analysis of its last evaluation"):
                write_analysis(run.folder / DETAILS, run.source, rows)
        summary = _explain(run, summary)
        show_summary(summary, run.folder)


def write_run_summary(run: Run, code: int, used: Mapping[str, Any]) -> None:
    """Write the summary of a run that has failed, on rank 0. An error here is logged and not raised.

    used: what ssd.run.usage says.
    """
    if run.ranks.is_rank_0:
        with _said("summary"):
            summary = _summary(run, code, used)
            write_summary(run.folder / SUMMARY, summary)
            _explain(run, summary)


def _explain(run: Run, summary: RunSummary) -> RunSummary:
    """Write the summary with the account of the run's time and what is unusual in it, and the report and trace of all.

    The summary as it was written; what fails is said.
    """
    with _said("account"):
        records = read_metrics(run.folder / METRICS)
        timeline = run.clock.timeline
        found = [asdict(one) for one in find_anomalies(facts_of(records))]
        totals = timeline.totals()
        summary = replace(summary, account=make_account(totals, timeline.wall(), records), anomalies=found)
        write_summary(run.folder / SUMMARY, summary)
    with _said("report"):
        write_trace(run.folder)
        write_report(story_of_run(run.folder), run.folder / REPORT)
    return summary


@contextmanager
def _said(what: str) -> Iterator[None]:
    """A context that logs an error and does not raise it. A defect of ours is logged with its traceback."""
    try:
        yield
    except Exception as error:  # of any class: the outcome is in the result log already, so nothing may change it
        text = "the run has ended, but its %s is not whole: %s: %s"
        log.warning(text, what, type(error).__name__, error, exc_info=not isinstance(error, OSError))


def _summary(run: Run, code: int, used: Mapping[str, Any]) -> RunSummary:
    config, world_size = run.config, run.ranks.world_size
    rate = run.clock.images_per_second()
    arithmetic = "fp16" if config.amp == "apex_o2" else config.precision
    device = run.abilities.name
    share, peak = share_of_peak(run.vendor.peaks(), device, arithmetic, rate / world_size, config.width)
    return RunSummary(
        name=config.name,
        config=config.config,
        exit_code=code,
        target=config.threshold,
        seed=run.seed,
        steps=run.position.step,
        global_batch=config.global_batch,
        width=config.width,
        backbone_sha256=run.backbone_sha256,
        resumed=config.resume,
        commit=source_commit(),
        images_per_s=round(rate, 3) if rate else None,
        images_per_s_per_device=round(rate / world_size, 3) if rate else None,
        mfu=share,
        peak=peak,
        seconds={kind: round(seconds, 3) for kind, seconds in run.clock.totals().items()},
        evaluations=run.position.evaluations,
        **used,
    )


def _draw(path: Path, source: EvalSource, rows: np.ndarray) -> str:
    """Draw the first evaluated images twice: with annotated boxes, and with detections (n, 7). Returns the name."""
    batch = next(iter(source.loader))
    names = dict(enumerate(source.index.category_names, 1))
    tiles = []
    images = list(zip(batch.images, batch.rows, batch.sizes.tolist(), strict=True))
    for image, row, (width, height) in images[:PICTURED]:
        span = slice(*source.index.offsets[row : row + 2])
        labelled = zip(source.index.bboxes[span].tolist(), source.index.labels[span].tolist(), strict=True)
        known = truth({"bbox": box, "name": names[label]} for box, label in labelled)
        found = detected(rows[rows[:, 0] == row], names, PICTURED_SCORE)
        pixels = Image.fromarray(image.numpy())
        scale = (pixels.width / width, pixels.height / height)
        for boxes, said in ((known, "annotated"), (found, "detected")):
            caption = Box((0, height - 14 / scale[1], width, height), said)
            tiles.append(draw_boxes(pixels, [*boxes, caption], scale))
    legend = "Each image twice. annotated: the boxes of the annotation file, white, with their class.\n"
    legend += f"detected: the model's boxes of score {PICTURED_SCORE} and above, a colour a class, named and scored."
    contact_sheet(tiles, legend=legend).save(path, quality=85)
    return path.name
