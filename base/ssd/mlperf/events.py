"""The result log of a run: the records that MLPerf's rules ask for, one a line, in the order in which a run happens.

mlperf-logging's mllog makes the lines. Rank 0 alone writes them, to a file of their own, because the official parsers
lose two records on one line and text behind a record. No logger is registered with `logging`, so two runs in one
process cannot mix their records. train.py calls the methods below at the moments that their names say; it knows no key
of the rules. Keys that begin with `ssd_` are this project's (keys.py). The official checkers skip such keys, and
package_check.py reads them.

    with EventWriter(folder / "result_0.txt") as events:
        events.submission_info(facts)
        events.cache_clear(done=True)
        events.init_start()
        ...                                     # everything slow that needs no data
        events.hyperparameters(facts)
        events.weights_initialization(name for name, _ in model.named_parameters())
        events.init_stop()
        events.run_start()                      # the clock runs; now the data may be touched
        events.block_start(1, 5)
        events.epoch_start(1) ... events.epoch_stop(1)
        events.block_stop(1), events.eval_start(5), events.eval_accuracy(5, 0.04), events.eval_stop(5)
        events.run_stop("success")
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from mlperf_logging.mllog import constants
from mlperf_logging.mllog.mllog import MLLogger

from ssd import __version__
from ssd.counts import DRAWS
from ssd.errors import ConfigError
from ssd.mlperf.keys import BACKBONE, DECODED_CACHE, DRAWN, MOMENTUM, PRECISION, RESUMED, TARGET, VERSION, WIDTH
from ssd.mlperf.lines import Lines, keep_whole_lines
from ssd.mlperf.tensors import mlperf_tensor_names

__all__ = ["CACHES_DROPPED_VARIABLE", "EventWriter", "RunFacts"]

CACHES_DROPPED_VARIABLE = "SSD_CACHES_DROPPED"
"""Environment variable that a campaign sets to "1" for a run before which it dropped the machine's file caches."""

CROP_ATTEMPTS = 1
"""`max_samples`: crops tried for each drawn overlap option (the reference tries one before it draws another option)."""

_BASE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunFacts:
    """What the log says about a run before the run starts. The values are plain, so this room needs no other room.

    base_learning_rate: the rate after warm-up. batch_norm_span: number of images that share batch-norm statistics.
    backbone_sha256: hexadecimal, "" when training starts from scratch. train_samples, eval_samples: number of images,
    each counted once. decoded_cache: the kind of file system that holds decoded training images, "" where none does.
    """

    submitter: str
    system: str
    division: Literal["open", "closed"]
    seed: int
    global_batch: int
    batch_norm_span: int
    gradient_accumulation_steps: int
    base_learning_rate: float
    weight_decay: float
    momentum: float
    warmup_steps: int
    warmup_factor: float
    decay_epochs: tuple[int, ...]
    decay_factor: float
    train_samples: int
    eval_samples: int
    target_map: float
    width: float = 1.0
    backbone_sha256: str = ""
    precision: str = "fp32"
    decoded_cache: str = ""
    status: Literal["onprem", "cloud", "preview", "research"] = "onprem"

    def records(self) -> dict[str, Any]:
        """The seed and everything the rules limit, by the log's keys, in the log's order."""
        return {
            constants.SEED: self.seed,
            constants.GLOBAL_BATCH_SIZE: self.global_batch,
            constants.GRADIENT_ACCUMULATION_STEPS: self.gradient_accumulation_steps,
            constants.MODEL_BN_SPAN: self.batch_norm_span,
            constants.OPT_NAME: constants.SGD,
            constants.OPT_BASE_LR: self.base_learning_rate,
            constants.OPT_WEIGHT_DECAY: self.weight_decay,
            constants.OPT_LR_WARMUP_STEPS: self.warmup_steps,
            constants.OPT_LR_WARMUP_FACTOR: self.warmup_factor,
            constants.OPT_LR_DECAY_BOUNDARY_EPOCHS: list(self.decay_epochs),
            constants.OPT_LR_DECAY_FACTOR: self.decay_factor,
            constants.MAX_SAMPLES: CROP_ATTEMPTS,
            constants.TRAIN_SAMPLES: self.train_samples,
            constants.EVAL_SAMPLES: self.eval_samples,
            MOMENTUM: self.momentum,
            TARGET: self.target_map,
            WIDTH: self.width,
            BACKBONE: self.backbone_sha256,
            PRECISION: self.precision,
            VERSION: __version__,
            DRAWN: DRAWS,
            **({DECODED_CACHE: self.decoded_cache} if self.decoded_cache else {}),
        }


