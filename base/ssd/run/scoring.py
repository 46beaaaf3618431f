"""Evaluations of a run: the model detects, and the detections are scored, at once or beside the next steps.

With the key `async_eval` the detections are gathered and scored in a thread while training goes on. Nothing that is
computed changes: the next steps do not depend on the score, and the weights that were evaluated are kept until it is
known. A run that has reached its target then ends, and its checkpoint and its picture are those of these weights.
The steps beyond them are lost, and their time counts.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ssd.config.resume import BEST
from ssd.run.evaluation import as_record, detect_all, evaluate
from ssd.run.live import Run
from ssd.run.notes import record_evaluation

__all__ = ["Scoring"]

Score: TypeAlias = "Future[tuple[np.ndarray, np.ndarray, float]]"
"""The statistics (12,) float64; the rows of all ranks, on rank 0; and the seconds that both took."""


@dataclass(frozen=True)
class _Pending:
    """An evaluation whose score is not known yet.

    step: the optimizer step after which it is. spent: this rank's seconds until its detections were there, by part.
    state: of the evaluated weights, on rank 0. score: the statistics and rows that `evaluate` gives, and seconds.
    """

    epoch: int
    step: int
    spent: dict[str, float]
    state: dict[str, Any] | None
    score: Score


class Scoring:
    """Evaluates the model of a run. Every rank must call each method, but `is_known`, at the same steps.

    rows: the detections of the last evaluation whose score is known, (n, 7) float64, a row as `ssd.run.evaluation`
    describes it, on rank 0; None before the first. beyond: optimizer steps done after the weights that reached the
    target. Owner: the main thread. The thread that scores reads the detections, which nobody writes.
    """

    def __init__(self, run: Run) -> None:
        """With `async_eval` the ranks form a group for the thread, so every rank must make one."""
        self._run = run
        self._pending: _Pending | None = None
        self._ranks = run.ranks.beside(run.config.collective_timeout) if run.config.async_eval else run.ranks
        self.rows: np.ndarray | None = None
        self.beyond = 0

    @property
    def is_pending(self) -> bool:
        """Whether an evaluation was begun whose score is not known to all ranks."""
        return self._pending is not None

    def is_known(self) -> bool:
        """Whether the score of the pending evaluation is known on this rank. It does not wait."""
        return self._pending is not None and self._run.ranks.is_rank_0 and self._pending.score.done()

    def begin(self, epoch: int) -> None:
        """Evaluate the model after `epoch`. With `async_eval` its score is not waited for: `settle` takes it."""
        run, timeline = self._run, self._run.clock.timeline
        config, source = run.config, run.source
        before = timeline.totals()
        run.records.events.eval_start(epoch)
        with run.clock.measure("evaluation"):
            rows = detect_all(
                run.model, source.loader, run.ops, run.defaults, run.abilities, config, timeline, run.work.detect
            )
            if not config.async_eval:
                statistics, self.rows = evaluate(source, rows, run.ranks, config.coco_metric, timeline)
            elif run.ranks.is_rank_0:
                state: dict[str, Any] | None = run.copied_state()
            else:
                state = None
        spent = timeline.since(before)
        if not config.async_eval:
            self._tell(epoch, run.position.step, statistics, spent)
            if config.keep_best and run.position.is_best():
                run.save(BEST)
            return
        score: Score = Future()
        # Of a daemon: a run that fails meanwhile ends, though the thread may wait for another process.
        threading.Thread(target=self._score, args=(rows, score), name="score", daemon=True).start()
        self._pending = _Pending(epoch, run.position.step, spent, state, score)

    def _score(self, rows: np.ndarray, score: Score) -> None:
        """Set the statistics and the rows of all ranks, and the seconds it took. Runs in the thread."""
        begun = time.perf_counter()
        try:
            statistics, everything = evaluate(self._run.source, rows, self._ranks, self._run.config.coco_metric)
            score.set_result((statistics, everything, time.perf_counter() - begun))
        except BaseException as error:  # raised again where the score is taken
            score.set_exception(error)

    def settle(self) -> bool:
        """Wait for the score of the pending evaluation, if there is one, and log it.

        Returns whether it has reached the target. Then the checkpoint of the evaluated weights has been written.
        """
        if (pending := self._pending) is None:
            return False
        run, self._pending = self._run, None
        with run.clock.measure("evaluation"), run.clock.timeline.part("eval_metric"):
            statistics, self.rows, seconds = pending.score.result()
        # Of the thread alone: what of it was waited for is in the account.
        self._tell(pending.epoch, pending.step, statistics, pending.spent, beside_s=round(seconds, 6))
        if run.config.keep_best and run.position.is_best():
            run.save(BEST, pending.state)
        reached = run.position.reached(run.config.threshold)
        if reached:
            self.beyond = run.position.step - pending.step
            run.save(state=pending.state)
        return reached

    def _tell(self, epoch: int, step: int, statistics: np.ndarray, spent: dict[str, float], **more: float) -> None:
        run, mean_ap = self._run, float(statistics[0])
        run.records.events.eval_accuracy(epoch, mean_ap)
        run.records.events.eval_stop(epoch)
        run.position.evaluations.append((epoch, mean_ap))
        record_evaluation(run, epoch, step, spent, as_record(statistics), **more)
        run.records.line.scored(epoch, mean_ap)
