"""What a run keeps of each step, so that two runs can be held to each other: `compare A B --assert-equal`.

Of each optimizer step: the mean loss to the last bit, a hash of the ids of its images, and a hash of what was drawn for
them (boxes after the crop, labels, mirroring, colour jitter). None depends on how the step's images are shared out over
processes and micro-batches, so runs on different numbers of processes can be compared. With `record_norms` also the L2
norm of each parameter, once an interval.

The hashes are made of what lies on the host. Losses and norms are copied as the loss watch copies its own. The record
of an epoch is written when all of them have arrived, at the end of the next one where nothing waits for the device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.data import TrainBatch
from ssd.run.loss_watch import IdsByRow
from ssd.run.progress import DelayedRead, Metrics

__all__ = ["StepRecord", "hash_of_draws"]

Words = NDArray[np.uint64]


@dataclass
class _Step:
    """One step of one rank. Sums, so that ranks and micro-batches can be added. ids, draws: modulo 2**64."""

    ids: int = 0
    draws: int = 0
    epoch: int = 0
    images: int = 0
    losses: list[float] = field(default_factory=list)


class StepRecord:
    """Collects what is kept of the steps of an epoch, and writes it as one record `steps` of metrics.jsonl.

    `add` takes each micro-batch, `put` ends an interval of steps, and `write` comes at the end of an epoch or of a part
    of one. All ranks must come to `write`. Owner: the main thread.
    """

    def __init__(
        self,
        abilities: Abilities,
        ranks: Ranks,
        metrics: Metrics,
        image_ids: IdsByRow,
        parameters: Iterable[tuple[str, nn.Parameter]] = (),
    ) -> None:
        """abilities: of the device that the losses lie on. image_ids: the annotation file's ids, by row of the index.

        parameters: those whose norms are recorded.
        """
        self._ranks, self._metrics, self._image_ids = ranks, metrics, image_ids
        self._parameters = dict(parameters)
        self._reader = DelayedRead(abilities)
        self._hash_of_row: dict[int, int] = {}
        self._steps: dict[int, _Step] = {}
        self._interval: list[tuple[int, Tensor]] = []
        self._norms: dict[int, dict[str, float | None]] = {}

    def add(self, step: int, epoch: int, micro_batch: int, batch: TrainBatch, losses: Tensor) -> None:
        """Note micro-batch `micro_batch` (from 0) of optimizer step `step` (from 1), in `epoch`.

        losses (B,) float32 stay on the device; all of `batch` but its images must lie on the host.
        """
        size = len(batch.rows)
        places = (micro_batch * self._ranks.world_size + self._ranks.rank) * size + np.arange(size, dtype=np.uint64)
        kept = self._steps.setdefault(step, _Step(epoch=epoch))
        ids = np.array([self._hash_of_id(row) for row in batch.rows], np.uint64)
        kept.ids = (kept.ids + _sum_by_place(ids, places)) % 2**64
        kept.draws = (kept.draws + _sum_by_place(hash_of_draws(batch), places)) % 2**64
        kept.images += size
        self._interval.append((step, losses))

    def put(self, step: int) -> None:
        """End an interval after optimizer step `step`: start to read its losses, and the norms where they are kept."""
        about: dict[str, Any] = {"steps": [one for one, losses in self._interval for _ in range(len(losses))]}
        values = [losses for _, losses in self._interval]
        self._interval = []
        if self._parameters and self._ranks.is_rank_0:
            norms = [torch.linalg.vector_norm(one.detach().float()) for one in self._parameters.values()]
            about["norms_after"] = step
            values.append(torch.stack(norms))
        self._reader.put(torch.cat(values), about)  # together: every rank must have read as much as the others

    def write(self, wait: bool = True) -> None:
        """Write the steps that were not written, a record an epoch: those of the epochs whose losses have arrived.

        wait: all of them; this waits for the device. Waits for all ranks, which must call it at the same steps.
        """
        for one in self._reader.drain() if wait else self._reader.read():
            steps = one.about["steps"]
            for step, loss in zip(steps, one.value[: len(steps)], strict=True):
                self._steps[step].losses.append(loss)
            if (after := one.about.get("norms_after")) is not None:
                norms = map(_as_json, one.value[len(steps) :])
                self._norms[after] = dict(zip(self._parameters, norms, strict=True))
        # An epoch is complete where the last of its steps is: values arrive in the order in which they were put.
        last = {one.epoch: one for one in self._steps.values()}
        for epoch in [number for number, one in last.items() if len(one.losses) == one.images]:
            self._write(epoch)

    def _write(self, epoch: int) -> None:
        steps = {step: one for step, one in self._steps.items() if one.epoch == epoch}
        norms = {str(after): self._norms.pop(after) for after in sorted(self._norms.keys() & steps.keys())}
        of_ranks = self._ranks.gather(
            {step: (_sum(one.losses), one.images, one.ids, one.draws) for step, one in steps.items()}
        )
        self._steps = {step: one for step, one in self._steps.items() if one.epoch != epoch}
        if of_ranks:
            self._metrics.write("steps", epoch=epoch, **_joined(of_ranks), **({"norms": norms} if norms else {}))

    def _hash_of_id(self, row: int) -> int:
        if row not in self._hash_of_row:
            text = repr(self._image_ids[row]).encode("utf-8", "surrogatepass")
            self._hash_of_row[row] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        return self._hash_of_row[row]


def _joined(of_ranks: Sequence[dict[int, tuple[float, int, int, int]]]) -> dict[str, Any]:
    """The fields of a record: the steps of all ranks put together."""
    steps = sorted(of_ranks[0])
    together = [[one[step] for one in of_ranks] for step in steps]
    return {
        "first_step": steps[0],
        "loss": [_as_json(_sum([loss for loss, *_ in one]) / sum(images for _, images, *_ in one)) for one in together],
        "ids": [f"{sum(ids for _, _, ids, _ in one) % 2**64:016x}" for one in together],
        "draws": [f"{sum(draws for *_, draws in one) % 2**64:016x}" for one in together],
    }


def _sum(losses: Sequence[float]) -> float:
    """The sum of float32 values, rounded once, so that no cut of a step changes a bit; NaN where one is not finite."""
    return math.fsum(losses) if all(map(math.isfinite, losses)) else math.nan


def _as_json(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def hash_of_draws(batch: TrainBatch) -> Words:
    """(B,) uint64: of each sample, what was drawn for it and its boxes. Padding with zeros changes nothing.

    A sample's numbers are weighted by odd numbers that look random, and added up modulo 2**64: numpy does it for a
    whole batch at once, where a cryptographic hash would take a call a sample.
    """
    total = np.zeros(len(batch.rows), np.uint64)
    tensors = (batch.boxes, batch.labels, batch.flip, batch.factors, batch.order)
    for stream, tensor in enumerate(tensors):
        values = tensor.detach().numpy().reshape(len(batch.rows), -1)
        words = values.view(np.uint32) if values.dtype == np.float32 else values
        weights = _mixed(np.arange(words.shape[1], dtype=np.uint64) + np.uint64(stream << 32)) | np.uint64(1)
        total += (words.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    return total


def _sum_by_place(values: Words, places: Words) -> int:
    """The sum modulo 2**64 of samples' hashes (B,), each mixed with its place in the step (B,): order counts."""
    return int(_mixed(values + _mixed(places)).sum(dtype=np.uint64))


def _mixed(words: Words) -> Words:
    """Each word as another that looks random: the last steps of SplitMix64 (Steele et al. 2014)."""
    words = (words + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