class EventWriter:
    """Writes a run's result log. Where `path` is None (every rank but rank 0), all methods are no-ops.

    append: continue the log of an interrupted run. The records up to its run_start are not repeated. `ssd_resumed`
        marks the log, because no round accepts a resumed run. A log without run_start is written from its beginning.
    clock: returns the time of each record, in milliseconds since 1970. It is given only to replay a run.

    Leaving a `with` block without `run_stop` logs status "aborted". Raises ConfigError when the log exists and `append`
    is false, OSError or ValueError when a record cannot be written.
    """

    def __init__(self, path: Path | None, *, append: bool = False, clock: Callable[[], int] | None = None) -> None:
        self.path = path
        self.resumed = False
        self._clock = clock
        self._begun = self._stopped = False
        self._file: TextIO | None = None
        self._log: MLLogger | None = None
        if path is None:
            return
        if path.exists() and not append:
            raise ConfigError(f"{path} exists: a result log is never overwritten; choose another --output, or --resume")
        self.resumed = path.exists() and keep_whole_lines(path)
        self._file = path.open("a" if self.resumed else "w", encoding="utf-8")
        # Logger() and not getLogger(): then no registry keeps it, and no other handler sees its records.
        logger = logging.Logger("ssd.mlperf.result", logging.INFO)
        logger.addHandler(Lines(self._file))
        self._log = MLLogger(logger, root_dir=re.escape(str(_BASE)))
        if self.resumed:
            self.event(RESUMED, True)
            self._begun = True

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Where an error is on its way, the disk may refuse this record for the same reason: the first error is the one.
        with suppress(OSError) if error else nullcontext():
            if self._begun and not self._stopped:
                self.run_stop("aborted")
        with suppress(OSError) if error else nullcontext():
            self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        file, self._file, self._log = self._file, None, None
        if file is not None:
            file.close()

    # Single records, by the rules' keys

    def start(
        self, key: str, value: Any = None, metadata: dict[str, Any] | None = None, time_ms: int | None = None
    ) -> None:
        """Log the beginning of an interval."""
        self._write("start", key, value, metadata, time_ms)

    def end(
        self, key: str, value: Any = None, metadata: dict[str, Any] | None = None, time_ms: int | None = None
    ) -> None:
        """Log the end of an interval."""
        self._write("end", key, value, metadata, time_ms)

    def event(
        self, key: str, value: Any = None, metadata: dict[str, Any] | None = None, time_ms: int | None = None
    ) -> None:
        """Log a point in time."""
        self._write("event", key, value, metadata, time_ms)

    def _write(self, kind: str, key: str, value: Any, metadata: dict[str, Any] | None, time_ms: int | None) -> None:
        if self._log is None:
            return
        if time_ms is None and self._clock is not None:
            time_ms = self._clock()
        # `file` and `lineno` of a record name the caller's line: the first frame outside this file.
        frames, frame = 2, sys._getframe(1)
        while frame.f_code.co_filename == __file__ and frame.f_back is not None:
            frames, frame = frames + 1, frame.f_back
        getattr(self._log, kind)(key, value, metadata=metadata, time_ms=time_ms, stack_offset=frames)

    # The run, in the order it happens

    def submission_info(self, facts: RunFacts) -> None:
        """Before all other records: who submits which system."""
        self._begun = True
        if self.resumed:
            return
        self.event(constants.SUBMISSION_BENCHMARK, constants.SSD)
        self.event(constants.SUBMISSION_ORG, facts.submitter)
        self.event(constants.SUBMISSION_DIVISION, facts.division)
        self.event(constants.SUBMISSION_STATUS, facts.status)
        self.event(constants.SUBMISSION_PLATFORM, facts.system)

    def cache_clear(self, done: bool) -> None:
        """Before init_start: whether the machine's file caches were dropped for this run."""
        if not self.resumed:
            self.event(constants.CACHE_CLEAR, done)

    def init_start(self) -> None:
        """At the start of all set-up. The rules allow 30 minutes until init_stop (20 minutes in round 0.7)."""
        if not self.resumed:
            self.start(constants.INIT_START)

    def hyperparameters(self, facts: RunFacts) -> None:
        """Once during set-up: the seed, and each value that the rules limit."""
        if self.resumed:
            return
        for key, value in facts.records().items():
            self.event(key, value)

    def weights_initialization(self, parameters: Iterable[str]) -> None:
        """During set-up, in the closed division: one record a tensor that the rules name.

        parameters: the names of the model's parameters, in the model's order.
        """
        if not self.resumed:
            for tensor in dict.fromkeys(mlperf_tensor_names(parameters).values()):
                self.event(constants.WEIGHTS_INITIALIZATION, metadata={"tensor": tensor})

    def init_stop(self) -> None:
        """At the end of set-up."""
        if not self.resumed:
            self.end(constants.INIT_STOP)

    def run_start(self) -> None:
        """Before the first training image is read. The time of the result is counted from here."""
        if not self.resumed:
            self.start(constants.RUN_START)

    def block_start(self, first_epoch: int, epochs: int) -> None:
        """Before the epochs (counted from 1) that lie between two evaluations."""
        self.start(constants.BLOCK_START, metadata={"first_epoch_num": first_epoch, "epoch_count": epochs})

    def block_stop(self, first_epoch: int) -> None:
        """After the block's last epoch."""
        self.end(constants.BLOCK_STOP, metadata={"first_epoch_num": first_epoch})

    def epoch_start(self, epoch: int) -> None:
        """Before an epoch, counted from 1."""
        self.start(constants.EPOCH_START, metadata={"epoch_num": epoch})

    def epoch_stop(self, epoch: int) -> None:
        """After the last step of `epoch`."""
        self.end(constants.EPOCH_STOP, metadata={"epoch_num": epoch})

    def eval_start(self, epoch: int) -> None:
        """Before the evaluation after `epoch`."""
        self.start(constants.EVAL_START, metadata={"epoch_num": epoch})

    def eval_accuracy(self, epoch: int, mean_ap: float) -> None:
        """COCO bbox mAP, 0..1, not rounded."""
        self.event(constants.EVAL_ACCURACY, mean_ap, {"epoch_num": epoch})

    def eval_stop(self, epoch: int) -> None:
        """After the evaluation after `epoch`."""
        self.end(constants.EVAL_STOP, metadata={"epoch_num": epoch})

    def run_stop(self, status: Literal["success", "aborted"]) -> None:
        """The time of the result ends here. status: "success" when the target was reached, else "aborted"."""
        self._stopped = True
        self.end(constants.RUN_STOP, metadata={"status": status})
