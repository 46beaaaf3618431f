"""Whether the files of one run agree: every number that stands in two of them is compared.

A run leaves its result log, config.json, summary.json, system.json and metrics.jsonl. A package refuses a run whose
files contradict each other, and names both values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.counts import evaluation_epochs, steps_per_epoch
from ssd.errors import EXIT_NOT_CONVERGED, EXIT_REACHED, DataError
from ssd.mlperf.keys import BACKBONE, PRECISION, SETTINGS, TARGET, WIDTH
from ssd.mlperf.logs import ResultLog
from ssd.mlperf.records import is_number

__all__ = ["require_metrics", "same_everywhere"]

SECONDS_APART = 5.0
"""summary.json's time ends after run_stop: the last checkpoint of a run is written between the two."""
SHARE_APART = 0.02
MOMENTS_APART = 2.0
"""The log and metrics.jsonl are written one after the other; a slow disk may hold the second up."""
ALWAYS = ("seed", "steps", "global_batch", "width", "target", "evaluations", "seconds", "images_per_s")
"""Keys of summary.json that a run leaves however it ends."""


def require_metrics(path: Path) -> list[dict[str, Any]]:
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
    log: ResultLog,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    system: Mapping[str, Any],
) -> Iterator[str]:
    """Numbers that differ between two files of a run: one sentence a number, with both values."""
    if missing := [key for key in ALWAYS if key not in summary]:
        yield f"summary.json has no {', '.join(missing)}, and every run writes them"
    pairs = [*_settings(log, config, summary, system), *_course(log, config, summary, metrics)]
    for what, (file, value), (other, said) in pairs:
        if not _equal(value, said):
            yield f"{what} is {value!r} in {file} and {said!r} in {other}"
    yield from _speeds(log, config, summary, metrics)
    yield from _moments(log, metrics)
    took, minutes = summary.get("seconds", {}), log.minutes
    seconds = took.get("run") if isinstance(took, Mapping) else None
    if minutes is not None and is_number(seconds):
        apart = abs(minutes * 60 - seconds)
        if apart > max(SECONDS_APART, SHARE_APART * seconds):
            yield f"the timed part took {minutes * 60:.1f} s by the result log and {seconds:.1f} s by summary.json"


Pair = tuple[str, tuple[str, Any], tuple[str, Any]]
LOG, CONFIG, SUMMARY, METRICS, SYSTEM = "the result log", "config.json", "summary.json", "metrics.jsonl", "system.json"


def _settings(
    log: ResultLog, config: Mapping[str, Any], summary: Mapping[str, Any], system: Mapping[str, Any]
) -> Iterator[Pair]:
    batch = _product(config, "train_batch_size", "gradient_accumulation_steps", "nproc_per_node", "nodes")
    for what, key, name, expected in (
        ("global batch", constants.GLOBAL_BATCH_SIZE, "global_batch", batch),
        ("batch norm's span", constants.MODEL_BN_SPAN, None, _product(config, "train_batch_size", "bn_group")),
        ("seed", constants.SEED, "seed", config.get("seed")),
        ("width", WIDTH, "width", None),
        ("target", TARGET, "target", None),
        ("backbone's SHA-256", BACKBONE, "backbone_sha256", None),
    ):
        logged = log.values.get(key)
        if name is not None and name in summary and logged is not None:
            yield what, (LOG, logged), (SUMMARY, summary[name])
        if expected is not None and logged is not None:
            yield what, (LOG, logged), (CONFIG, expected)
    of_this_run = {
        constants.SUBMISSION_ORG: "submitter",
        constants.SUBMISSION_DIVISION: "division",
        constants.SUBMISSION_PLATFORM: "system",
        constants.OPT_BASE_LR: "base_learning_rate",
        PRECISION: "precision",
    }
    for key, name in (SETTINGS | of_this_run).items():
        if log.values.get(key) is not None and config.get(name) is not None:
            yield name, (LOG, log.values[key]), (CONFIG, config[name])
    for name in ("name", "config"):
        if name in summary:
            yield name, (SUMMARY, summary[name]), (CONFIG, config.get(name))
    if "number_of_nodes" in system:
        yield "the number of nodes", (SYSTEM, system["number_of_nodes"]), (CONFIG, str(config.get("nodes", 1)))


def _product(config: Mapping[str, Any], first: str, *others: str) -> Any:
    """The product of whole numbers of a config, or what stands there instead; None where it does not have the first."""
    if first not in config:
        return None
    values = [config[first], *(config.get(key, 1) for key in others)]
    return math.prod(values) if all(type(value) is int for value in values) else values


