"""The optimizer steps of a run, taken as `ssd.train` takes them: to be profiled, or timed in blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

from ssd.run.live import Run
from ssd.run.schedule import learning_rate_at

__all__ = ["BLOCKS", "Steps", "step_seconds"]

BLOCKS, LEAST_BLOCKS = 5, 2
"""Steps are timed in blocks, between which the device is waited for. Slow steps get fewer blocks."""
WARM_UP = 2

Part = Callable[[str], AbstractContextManager[Any]]


class Steps:
    """Takes the steps of a run of one process. Nothing is evaluated, and epochs follow each other.

    part: makes a context for each part of a step, by the part's name: data, record, optimizer. step: computes a
    micro-batch in place of the run's own `Work.micro_batch`. Close it to end the loader's threads.
    """

    def __init__(
        self, run: Run, part: Part = lambda name: nullcontext(), step: Callable[[Any, bool], Any] | None = None
    ):
        self._run, self._part = run, part
        self._step = step or run.work.micro_batch
        self._batches = self._all_batches()

    def _all_batches(self) -> Iterator[Any]:
        for epoch in range(1, self._run.config.epochs + 1):
            with closing(self._run.loader.epoch(epoch)) as batches:
                yield from ((epoch, batch) for batch in batches)

    def take(self, count: int) -> int:
        """Train `count` optimizer steps, or fewer where the run has no more; how many it were."""
        run, config, part = self._run, self._run.config, self._part
        count = min(count, run.last_step - run.position.step)
        for _ in range(count):
            with part("step"):
                for micro in range(config.gradient_accumulation_steps):
                    with part("data"):
                        epoch, batch = next(self._batches)
                    last = micro + 1 == config.gradient_accumulation_steps
                    if last:  # before it: a graph may hold the optimizer too
                        for group in run.optimizer.param_groups:
                            group["lr"] = learning_rate_at(config, run.position.step, epoch)
                    losses = self._step(batch, last)
                    with part("record"):
                        run.watch.add(run.position.step + 1, epoch, batch.rows, losses)
                        run.steps.add(run.position.step + 1, epoch, micro, batch, losses)
                with part("optimizer"):
                    run.work.finish()
            run.position.step += 1
        return count

    def close(self) -> None:
        """End the loader's threads."""
        self._batches.close()  # type: ignore[attr-defined]


def step_seconds(run: Run, seconds: float) -> list[float]:
    """Seconds a step, of blocks of steps that take about `seconds` together, after a few steps that do not count.

    The device is waited for at the ends of a block alone, as in a run. A step that takes longer than `seconds` is timed
    twice all the same.
    """
    with closing(Steps(run)) as steps:
        steps.take(1)
        run.abilities.synchronize()
        begun = time.perf_counter()
        steps.take(WARM_UP - 1)
        run.abilities.synchronize()
        once = time.perf_counter() - begun
        size = max(1, int(seconds / BLOCKS / once))
        blocks = min(BLOCKS, max(LEAST_BLOCKS, int(seconds / once)))
        taken = []
        for _ in range(blocks):
            begun = time.perf_counter()
            count = steps.take(size)
            run.abilities.synchronize()
            if count:
                taken.append((time.perf_counter() - begun) / count)
        return taken
