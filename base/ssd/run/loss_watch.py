"""Watches the loss of a run without synchronising with the device: the loss is shown and logged one interval late.

Every rank sees a loss that is infinite or NaN at the same step, because the sum over the ranks becomes infinite or NaN.
The ranks then compare which of them had it first. The run ends with a message that names step, epoch and image ids.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.errors import NotFiniteError
from ssd.run.line import ProgressLine
from ssd.run.progress import Arrived, Clock, DelayedRead, Metrics

__all__ = ["LossWatch"]


class IdsByRow(Protocol):
    """Ids of images, looked up by their row."""

    def __getitem__(self, row: int, /) -> int | str:
        """The id of the image in `row`."""
        ...


@dataclass(frozen=True)
class _Trained:
    step: int
    epoch: int
    rows: tuple[int, ...]
    losses: Tensor


class LossWatch:
    """Collects the losses (B,) float32 of every micro-batch, and reports the mean of each interval of steps.

    `put` ends an interval. It takes everything that the report will contain, so the report does not depend on the time
    at which it is read. `read` reports the intervals whose value has arrived, and never waits for the device. `drain`
    reports all intervals, and waits for the device. Call it at the end of an epoch. Both raise NotFiniteError, on every
    rank at the same call.
    """

    def __init__(
        self,
        abilities: Abilities,
        ranks: Ranks,
        clock: Clock,
        metrics: Metrics,
        line: ProgressLine,
        *,
        image_ids: IdsByRow,
        remembered: int,
        last_step: int,
        global_batch: int,
    ) -> None:
        """abilities: of the device that the losses lie on. Without float64 there, an interval is summed in float32.

        image_ids: the annotation file's ids, by row of the index, to name the culprits.

        remembered: micro-batches whose rows are kept for that. It must cover two intervals.

        last_step: the last optimizer step of the run, for the time that is left. global_batch: images a step.
        """
        self._ranks, self._clock, self._metrics, self._line = ranks, clock, metrics, line
        self._last_step, self._global_batch = last_step, global_batch
        self._image_ids = image_ids
        self._reader = DelayedRead(abilities)
        self._history: deque[_Trained] = deque(maxlen=remembered)
        dtype = torch.float64 if abilities.float64 else torch.float32
        self._sum = torch.zeros((), device=abilities.device, dtype=dtype)
        self._micro_batches = 0

    def add(self, step: int, epoch: int, rows: tuple[int, ...], losses: Tensor) -> None:
        """Note the losses (B,) float32 of one micro-batch of optimizer step `step` (from 1). They stay on the device.

        rows: the images' rows in the index.
        """
        losses = losses.detach()
        self._sum += losses.mean()
        self._micro_batches += 1
        self._history.append(_Trained(step, epoch, rows, losses))

    def put(self, step: int, epoch: int, learning_rate: float) -> None:
        """End an interval after optimizer step `step`, and start to read its mean loss over all ranks."""
        mean = self._ranks.sum_(self._sum / (self._micro_batches * self._ranks.world_size))
        about = {"step": step, "epoch": epoch, "learning_rate": learning_rate, "images": step * self._global_batch}
        self._reader.put(mean, about, self._clock.paused())
        self._sum = torch.zeros_like(self._sum)
        self._micro_batches = 0

    def read(self) -> None:
        """Show and log the intervals whose value has arrived. Raises NotFiniteError."""
        self._report(self._reader.read())

    def drain(self) -> None:
        """Show and log every interval that was put. It synchronises with the device. Raises NotFiniteError."""
        self._report(self._reader.drain())

    def _report(self, arrived: Iterator[Arrived]) -> None:
        for one in arrived:
            if not math.isfinite(one.value):
                raise self._culprits(one.value)
            rate = self._clock.mark(one.about["images"], one.at, one.paused) or None
            left = (self._last_step - one.about["step"]) * self._global_batch
            self._metrics.write("train", loss=one.value, images_per_s=rate and round(rate, 3), **one.about)
            self._line.step(
                one.about["step"],
                one.about["epoch"],
                one.value,
                one.about["learning_rate"],
                rate,
                left / rate if rate else None,
            )

    def _culprits(self, loss: float) -> NotFiniteError:
        """The error that names the first bad loss of all ranks. Reads the device: the run ends here."""
        first = None
        for trained in self._history:
            bad = (~torch.isfinite(trained.losses)).tolist()
            if any(bad):
                ids = [self._image_ids[row] for row, is_bad in zip(trained.rows, bad, strict=True) if is_bad]
                first = (trained.step, trained.epoch, ids)
                break
        found = [one for one in self._ranks.gather(first) if one]
        step, epoch, ids = self._ranks.broadcast(min(found) if found else (0, 0, []))
        return NotFiniteError(
            f"the loss is {loss} at step {step}, epoch {epoch}, first for image ids {ids}. "
            "Look at those images' annotations, lower the learning rate, or lengthen the warm-up; with fp16 try bf16."
        )
