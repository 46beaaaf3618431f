"""One row of numbers from any MLPerf SSD result log, of this project or of others, of any round: `ssd results PATH...`.

The logs of the rounds differ. In some, many ranks repeat the lines of the set-up. In some, other output of the run
stands between the records, or before a record on its line. In some, keys are missing. So a record is found wherever it
stands, and what a log does not say stays empty. Times follow the rules: training is run_stop - run_start, and set-up is
init_stop - the first init_start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mlperf_logging.mllog import constants

from ssd.errors import DataError
from ssd.mlperf.keys import OUR_PREFIX, PRECISION, RESUMED, WIDTH
from ssd.mlperf.limits import TRAIN_SAMPLES
from ssd.mlperf.notice import origin_of
from ssd.mlperf.records import Record, read_records
from ssd.mlperf.times import account_fields

__all__ = ["MOST_IMAGES_PER_S", "RunResult", "find_logs", "read_result"]


@dataclass(frozen=True)
class RunResult:
    """The numbers of one run. A time is in minutes. A number that the log does not give is None.

    status: success, aborted, or unfinished (without run_stop). outcome: the same in people's words (see `_outcome`).
    epochs, final_map: of the last evaluation. evals:
    "epoch:mAP" of each evaluation. images_per_s: the steady training rate of the whole system. doubt: why the row
    cannot be true, or "". round, source: see `origin_of`.
    start_s to rest_s: where the time went, in seconds (ssd.account.log_events); epoch_s: of one
    steady epoch. unusual: what stands out in it, in words, or "".
    """

    file: str
    submitter: str | None
    system: str | None
    division: str | None
    status: str
    time_to_train_min: float | None
    epochs: int | float | None
    final_map: float | None
    images_per_s: float | None
    global_batch: int | None
    base_lr: float | None
    weight_decay: float | None
    warmup_steps: int | None
    warmup_factor: float | None
    decay_epochs: list[int] | None
    bn_span: int | None
    seed: int | None
    init_min: float | None
    first_eval_epoch: int | float | None
    evals: str
    doubt: str
    resumed: bool
    width: float | None
    precision: str | None
    outcome: str
    round: str
    source: str
    start_s: float | None = None
    first_epoch_excess_s: float | None = None
    epoch_s: float | None = None
    evaluation_s: float | None = None
    rest_s: float | None = None
    unusual: str = ""


def read_result(path: Path, name: str | None = None) -> RunResult:
    """The row of one log. name: what its column `file` says. Raises DataError for a file that is no SSD result log."""
    records = read_records(path)
    values: dict[str, Any] = {}
    for record in records:
        values.setdefault(record.key, record.value)
    if values.get(constants.SUBMISSION_BENCHMARK) != constants.SSD:
        raise DataError(f"{path} is no MLPerf result log of SSD: no record says submission_benchmark ssd")
    evaluations = {
        r.metadata[constants.EPOCH_NUM]: r.value
        for r in records
        if r.key == constants.EVAL_ACCURACY and _is_number(r.metadata.get(constants.EPOCH_NUM)) and _is_number(r.value)
    }
    last = max(evaluations, default=None)
    stop = _last(records, constants.RUN_STOP)
    start = _first(records, constants.RUN_START)
    rate = _images_per_s(records, values.get(constants.TRAIN_SAMPLES))
    minutes = _minutes(start, stop)
    round_, source = origin_of(path, any(key.startswith(OUR_PREFIX) for key in values))
    return RunResult(
        file=str(path) if name is None else name,
        submitter=values.get(constants.SUBMISSION_ORG),
        system=values.get(constants.SUBMISSION_PLATFORM),
        division=values.get(constants.SUBMISSION_DIVISION),
        status="unfinished" if stop is None else stop.metadata.get(constants.STATUS, "unknown"),
        time_to_train_min=minutes,
        epochs=last,
        final_map=None if last is None else evaluations[last],
        images_per_s=rate,
        global_batch=values.get(constants.GLOBAL_BATCH_SIZE),
        base_lr=values.get(constants.OPT_BASE_LR),
        weight_decay=values.get(constants.OPT_WEIGHT_DECAY),
        warmup_steps=values.get(constants.OPT_LR_WARMUP_STEPS),
        warmup_factor=values.get(constants.OPT_LR_WARMUP_FACTOR),
        decay_epochs=values.get(constants.OPT_LR_DECAY_BOUNDARY_EPOCHS),
        bn_span=values.get(constants.MODEL_BN_SPAN),
        seed=values.get(constants.SEED),
        init_min=_minutes(_first(records, constants.INIT_START), _last(records, constants.INIT_STOP)),
        first_eval_epoch=min(evaluations, default=None),
        evals=" ".join(f"{epoch}:{evaluations[epoch]:.5f}" for epoch in sorted(evaluations)),
        doubt=_doubt(minutes, rate, None if last is None else evaluations[last]),
        resumed=RESUMED in values,
        width=values.get(WIDTH),
        precision=values.get(PRECISION),
        outcome=_outcome(records, stop),
        round=round_,
        source=source,
        **account_fields(records),
    )


def _outcome(records: Sequence[Record], stop: Record | None) -> str:
    """What became of a run. MLPerf's word "aborted" stands for a target that was not reached and for a run cut off.

    The first ends with an evaluation, in the second an epoch has begun since.
    """
    if stop is None:
        return "no run_stop"
    if stop.metadata.get(constants.STATUS) == constants.SUCCESS:
        return "reached the target"
    ends = [r.key for r in records if r.key in (constants.EVAL_ACCURACY, constants.EPOCH_START, constants.BLOCK_START)]
    return "target not reached" if ends and ends[-1] == constants.EVAL_ACCURACY else "ended early"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first(records: Iterable[Record], key: str) -> Record | None:
    return next((record for record in records if record.key == key), None)


def _last(records: Iterable[Record], key: str) -> Record | None:
    return next((record for record in reversed(list(records)) if record.key == key), None)


def _minutes(start: Record | None, stop: Record | None) -> float | None:
    return None if start is None or stop is None else round((stop.time_ms - start.time_ms) / 60_000, 3)


def _images_per_s(records: list[Record], train_samples: Any) -> float | None:
    """The steady training rate in images/s: images of an epoch over the median time of an epoch, from the third on.

    A log without epoch events gives the rate up to the first evaluation. The result is None where that rate cannot be
    true: some systems log eval_start when they queue an evaluation, long before the evaluation begins.
    """
    samples = train_samples if _is_number(train_samples) else TRAIN_SAMPLES[0]
    starts = {_epoch(record): record.time_ms for record in records if record.key == constants.EPOCH_START}
    stops = {_epoch(record): record.time_ms for record in records if record.key == constants.EPOCH_STOP}
    lengths = [stops[epoch] - starts[epoch] for epoch in sorted(starts.keys() & stops.keys() - {None}, key=str)]
    if lengths and (length := median(lengths[2:] or lengths)) > 0:
        return round(samples / length * 1000, 1)
    return _rate_to_first_evaluation(records, samples)


def _epoch(record: Record) -> Any:
    epoch = record.metadata.get(constants.EPOCH_NUM)
    return epoch if _is_number(epoch) else None


def _rate_to_first_evaluation(records: list[Record], samples: float) -> float | None:
    start, evaluation = _first(records, constants.RUN_START), _first(records, constants.EVAL_START)
    accuracy, last = _first(records, constants.EVAL_ACCURACY), _last(records, constants.EVAL_ACCURACY)
    if start is None or evaluation is None or accuracy is None or last is None or evaluation.time_ms <= start.time_ms:
        return None
    epoch, trained = _epoch(evaluation), _epoch(last)
    if epoch is None or trained is None or epoch != _epoch(accuracy) or last.time_ms <= start.time_ms:
        return None
    rate = samples * epoch / (evaluation.time_ms - start.time_ms) * 1000
    whole = samples * trained / (last.time_ms - start.time_ms) * 1000
    return round(rate, 1) if rate <= QUEUED * whole else None


QUEUED = 3
"""A rate to the first evaluation that is this many times the rate of the whole run cannot be true.

