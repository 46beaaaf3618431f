"""Evidence that a set of logs is not what it claims: runs counted twice, removed keys, values that cannot be true."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants

from ssd.mlperf.keys import OUR_PREFIX, RESUMED, SETTINGS, TARGET, TEST_DATA, WIDTH
from ssd.mlperf.limits import TARGET_MAP
from ssd.mlperf.logs import Finding, ResultLog
from ssd.mlperf.records import is_number
from ssd.mlperf.results import MOST_IMAGES_PER_S

__all__ = ["config_findings", "copy_findings", "our_key_findings", "overlap_findings", "value_findings"]

_OUR_KEYS = "our logs have all of our keys"
_VALUES = "values that can be"
_PLACE_AND_CHANCE = {RESUMED, TEST_DATA}
"""Keys of ours that one log of a set may have and another not."""
MOST_LIKELY_MAP = 0.35
"""No SSD300 with this backbone has come near it on COCO 2017; published runs end at 0.230 to 0.236."""
SPREAD_OF_A_PART = 0.01
"""How far the same part of two runs differs at the least, as a share: a part of 1 s is the same to the millisecond in
one pair of runs in ten."""
EVIDENCE_OF_A_COPY = 6
"""Equal intervals show a copy where chance makes them equal in less than one of 10**6 pairs of runs."""
EPOCH_MS = (946_684_800_000, 4_102_444_800_000)
"""Times of a log are milliseconds since 1970: from the year 2000 to the year 2100."""


def copy_findings(logs: Sequence[ResultLog]) -> Iterator[Finding]:
    """Pairs of logs that are one run, counted twice. That is an error in anybody's package.

    Two logs are one run where they have the same moments, the same intervals between all events, or the same
    evaluations. Intervals of seconds are never the same to the millisecond in two runs. Intervals of a few milliseconds
    can be, so they prove nothing. After another seed, mAP is never the same in all its digits. An evaluation of 0
    proves nothing: early ones can be 0.
    """
    for one, other in combinations(logs, 2):
        text = None
        if one.times(constants.RUN_START) and one.times(constants.RUN_START) == other.times(constants.RUN_START):
            text = "run_start at the same millisecond"
        elif (intervals := _intervals(one)) and intervals == _intervals(other):
            text = "the same milliseconds between all events"
        elif (series := _evaluations(one)) and series == _evaluations(other):
            text = f"the same evaluations to the last digit ({series[-1]!r} at last)"
        if text:
            yield Finding(other.name, "every result is another run", f"{text} as {Path(one.name).stem}")


def _intervals(log: ResultLog) -> list[float]:
    """Milliseconds between neighbouring events of the timed part. Empty where they are too short to tell runs apart."""
    times = [record.time_ms for record in log.records if record.key.startswith(("run_", "epoch_", "eval_"))]
    found = [later - earlier for earlier, later in pairwise(times)]
    chances = sum(math.log10(max(1.0, SPREAD_OF_A_PART * abs(interval))) for interval in found)
    return found if chances >= EVIDENCE_OF_A_COPY else []


def _evaluations(log: ResultLog) -> list[float]:
    values = [record.value for record in log.records if record.key == constants.EVAL_ACCURACY]
    return values if any(isinstance(value, float) and len(repr(value)) > 8 for value in values) else []


def our_key_findings(logs: Sequence[ResultLog], expected: bool = False) -> Iterator[Finding]:
    """Keys of ours that a log lacks while other logs of the set have them, and keys that a log has twice.

    These keys say width, backbone and target. expected: the config.json of the package is ours, so each log must have
    them.
    """
    keys = sorted({key for log in logs for key in log.values if key.startswith(OUR_PREFIX)} - _PLACE_AND_CHANCE)
    if not keys and expected:
        keys = [WIDTH, TARGET]
    for log in logs:
        counts = Counter(record.key for record in log.records)
        lacking = [key for key in keys if counts[key] == 0]
        twice = [key for key in keys if counts[key] > 1]
        if lacking:
            yield Finding(log.name, _OUR_KEYS, f"lacks {', '.join(lacking)}, which the other logs or config.json have")
        if twice:
            yield Finding(log.name, _OUR_KEYS, f"has {', '.join(twice)} more than once")
    if not keys and logs:
        text = "has no key of this project: width, backbone and target of its runs are not known"
        yield Finding(str(Path(logs[0].name).parent), _OUR_KEYS, text, note=True)


def config_findings(logs: Sequence[ResultLog], config: Mapping[str, Any]) -> Iterator[Finding]:
    """Values that differ between the config.json of the package and a log."""
    for log in logs:
        for key, name in SETTINGS.items():
            if key in log.values and name in config and log.values[key] != config[name]:
                text = f"{key} is {log.values[key]!r}, but config.json has {name} {config[name]!r}"
                yield Finding(log.name, "the log and config.json agree", text)


def value_findings(log: ResultLog) -> Iterator[Finding]:
    """Values that no run can have: a rate that is no number, batch norm over more than a batch, an impossible time."""
    values = log.values
    for key in (constants.OPT_BASE_LR, constants.OPT_WEIGHT_DECAY, constants.OPT_LR_DECAY_FACTOR):
        value = values.get(key)
        if value is not None and not (is_number(value) and value >= 0):
            yield Finding(log.name, _VALUES, f"{key} is {value!r}: a number from 0 on is expected")
    span, batch = values.get(constants.MODEL_BN_SPAN), values.get(constants.GLOBAL_BATCH_SIZE)
    if is_number(span) and is_number(batch) and span > batch:
        yield Finding(log.name, _VALUES, f"model_bn_span {span} is more than the batch, {batch}")
    cleared = {record.value for record in log.records if record.key == constants.CACHE_CLEAR and _plain(record.value)}
    if len(cleared) > 1:
        yield Finding(log.name, _VALUES, "cache_clear is logged as true and as false")
    accuracies = [r.value for r in log.records if r.key == constants.EVAL_ACCURACY and is_number(r.value)]
    target = values.get(TARGET, TARGET_MAP)
    if log.status == constants.ABORTED and accuracies and is_number(target) and accuracies[-1] >= target:
        yield Finding(log.name, _VALUES, f"run_stop says aborted, but the last evaluation is {accuracies[-1]!r}")
    samples = values.get(constants.TRAIN_SAMPLES)
    full_size = is_number(samples) and samples > 100_000
    if full_size and accuracies and max(accuracies) > MOST_LIKELY_MAP:
        text = f"mAP {max(accuracies)!r} is more than this model can have on COCO 2017 (published: up to 0.24)"
        yield Finding(log.name, _VALUES, text, note=True)
    yield from _time_findings(log, samples if is_number(samples) else None)


def _time_findings(log: ResultLog, samples: float | None) -> Iterator[Finding]:
    odd = next((r for r in log.records if not EPOCH_MS[0] <= r.time_ms <= EPOCH_MS[1]), None)
    if odd is not None:
        text = f"line {odd.line}: time_ms {odd.time_ms:g} is no time in milliseconds since 1970"
        yield Finding(log.name, _VALUES, text, note=True)
    if log.minutes is not None and log.minutes <= 0:
        yield Finding(log.name, _VALUES, f"the timed part takes {log.minutes:g} minutes", note=True)
    epochs = [r.metadata.get(constants.EPOCH_NUM) for r in log.records if r.key == constants.EVAL_ACCURACY]
    if samples and log.minutes and log.minutes > 0 and epochs and is_number(epochs[-1]):
        rate = samples * epochs[-1] / (log.minutes * 60)
        if rate > MOST_IMAGES_PER_S:
            text = f"{rate:,.0f} images/s is more than any system trains (published: up to 384,479)"
            yield Finding(log.name, _VALUES, text, note=True)


def overlap_findings(logs: Sequence[ResultLog]) -> Iterator[Finding]:
    """Runs of one system whose timed parts overlap. That is possible only on several machines."""
    spans = [
        (min(log.times(constants.RUN_START)), max(log.times(constants.RUN_STOP)), log)
        for log in logs
        if log.times(constants.RUN_START) and log.times(constants.RUN_STOP)
    ]
    for (begin, end, one), (other_begin, other_end, other) in combinations(spans, 2):
        if begin < other_end and other_begin < end:
            text = f"ran at the same time as {Path(one.name).stem}: on one machine that is impossible"
            yield Finding(other.name, "runs one after the other", text, note=True)


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | type(None))
