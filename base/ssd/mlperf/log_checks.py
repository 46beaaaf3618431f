"""Checks of result logs that the official tools lack. Without each of them, a broken result would pass.

The compliance checker reads one log at a time. It keeps the last of two records on a line. It does not check the order
of the epochs. It tests one of the two decay epochs. It lets one log of five fail. The seed checker compares a seed
together with the line that logged it. Keys that only our logs have (keys.py) add what MLPerf's keys do not say: width,
backbone, a resumed run, test data.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.mlperf.evidence import value_findings
from ssd.mlperf.keys import BACKBONE, DRAWN, MOMENTUM, PRECISION, RESUMED, TARGET, TEST_DATA, VERSION, WIDTH
from ssd.mlperf.limits import RESULTS, TARGET_MAP, closed_violations, init_limit_ms
from ssd.mlperf.logs import Finding, ResultLog
from ssd.mlperf.records import DECODER, TOKEN
from ssd.text import shortened

__all__ = ["log_findings", "set_findings"]

_SETTINGS = (
    constants.GLOBAL_BATCH_SIZE,
    constants.GRADIENT_ACCUMULATION_STEPS,
    constants.MODEL_BN_SPAN,
    constants.OPT_BASE_LR,
    constants.OPT_WEIGHT_DECAY,
    constants.OPT_LR_WARMUP_STEPS,
    constants.OPT_LR_WARMUP_FACTOR,
    constants.OPT_LR_DECAY_BOUNDARY_EPOCHS,
    constants.OPT_LR_DECAY_FACTOR,
    constants.TRAIN_SAMPLES,
    constants.EVAL_SAMPLES,
    constants.SUBMISSION_ORG,
    constants.SUBMISSION_DIVISION,
    constants.SUBMISSION_PLATFORM,
    constants.SUBMISSION_STATUS,
    MOMENTUM,
    TARGET,
    WIDTH,
    BACKBONE,
    PRECISION,
    VERSION,
    DRAWN,
)
"""Keys whose value is the same in all results of a system."""


# One log


def log_findings(log: ResultLog, ruleset: str) -> list[Finding]:
    """All findings on one result log, without those of the compliance checker."""
    found = [*_line_findings(log), *_order_findings(log, ruleset), *_epoch_findings(log), *_target_findings(log)]
    found += value_findings(log)
    if log.values.get(TEST_DATA):
        found.append(Finding(log.name, "results are measured", "the log is marked as test data: it is no result"))
    if log.values.get(constants.SUBMISSION_DIVISION) == "closed":
        found += _closed_findings(log, ruleset)
    else:
        if log.values.get(RESUMED):
            text = "the run was resumed: a result is one run without a break, in the open division too"
            found.append(Finding(log.name, "run result", text))
        found += [Finding(log.name, "open division", text, note=True) for text in _open_notes(log)]
    return found


def _line_findings(log: ResultLog) -> Iterator[Finding]:
    with log.path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            _, *parts = line.split(TOKEN)
            if not parts:
                continue
            where = f"line {number}"
            if len(parts) > 1:
                text = f"{where} holds {len(parts)} records: the official parsers drop all but the last"
                yield Finding(log.name, "one record a line", text)
            try:
                entry, end = DECODER.raw_decode(parts[-1].lstrip())
            except (ValueError, RecursionError) as error:
                yield Finding(log.name, "a record is JSON", f"{where} cannot be read: {error}")
                continue
            if odd := _odd_fields(entry):
                yield Finding(log.name, "fields of a record", f"{where}: {odd}")
            if parts[-1].lstrip()[end:].strip():
                yield Finding(log.name, "nothing behind a record", f"{where} goes on after its record")


def _odd_fields(entry: Any) -> str:
    """What is wrong with the fields that every record has; "" where nothing is."""
    if not isinstance(entry, dict):
        return "the record is no JSON object"
    time_ms, key, metadata = entry.get("time_ms"), entry.get("key"), entry.get("metadata", {})
    if not isinstance(time_ms, int | float) or isinstance(time_ms, bool):
        return f"time_ms is {shortened(repr(time_ms), 80)}, which is no number"
    if not isinstance(key, str):
        return f"key is {shortened(repr(key), 80)}, which is no text"
    return "" if metadata is None or isinstance(metadata, dict) else "metadata is no JSON object"


def _order_findings(log: ResultLog, ruleset: str) -> Iterator[Finding]:
    rule = "order of events"
    times = {key: log.times(key) for key in (constants.INIT_START, constants.INIT_STOP, constants.RUN_START)}
    stops = log.times(constants.RUN_STOP)
    if len(stops) > 1:
        yield Finding(log.name, rule, f"{len(stops)} run_stop: a run ends once")
    if len(times[constants.RUN_START]) > 1:
        text = f"{len(times[constants.RUN_START])} run_start: a run begins once, and its time is counted from the last"
        yield Finding(log.name, rule, text)
    yield from _evaluation_findings(log)
    for earlier, later in zip(log.records, log.records[1:], strict=False):
        if later.time_ms < earlier.time_ms - 1000:
            back = (earlier.time_ms - later.time_ms) / 1000
            text = f"line {later.line}: {later.key} is {back:.1f} s before the record above it"
            yield Finding(log.name, rule, text)
            break
    if not times[constants.RUN_START]:
        return  # the compliance checker says so
    begin = times[constants.RUN_START][0]
    if log.times(constants.CACHE_CLEAR) and min(log.times(constants.CACHE_CLEAR)) > begin:
        yield Finding(log.name, rule, "cache_clear stands after run_start: caches are dropped before a run")
    for record in log.records:
        timed = record.key.startswith(("block_", "epoch_", "eval_st", "eval_acc"))
        if timed and (record.time_ms < begin or (stops and record.time_ms > stops[-1])):
            yield Finding(log.name, rule, f"line {record.line}: {record.key} lies outside run_start..run_stop")
            break
    if times[constants.INIT_START] and times[constants.INIT_STOP]:
        taken, limit = times[constants.INIT_STOP][-1] - min(times[constants.INIT_START]), init_limit_ms(ruleset)
        if taken >= limit:
            text = f"set-up took {taken / 60_000:.1f} minutes of the {limit / 60_000:g} that are allowed"
            yield Finding(log.name, "length of set-up", text)


def _evaluation_findings(log: ResultLog) -> Iterator[Finding]:
    """One eval_accuracy and one eval_stop must follow each eval_start. No timed event may follow run_stop."""
    rule, stopped = "order of events", False
    due: set[str] = set()
    for record in log.records:
        if stopped and record.key.startswith(("block_", "epoch_", "eval_st", "eval_acc", "run_start")):
            yield Finding(log.name, rule, f"line {record.line}: {record.key} stands below run_stop")
            return
        stopped = stopped or record.key == constants.RUN_STOP
        if record.key == constants.EVAL_START:
            wrong, due = bool(due), {constants.EVAL_ACCURACY, constants.EVAL_STOP}
        elif record.key in (constants.EVAL_ACCURACY, constants.EVAL_STOP):
            wrong = record.key not in due
            due = due - {record.key}
        else:
            continue
        if wrong:
            text = "an evaluation is one eval_start, one eval_accuracy and one eval_stop"
            yield Finding(log.name, rule, f"line {record.line}: {record.key} is out of place: {text}")
            return


def _epoch_findings(log: ResultLog) -> Iterator[Finding]:
    rule = "epochs"
    for key in (constants.EPOCH_START, constants.EPOCH_STOP):
        epochs = [r.metadata.get(constants.EPOCH_NUM) for r in log.records if r.key == key]
        if epochs and epochs != list(range(1, len(epochs) + 1)):
            yield Finding(log.name, rule, f"{key} does not count 1, 2, 3, ...: {_some(epochs)}")
    next_epoch = 1
    for record in log.records:
        if record.key == constants.BLOCK_START:
            first, count = record.metadata.get(constants.FIRST_EPOCH_NUM), record.metadata.get(constants.EPOCH_COUNT)
            if first != next_epoch or not isinstance(count, int):
                yield Finding(
                    log.name, rule, f"line {record.line}: a block begins with epoch {first}, not {next_epoch}"
                )
                break
            next_epoch += count
    evaluated = [r.metadata.get(constants.EPOCH_NUM) for r in log.records if r.key == constants.EVAL_ACCURACY]
    numbers = [epoch for epoch in evaluated if isinstance(epoch, int | float)]
    if len(numbers) != len(evaluated) or numbers != sorted(set(numbers)):
        yield Finding(log.name, rule, f"eval_accuracy's epoch_num does not grow: {_some(evaluated)}")
    trained = [r.metadata.get(constants.EPOCH_NUM) for r in log.records if r.key == constants.EPOCH_STOP]
    last = max((epoch for epoch in trained if isinstance(epoch, int | float)), default=None)
    if last is not None and numbers and max(numbers) > last:
        text = f"epoch {_some([max(numbers)])} was evaluated, but training stopped after {_some([last])}"
        yield Finding(log.name, rule, text)


def _some(values: list[Any]) -> str:
    return ", ".join(shortened(str(value), 40) for value in values[:8]) + (", ..." if len(values) > 8 else "")


def _target_findings(log: ResultLog) -> Iterator[Finding]:
    accuracies = [r.value for r in log.records if r.key == constants.EVAL_ACCURACY]
    for value in accuracies:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
            yield Finding(log.name, "mAP", f"eval_accuracy {value!r} is no mAP between 0 and 1")
            return
    if log.status not in (constants.SUCCESS, constants.ABORTED, "unfinished"):
        yield Finding(log.name, "status", f"run_stop has status {log.status!r}: it is success or aborted")
    if log.status == constants.SUCCESS and (not accuracies or accuracies[-1] < TARGET_MAP):
        reached = f"{accuracies[-1]!r}" if accuracies else "nothing"
        text = f"run_stop says success, but the last evaluation reached {reached}, unrounded, of {TARGET_MAP}"
        yield Finding(log.name, "target mAP", text)


def _closed_findings(log: ResultLog, ruleset: str) -> Iterator[Finding]:
    for violation in closed_violations(log.values, ruleset):
        yield Finding(log.name, "closed division", str(violation))
    if log.values.get(constants.CACHE_CLEAR) is False:
        text = "cache_clear is false: a closed result starts with the machine's caches dropped"
        yield Finding(log.name, "closed division", text)
    counted = Counter(r.key for r in log.records)
    for key in (constants.GLOBAL_BATCH_SIZE, constants.OPT_LR_DECAY_BOUNDARY_EPOCHS, constants.TRAIN_SAMPLES):
        distinct = {json.dumps(r.value) for r in log.records if r.key == key}
        if counted[key] > 1 and len(distinct) > 1:
            yield Finding(log.name, "one value a run", f"{key} is logged as {' and '.join(sorted(distinct))}")
    seeds = [r.value for r in log.records if r.key == constants.SEED]
    if not seeds:
        yield Finding(log.name, "seed", "no seed is logged")
    elif any(not isinstance(seed, int) or isinstance(seed, bool) for seed in seeds):
        yield Finding(log.name, "seed", f"seed {seeds[0]!r} is no whole number")
    elif len(set(seeds)) > 1:
        yield Finding(log.name, "seed", f"{len(set(seeds))} seeds are logged for one run")


def _open_notes(log: ResultLog) -> Iterator[str]:
    """What the open division allows and a reader of the result should know."""
    if log.values.get(WIDTH, 1) != 1:
        yield f"width {log.values[WIDTH]}: not the benchmark's model, so no time compares with a published one"
    if log.values.get(constants.CACHE_CLEAR) is False:
        yield "the machine's caches were not dropped before the run"
    samples = log.values.get(constants.TRAIN_SAMPLES)
    if isinstance(samples, int) and samples < 100_000:
        yield f"{samples} training images: not COCO 2017"


# The logs of one system together


def set_findings(folder: str, logs: list[ResultLog]) -> list[Finding]:
    """Findings on the results of one system as a set. folder: their folder in the package."""
    found = []
    for key in _SETTINGS:
        by_value = defaultdict(list)
        for log in logs:
            if key in log.values:
                by_value[json.dumps(log.values[key])].append(log.name)
        if len(by_value) > 1:
            text = "; ".join(f"{value} in {', '.join(map(_stem, names))}" for value, names in by_value.items())
            odd = min(by_value.values(), key=len)[0]
            found.append(Finding(odd, "results are of one configuration", f"{key} differs within {folder}: {text}"))
    found += _shared(logs, constants.SEED, "a seed of its own for every run")
    failed = [log for log in logs if log.status != constants.SUCCESS]
    allowed = 1
    for log in failed:
        text = f"{log.status}: counts as the slowest of {RESULTS} and is dropped"
        if len(failed) > allowed:
            text = f"{log.status}: {len(failed)} runs did not converge, {allowed} may"
        found.append(Finding(log.name, "convergence", text, note=len(failed) <= allowed))
    return found


def _shared(logs: list[ResultLog], key: str, rule: str) -> Iterator[Finding]:
    """Findings on a value that must differ between runs, where two runs have the same."""
    seen: dict[Any, str] = {}
    for log in logs:
        if key not in log.values:
            continue
        value = json.dumps(log.values[key])
        if value in seen:
            closed = log.values.get(constants.SUBMISSION_DIVISION) == "closed"
            yield Finding(log.name, rule, f"{key} {value} as {_stem(seen[value])}", note=not closed)
        else:
            seen[value] = log.name


def _stem(name: str) -> str:
    return Path(name).stem