def _course(
    log: ResultLog, config: Mapping[str, Any], summary: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> Iterator[Pair]:
    """Epochs, evaluations, steps and outcome."""
    logged = [
        [record.metadata.get(constants.EPOCH_NUM), record.value]
        for record in log.records
        if record.key == constants.EVAL_ACCURACY
    ]
    measured = [[line.get("epoch"), line.get("AP")] for line in metrics if line.get("kind") == "evaluation"]
    yield "the series of evaluations", (LOG, logged), (SUMMARY, summary.get("evaluations"))
    yield "the series of evaluations", (LOG, logged), (METRICS, measured)
    epochs = [record.metadata.get(constants.EPOCH_NUM) for record in log.records if record.key == constants.EPOCH_STOP]
    whole = [line for line in metrics if line.get("kind") == "epoch"]
    yield "the series of epochs", (LOG, epochs), (METRICS, [line.get("epoch") for line in whole])
    samples, batch = log.values.get(constants.TRAIN_SAMPLES), log.values.get(constants.GLOBAL_BATCH_SIZE)
    if type(samples) is type(batch) is int and batch > 0 and whole and type(last := whole[-1].get("epoch")) is int:
        end = last * steps_per_epoch(samples, batch)
        yield f"the step that ends epoch {last}", (LOG, end), (METRICS, whole[-1].get("step"))
    due = _due(config, epochs)
    if due is not None and summary.get("exit_code") in (EXIT_REACHED, EXIT_NOT_CONVERGED):
        yield "the series of evaluated epochs", (LOG, [epoch for epoch, _ in logged]), (CONFIG, due)
    starts = [line["seed"] for line in metrics if line.get("kind") == "start" and "seed" in line]
    if starts and "seed" in summary:
        yield "seed", (SUMMARY, summary["seed"]), (METRICS, starts[-1])
    steps = [line["step"] for line in metrics if line.get("kind") in ("train", "epoch") and "step" in line]
    if steps and "steps" in summary:
        yield "the number of steps", (SUMMARY, summary["steps"]), (METRICS, steps[-1])
    resumed = any(line.get("kind") == "resumed" for line in metrics)
    yield "whether it was resumed", (SUMMARY, bool(summary.get("resumed"))), (METRICS, resumed)
    reached = log.status == constants.SUCCESS
    yield "whether the target was reached", (LOG, reached), (SUMMARY, summary.get("exit_code") == EXIT_REACHED)


def _due(config: Mapping[str, Any], epochs: Sequence[Any]) -> list[int] | None:
    """Epochs up to the last trained one that the config evaluates after; None where it does not say."""
    try:
        wanted = evaluation_epochs(config["epochs"], config["eval_epochs"], config["eval_interval"])
        return [epoch for epoch in wanted if epoch <= max(epochs)]
    except (KeyError, TypeError, ValueError):
        return None


def _speeds(
    log: ResultLog, config: Mapping[str, Any], summary: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """The mean of the intervals' images/s lies between them, and is that of a device times the devices.

    No step has a higher learning rate than the log's.
    """
    lines = [line for line in metrics if line.get("kind") == "train"]
    found = [line["images_per_s"] for line in lines if is_number(line.get("images_per_s"))]
    said = summary.get("images_per_s")
    if found and is_number(said) and not min(found) - 0.002 <= said <= max(found) + 0.002:
        yield f"images/s is {said!r} in summary.json and {min(found)!r} to {max(found)!r} in metrics.jsonl"
    one, devices = summary.get("images_per_s_per_device"), _product(config, "nproc_per_node", "nodes")
    if is_number(said) and is_number(one) and type(devices) is int and abs(said - one * devices) > 0.001 * devices:
        yield f"images/s is {said!r} and {one!r} a device in summary.json, and config.json has {devices} devices"
    rates = [line["learning_rate"] for line in lines if is_number(line.get("learning_rate"))]
    rate = log.values.get(constants.OPT_BASE_LR)
    if rates and is_number(rate) and max(rates) > rate * (1 + 1e-6):
        yield f"the learning rate is {rate!r} in the result log and up to {max(rates)!r} in metrics.jsonl"


def _moments(log: ResultLog, metrics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The first event that stands in the log and in metrics.jsonl at moments which are not the same."""
    times = {
        (record.key, record.metadata.get(constants.EPOCH_NUM)): record.time_ms / 1000
        for record in log.records
        if record.key in TWINS.values() and isinstance(record.metadata.get(constants.EPOCH_NUM), int)
    }
    for line in metrics:
        kind, epoch, at = str(line.get("kind")), line.get("epoch"), line.get("time")
        logged = times.get((TWINS[kind], epoch)) if kind in TWINS and isinstance(epoch, int) else None
        if logged is not None and is_number(at) and abs(logged - at) > MOMENTS_APART:
            what = f"epoch {epoch}'s {TWINS[kind]}"
            yield f"{what} is at {logged:.3f} s in the result log and at {at:.3f} s in metrics.jsonl"
            return


TWINS = {"epoch": constants.EPOCH_STOP, "evaluation": constants.EVAL_ACCURACY}
"""Kind of a line of metrics.jsonl -> key of the log that is written at the same moment."""


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are equal as JSON. Numbers are compared to nine digits, lists and tuples item by item."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) if numbers else one == other
