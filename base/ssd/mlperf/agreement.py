"""Whether the files of one run agree: every number that stands in two of them is compared.

A run leaves its result log, config.json, summary.json and metrics.jsonl. A package refuses a run whose files contradict
each other, and names both values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.errors import DataError
from ssd.mlperf.keys import BACKBONE, SETTINGS, TARGET, WIDTH
from ssd.mlperf.logs import ResultLog

__all__ = ["read_metrics", "same_everywhere"]

SECONDS_APART = 5.0
"""summary.json's time ends after run_stop: the last checkpoint of a run is written between the two."""
SHARE_APART = 0.02


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl. Raises DataError where the file is missing or has a line that is no JSON object."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: a finished run leaves this file, and it cannot be read: {reason}") from error
    if not all(isinstance(line, dict) for line in lines):
        raise DataError(f"{path}: a line is no JSON object")
    return lines


def same_everywhere(
    log: ResultLog, config: Mapping[str, Any], summary: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Numbers that differ between two files of a run: one sentence a number, with both values."""
    pairs = [*_settings(log, config, summary), *_course(log, summary, metrics)]
    for what, (file, value), (other, said) in pairs:
        if not _equal(value, said):
            yield f"{what} is {value!r} in {file} and {said!r} in {other}"
    took, minutes = summary.get("seconds", {}), log.minutes
    seconds = took.get("run") if isinstance(took, Mapping) else None
    if minutes is not None and isinstance(seconds, int | float):
        apart = abs(minutes * 60 - seconds)
        if apart > max(SECONDS_APART, SHARE_APART * seconds):
            yield f"the timed part took {minutes * 60:.1f} s by the result log and {seconds:.1f} s by summary.json"


Pair = tuple[str, tuple[str, Any], tuple[str, Any]]
LOG, CONFIG, SUMMARY, METRICS = "the result log", "config.json", "summary.json", "metrics.jsonl"


def _settings(log: ResultLog, config: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[Pair]:
    factors = ("train_batch_size", "gradient_accumulation_steps", "nproc_per_node", "nodes")
    batch = math.prod(int(config.get(key, 1)) for key in factors)
    for what, key, name, expected in (
        ("global batch", constants.GLOBAL_BATCH_SIZE, "global_batch", batch if "train_batch_size" in config else None),
        ("seed", constants.SEED, "seed", config.get("seed")),
        ("width", WIDTH, "width", None),
        ("target", TARGET, "target", None),
        ("backbone's SHA-256", BACKBONE, "backbone_sha256", None),
    ):
        logged = log.values.get(key)
        if name in summary and logged is not None:
            yield what, (LOG, logged), (SUMMARY, summary[name])
        if expected is not None and logged is not None:
            yield what, (LOG, logged), (CONFIG, expected)
    of_this_run = {
        constants.SUBMISSION_ORG: "submitter",
        constants.SUBMISSION_DIVISION: "division",
        constants.OPT_BASE_LR: "base_learning_rate",
    }
    for key, name in (SETTINGS | of_this_run).items():
        if log.values.get(key) is not None and config.get(name) is not None:
            yield name, (LOG, log.values[key]), (CONFIG, config[name])


def _course(log: ResultLog, summary: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Iterator[Pair]:
    """Evaluations, steps and outcome."""
    logged = [
        [record.metadata.get(constants.EPOCH_NUM), record.value]
        for record in log.records
        if record.key == constants.EVAL_ACCURACY
    ]
    measured = [[line.get("epoch"), line.get("AP")] for line in metrics if line.get("kind") == "evaluation"]
    yield "the series of evaluations", (LOG, logged), (SUMMARY, summary.get("evaluations"))
    yield "the series of evaluations", (LOG, logged), (METRICS, measured)
    starts = [line["seed"] for line in metrics if line.get("kind") == "start" and "seed" in line]
    if starts and "seed" in summary:
        yield "seed", (SUMMARY, summary["seed"]), (METRICS, starts[-1])
    steps = [line["step"] for line in metrics if line.get("kind") in ("train", "epoch") and "step" in line]
    if steps and "steps" in summary:
        yield "the number of steps", (SUMMARY, summary["steps"]), (METRICS, steps[-1])
    reached = log.status == constants.SUCCESS
    yield "whether the target was reached", (LOG, reached), (SUMMARY, summary.get("exit_code") == 0)


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are equal as JSON. Numbers are compared to nine digits, lists and tuples item by item."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) if numbers else one == other
