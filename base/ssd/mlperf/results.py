"""Any MLPerf SSD result log, ours or others', of any round -> one row of numbers: `python -m ssd results PATH...`.

Logs of the rounds differ: many ranks repeat their init lines, whatever the run printed stands around the records or
before one on its line, some keys are missing. So records are found wherever they stand, and what a log does not say
stays empty. Times are the rules' own: training is run_stop - run_start, set-up is init_stop - the first init_start.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from mlperf_logging.mllog import constants
from rich.table import Table

from ssd.errors import DataError
from ssd.mlperf.keys import PRECISION, RESUMED, WIDTH
from ssd.mlperf.limits import TRAIN_SAMPLES
from ssd.mlperf.records import Record, read_records

__all__ = [
    "MOST_IMAGES_PER_S",
    "RunResult",
    "as_csv",
    "as_json",
    "as_table",
    "find_logs",
    "read_result",
]


@dataclass(frozen=True)
class RunResult:
    """One run. Times in minutes; None where the log does not say.

    status: success, aborted, or unfinished (no run_stop). epochs, final_map: of the last evaluation. evals: "epoch:mAP"
    of every evaluation. images_per_s: of the whole system, while it trains steadily. doubt: why the row cannot be true,
    "" where it can.
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


def read_result(path: Path, name: str | None = None) -> RunResult:
    """One log's row; `name` is its `file`. Raises DataError when the file is no SSD result log."""
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
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first(records: Iterable[Record], key: str) -> Record | None:
    return next((record for record in records if record.key == key), None)


def _last(records: Iterable[Record], key: str) -> Record | None:
    return next((record for record in reversed(list(records)) if record.key == key), None)


def _minutes(start: Record | None, stop: Record | None) -> float | None:
    return None if start is None or stop is None else round((stop.time_ms - start.time_ms) / 60_000, 3)


def _images_per_s(records: list[Record], train_samples: Any) -> float | None:
    """The steady training rate: images of an epoch over the median epoch's time, from the third epoch on.

    Where a log has no epochs' events, the rate up to the first evaluation. None where that cannot be: some systems log
    eval_start when an evaluation is queued, long before it begins.
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
"""No run trains so many times as fast to its first evaluation as over all: evaluations never take two thirds of it."""


def _doubt(minutes: float | None, rate: float | None, accuracy: Any) -> str:
    """Why a row cannot be true; "" where nothing speaks against it."""
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
    """The result logs that paths name, each with the name to show: a file itself, of a folder all logs of SSD in it.

    A folder's logs come by depth, then by name, and copies once: a campaign's folder holds each log twice or more.
    Raises DataError for a path that is absent, and for a folder without any.
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


def as_json(results: Iterable[RunResult]) -> str:
    """A flat list, one object a log."""
    return json.dumps([asdict(result) for result in results], indent=2) + "\n"


def as_csv(results: Iterable[RunResult]) -> str:
    """A header and one line a log."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(RunResult)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    return text.getvalue()


def as_table(results: Sequence[RunResult]) -> Table:
    """What a reader compares, for a terminal; file names without the folder that all share."""
    shared = os.path.commonpath([os.path.dirname(result.file) for result in results]) if results else ""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("file", "system", "division"):
        table.add_column(name, overflow="fold")
    for name in ("minutes", "epochs", "mAP", "images/s", "batch"):
        table.add_column(name, justify="right")
    table.add_column("status")
    for r in results:
        status = (
            r.status + (", resumed" if r.resumed else "") + (f", width {r.width:g}" if r.width not in (None, 1) else "")
        )
        status += f"; cannot be true: {r.doubt}" if r.doubt else ""
        table.add_row(
            os.path.relpath(r.file, shared or "."),
            _text(r.system),
            _text(r.division),
            _text(r.time_to_train_min, ".2f"),
            _text(r.epochs),
            _text(r.final_map, ".4f"),
            _text(r.images_per_s, ",.0f"),
            _text(r.global_batch),
            status,
        )
    return table


def _text(value: Any, form: str = "") -> str:
    return "" if value is None else format(value, form)
