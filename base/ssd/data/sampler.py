"""Which sample is at which position of an epoch, and the random stream of each position.

Both depend on seed, epoch and position alone. An epoch is a permutation of the N samples. It is cut into optimizer
steps of G = batch * world_size * accumulation positions. The last step is filled from the start of the same
permutation, so every step is full. In step s, rank r takes these positions for its micro-batch a:

    s * G + (a * world_size + r) * batch  ...  + batch - 1        (world_size 2, batch 2, accumulation 2, G = 8)

    position   0 1 | 2 3 | 4 5 | 6 7 || 8 9 | ...
    rank        0  |  1  |  0  |  1  ||  0  |
    micro-batch 0  |  0  |  1  |  1  ||  0  |         || ends a step

So the samples of a step do not depend on how they are divided into ranks and micro-batches. A sample that is repeated
has another position, and so another random stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.counts import steps_per_epoch
from ssd.data.streams import Streams

__all__ = ["Sampled", "Sampler"]

# The first number of every seed. So an epoch's order, its samples and their stand-ins never share a stream.
_ORDER, _SAMPLE, _STAND_IN = 1, 2, 3


@dataclass(frozen=True)
class Sampler:
    """The order of samples for one rank.

    samples: the number N of samples. batch: samples of a micro-batch. rank: this process, of world_size processes.
    accumulation: micro-batches of an optimizer step. Raises ValueError for a number that cannot be.
    """

    samples: int
    batch: int
    seed: int
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    def __post_init__(self) -> None:
        if (
            min(self.samples, self.batch, self.world_size, self.accumulation) < 1
            or not 0 <= self.rank < self.world_size
        ):
            raise ValueError(f"an epoch needs samples, a batch, and a rank below world_size, but got {self}")

    @property
    def global_batch(self) -> int:
        """Samples of one optimizer step over all processes."""
        return self.batch * self.world_size * self.accumulation

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return steps_per_epoch(self.samples, self.global_batch)

    @property
    def repeats(self) -> int:
        """The number of samples that are seen twice, to fill the last step."""
        return self.steps * self.global_batch - self.samples

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The epoch's permutation (N,) int64 of 0..N-1, the same on every rank."""
        return np.random.default_rng((_ORDER, self.seed, epoch)).permutation(self.samples)

    def micro_batches(self, epoch: int, first_step: int = 0) -> Iterator[list[tuple[int, int]]]:
        """A list of (position, sample) for each micro-batch of this rank, from optimizer step `first_step` on."""
        if not 0 <= first_step <= self.steps:
            raise ValueError(f"first_step = {first_step}, but an epoch has {self.steps} steps")
        order = self.order(epoch)
        for step in range(first_step, self.steps):
            for micro in range(self.accumulation):
                start = step * self.global_batch + (micro * self.world_size + self.rank) * self.batch
                yield [(p, int(order[p % self.samples])) for p in range(start, start + self.batch)]

    def stream(self, epoch: int, position: int) -> np.random.Generator:
        """The random stream of the sample at a position of an epoch."""
        return np.random.default_rng((_SAMPLE, self.seed, epoch, position))

    def streams(self, epoch: int, positions: NDArray[np.int64]) -> Streams:
        """The random streams of the samples at positions (n,) int64 of an epoch: `stream` of each."""
        return Streams((_SAMPLE, self.seed, epoch), positions)

    def stand_in(self, epoch: int, position: int, attempt: int) -> tuple[int, np.random.Generator]:
        """The sample that replaces one that cannot be decoded, and its random stream. attempt: counts from 0."""
        rng = np.random.default_rng((_STAND_IN, self.seed, epoch, position, attempt))
        return int(rng.integers(self.samples)), rng


class Sampled:
    """The properties that every loader takes from its sampler (part of the protocol `ssd.data.TrainLoader`)."""

    sampler: Sampler

    @property
    def samples(self) -> int:
        """The number of training images over all processes."""
        return self.sampler.samples

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self.sampler.steps

    @property
    def repeats(self) -> int:
        """The number of samples that an epoch sees twice, over all processes."""
        return self.sampler.repeats
