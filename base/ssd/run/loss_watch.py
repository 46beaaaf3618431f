"""Watching the loss without stopping the device: read back an interval late, shown, logged, never allowed to be NaN.

A loss that is infinite or not a number is seen by every rank at the same step, because the sum over ranks carries it.
The ranks then compare which of them met it first, and the run ends with the step, the epoch and the image ids.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.compute.ranks import Ranks
from ssd.errors import NotFiniteError
from ssd.run.progress import Clock, DelayedRead, Metrics, ProgressLine

__all__ = ["LossWatch"]


@dataclass(frozen=True)
class _Trained:
    step: int
    epoch: int
    image_ids: tuple[int, ...]
    losses: Tensor


class LossWatch:
    """Collects per-image losses (B,) of every micro-batch; `read` reports the mean of each interval of steps."""

    def __init__(
        self, device: torch.device, ranks: Ranks, clock: Clock, metrics: Metrics, line: ProgressLine, remembered: int
    ) -> None:
        """remembered: micro-batches whose image ids are kept, two intervals of them, to name the culprits."""
        self._ranks, self._clock, self._metrics, self._line = ranks, clock, metrics, line
        self._reader = DelayedRead(device)
        self._history: deque[_Trained] = deque(maxlen=remembered)
        self._sum = torch.zeros((), device=device, dtype=torch.float64)
        self._micro_batches = 0

    def add(self, step: int, epoch: int, image_ids: tuple[int, ...], losses: Tensor) -> None:
        """Note the losses of one micro-batch of optimizer step `step` (from 1). Stays on the device."""
        losses = losses.detach()
        self._sum += losses.mean()
        self._micro_batches += 1
        self._history.append(_Trained(step, epoch, image_ids, losses))

    def put(self, step: int, epoch: int, learning_rate: float, images: int) -> None:
        """End of an interval: start reading its mean loss over all ranks. images: trained so far, by all ranks."""
        mean = self._ranks.sum_(self._sum / (self._micro_batches * self._ranks.world))
        self._reader.put(mean, step=step, epoch=epoch, learning_rate=learning_rate, images=images)
        self._sum = torch.zeros_like(self._sum)
        self._micro_batches = 0

    def read(self, steps_left: int, global_batch: int, everything: bool = False) -> None:
        """Show and log the intervals that have arrived. Raises NotFiniteError on every rank."""
        for about, loss, at in self._reader.take(everything):
            if not math.isfinite(loss):
                raise self._culprits(loss)
            rate = self._clock.mark(about["images"], at)
            eta = steps_left * global_batch / rate if rate else math.nan
            self._metrics.write("train", loss=loss, images_per_s=round(rate, 3), **about)
            self._line.step(about["step"], about["epoch"], loss, about["learning_rate"], rate, eta)

    def _culprits(self, loss: float) -> NotFiniteError:
        first = None
        for trained in self._history:
            bad = (~torch.isfinite(trained.losses)).tolist()  # may stop the device: the run ends here
            if any(bad):
                ids = [image for image, is_bad in zip(trained.image_ids, bad, strict=True) if is_bad]
                first = (trained.step, trained.epoch, ids)
                break
        found = [one for one in self._ranks.gather(first) if one]
        step, epoch, ids = self._ranks.broadcast(min(found) if found else (0, 0, []))
        return NotFiniteError(
            f"the loss is {loss} at step {step}, epoch {epoch}, first for image ids {ids}. "
            "Look at those images' annotations, lower the learning rate, or lengthen the warm-up; with fp16 try bf16."
        )