Evaluations never take two thirds of a run."""


def _doubt(minutes: float | None, rate: float | None, accuracy: Any) -> str:
    """Why a row cannot be true, or ""."""
    if minutes is not None and minutes <= 0:
        return "no time passes between run_start and run_stop"
    if rate is not None and rate > MOST_IMAGES_PER_S:
        return f"no system trains {rate:,.0f} images/s"
    if _is_number(accuracy) and not 0 <= accuracy <= 1:
        return f"mAP {accuracy}"
    return ""


MOST_IMAGES_PER_S = 1_000_000
"""Of a whole system. The fastest published one, 1,024 A100, trains 384,479."""


def find_logs(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The result logs that `paths` name, each with the name to show. A folder stands for all SSD logs in it.

    The logs of a folder are sorted by depth, then by name. A log of which there are copies comes once: the folder of a
    campaign holds each log twice or more. Raises DataError for an absent path or a folder without any.
    """
    for path in paths:
        if path.is_file():
            yield path, str(path)
            continue
        if not path.is_dir():
            raise DataError(f"{path}: no such file or folder")
        logs = [
            log for suffix in ("*.txt", "*.log") for log in path.rglob(suffix) if log.is_file() and _is_ssd_log(log)
        ]
        if not logs:
            raise DataError(f"{path}: no MLPerf result log of SSD (*.txt or *.log) in this folder")
        seen: set[bytes] = set()
        for log in sorted(logs, key=lambda log: (len(log.parts), log)):
            content = log.read_bytes()
            if content not in seen:
                yield log, str(log)
            seen.add(content)


def _is_ssd_log(path: Path) -> bool:
    return any(r.key == constants.SUBMISSION_BENCHMARK and r.value == constants.SSD for r in read_records(path))
