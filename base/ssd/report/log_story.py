"""A bare result log, anybody's, as a story for the page: what it says, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssd.account.facts import Epoch
from ssd.account.log_events import MEANINGS, Event, log_account, log_anomalies, log_facts
from ssd.mlperf.limits import TARGET_MAP
from ssd.mlperf.records import is_number, read_records
from ssd.mlperf.results import read_result
from ssd.report.story import Story

__all__ = ["story_of_log"]


def story_of_log(path: Path) -> Story:
    """The story of a bare result log: what it says, and a word on what it lacks. DataError where it is no SSD log."""
    result, events = read_result(path), read_records(path)
    account, facts = log_account(events), log_facts(events)
    minutes = result.time_to_train_min
    evaluations = [
        {"kind": "evaluation", "epoch": one.metadata["epoch_num"], "AP": one.value, "time": one.time_ms / 1000}
        for one in events
        if one.key == "eval_accuracy" and "epoch_num" in one.metadata and isinstance(one.value, float | int)
    ]
    begun = next((one.time_ms / 1000 for one in events if one.key == "run_start"), 0.0)
    samples = next((one.value for one in events if one.key == "train_samples"), None)
    rates = [
        {"kind": "train", "time": begun + at, "images_per_s": samples / length, "step": number}
        for number, at, length in _epoch_rates(facts.epochs, events, begun)
        if samples
    ]
    return Story(
        name=f"{result.system or 'a system'}: {path.name}",
        summary={
            "evaluations": [(one["epoch"], one["AP"]) for one in evaluations],
            "target": TARGET_MAP,
            **({"images_per_s": result.images_per_s} if result.images_per_s else {}),
            **({"seconds": {"run": minutes * 60}} if minutes is not None else {}),
            **({"time_to_target_s": minutes * 60} if minutes is not None and result.status == "success" else {}),
        },
        records=[{"kind": "set_up", "time": begun}, *rates, *evaluations],
        system={
            "submitter": result.submitter,
            "system": result.system,
            "division": result.division,
            "status": result.status,
            "global batch": result.global_batch,
            "seed": result.seed,
            "base learning rate": result.base_lr,
            "warm-up steps": result.warmup_steps,
        },
        account={}
        if account is None
        else {
            "wall_s": sum(account.parts.values()),
            "parts": account.parts,
            "titles": {name: text for name, (text, _) in MEANINGS.items()},
            "meanings": {name: meaning for name, (_, meaning) in MEANINGS.items()},
            "covers": "From the first init_start of the log to run_stop, as far as its events reach.",
        },
        findings=[{"name": one.name, "words": one.words} for one in log_anomalies(events)],
        lacks=[
            "This page was made from a result log alone. A log has no loss, learning rate, telemetry, detections, AP "
            "by category or config; those sections say so. Images/s is that of each epoch."
        ],
        published=True,
    )


def _epoch_rates(epochs: Sequence[Epoch], events: Sequence[Event], begun: float) -> list[tuple[int, float, float]]:
    """(epoch, seconds from run_start to its end, its seconds) of a log."""
    ends = [one for one in events if one.key == "epoch_stop" and is_number(one.metadata.get("epoch_num"))]
    stops = {one.metadata["epoch_num"]: one.time_ms / 1000 for one in ends}
    return [(one.number, stops[one.number] - begun, one.seconds) for one in epochs if one.seconds > 0]
