"""How many images a second this host turns from JPEG files into batches: on one core, and on all."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ssd.data.index import Index
from ssd.data.loader import Reading, ThreadLoader, train_rows
from ssd.data.sampler import Sampler

__all__ = ["decoded_per_second", "epochs", "jpeg_loader"]


def jpeg_loader(index: Index, folder: Path, workers: int, batch: int) -> ThreadLoader:
    """The backend `threads` over the images of `index` in `folder`, as a run makes it."""
    return ThreadLoader(index, Sampler(len(train_rows(index)), batch, seed=0), Reading(folder, num_workers=workers))


def epochs(loader: ThreadLoader) -> Callable[[], int]:
    """A call that takes every batch of the loader's next epoch, and returns the number of its images."""
    numbers = iter(range(1, 10**6))
    return lambda: sum(len(batch.rows) for batch in loader.epoch(next(numbers)))


def decoded_per_second(
    loader: ThreadLoader, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, int]:
    """Images a second that the loader delivers, and their number. It is asked for batches for `seconds`.

    clock: `time.process_time` gives images a second of CPU time, which is the rate of one core however busy it is. The
    clock begins when the first batch is there, and batches are made ahead then. One batch at least is counted.
    """
    images, epoch, begun, end = 0, 0, None, time.perf_counter() + seconds
    while True:
        epoch += 1
        with closing(loader.epoch(epoch)) as batches:
            for batch in batches:
                if begun is None:
                    begun = clock()
                    continue
                images += len(batch.rows)
                if time.perf_counter() >= end:
                    return images / max(clock() - begun, 1e-9), images
