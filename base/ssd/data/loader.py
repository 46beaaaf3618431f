"""Batches from JPEG files: decoded by threads, delivered in order, a bounded number ahead.

These are threads and not processes, because decoding and resizing release the GIL. So nothing is pickled or forked, and
a worker writes its pixels directly into the batch, which may be pinned memory. All random numbers come from the
sampler's stream of a position. So the number of threads changes the time and nothing else.

One thread at a time runs Python, so Python's time an image bounds the images/s of a process at any number of threads.
That is why a batch is drawn as a whole, and why a task has several images (bench/loader_python.py measures it).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.counts import IMAGE_SIZE
from ssd.data.batch import EvalBatch, TrainBatch
from ssd.data.decode import decoder, load_image
from ssd.data.decoded_cache import DecodedCache
from ssd.data.draws import Drawn, Sample, draw_sample, draw_samples
from ssd.data.folder import located
from ssd.data.index import Index
from ssd.data.reading import Reading
from ssd.data.sampler import Sampled, Sampler
from ssd.data.texts import Id
from ssd.errors import DataError

__all__ = [
    "EvalLoader",
    "Reading",
    "Skipped",
    "ThreadLoader",
    "collate",
    "eval_batch",
    "eval_rows",
    "in_order",
    "train_rows",
    "undecodable",
]

log = logging.getLogger(__name__)

Place = TypeVar("Place")
Key = TypeVar("Key")
Result = TypeVar("Result")
Batch = TypeVar("Batch")

TASK_IMAGES = 16
"""Images that a worker takes at once, where a batch has enough of them for all workers."""
MAX_STAND_INS = 10
"""With corrupt_images = skip, the number of stand-ins tried for one sample. If none can be decoded, the run stops."""


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be decoded and was replaced: its epoch and position, its image, and the reason."""

    epoch: int
    position: int
    image_id: Id
    reason: str


class ThreadLoader(Sampled):
    """Training batches of one process from a COCO folder (the protocol `ssd.data.TrainLoader`).

    index: the annotations. sampler: a sampler over the index's `train_rows`. reading: the files and threads. Raises
    DataError where no image has a box.

    With corrupt_images "skip", another sample stands in for a sample that cannot be decoded. The stand-in is drawn from
    a random stream of the same position, so it is the same in every run with that seed. It has a crop of its own.
    `skipped` records the sample that was replaced.

    Threads: the consumer of `epoch` owns `skipped`. A worker writes only the one image of a batch that it was given.
    """

    def __init__(self, index: Index, sampler: Sampler, reading: Reading) -> None:
        decoder()
        self.index, self.sampler, self.reading = index, sampler, reading
        self.rows = train_rows(index)
        decoded = reading.decoded_cache
        self.cache = DecodedCache(decoded, index, self.rows, reading.folder) if decoded else None
        self.skipped: list[Skipped] = []
        """The samples replaced so far, in the order of delivery."""

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """The micro-batches of `epoch` (counted from 1), from its optimizer step `first_step` on.

        Close the iterator to end the threads. After that, or after an exception, each of them finishes its image and
        ends.
        """
        batches = self.sampler.micro_batches(epoch, first_step)
        draw = partial(self._draw, epoch)
        return in_order(batches, draw, partial(self._load, epoch), self._collect, self.reading)

    def _draw(self, epoch: int, batch: Sequence[tuple[int, int]]) -> list[tuple[int, int, Drawn]]:
        """The position of each sample of a batch, its number, and what is drawn for it. Runs in a worker."""
        positions, numbers = np.array(batch, np.int64).T
        drawn = draw_samples(self.index, self.rows[numbers], self.sampler.streams(epoch, positions))
        return list(zip(positions.tolist(), numbers.tolist(), drawn, strict=True))

    def _load(self, epoch: int, key: tuple[int, int, Drawn], out: Tensor) -> tuple[Sample, list[Skipped]]:
        """Fill `out` (300, 300, 3) uint8 with the sample of `key`: its position in the epoch, number and draws.

        Returns the sample that was decoded, and the samples that it stands in for. Runs in a worker.
        """
        position, number, drawn = key
        skipped: list[Skipped] = []
        while True:
            try:
                return self._make(number, drawn, out), skipped
            except DataError as error:
                if self.reading.corrupt_images == "stop":
                    raise undecodable(error) from error
                if len(skipped) == MAX_STAND_INS:
                    raise DataError(
                        f"{len(skipped) + 1} images in a row cannot be decoded, the last: {error}"
                    ) from error
                skipped.append(Skipped(epoch, position, self.index.image_ids[drawn[0].row], str(error)))
                number, rng = self.sampler.stand_in(epoch, position, len(skipped) - 1)
                drawn = draw_sample(self.index, int(self.rows[number]), rng)

    def _make(self, number: int, drawn: Drawn, out: Tensor) -> Sample:
        """Decode the pixels of a drawn sample, which is that of `number`, into `out` (300, 300, 3) uint8."""
        sample, rectangle = drawn
        path, image_id, size = located(self.index, sample.row, self.reading.folder)
        if self.cache:
            self.cache.load(number, Path(path), image_id, out, rectangle)
        else:
            load_image(path, image_id, size, out, rectangle)
        return sample

    def _collect(self, images: Tensor, results: Sequence[tuple[Sample, list[Skipped]]]) -> TrainBatch:
        for _, skipped in results:
            for entry in skipped:
                log.warning("epoch %d: a sample was replaced: %s", entry.epoch, entry.reason)
                self.skipped.append(entry)
        return collate(images, [sample for sample, _ in results], self.reading.pin_memory)


def train_rows(index: Index) -> NDArray[np.int64]:
    """The rows (n,) int64 of the images that are trained on: those with a usable box. DataError where none has one."""
    rows = index.with_boxes()
    if not len(rows):
        raise DataError(f"{index.source}: no image has a box with a size; there is nothing to train on")
    return rows


def undecodable(error: DataError) -> DataError:
    """The error of a training image, with the remedy that exists for training images only."""
    return DataError(f"{error}, or leave such images out with corrupt_images = skip")


def collate(images: Tensor, samples: Sequence[Sample], pin_memory: bool = False) -> TrainBatch:
    """Join samples to a batch. images: (B, 300, 300, 3) uint8.

    Boxes and labels are padded with zeros to the largest number of boxes of a sample, which counts as 1 at least.
    """
    counts = np.array([len(sample.labels) for sample in samples])
    places = np.arange(max(1, counts.max())) < counts[:, None]
    boxes = np.zeros((*places.shape, 4), np.float32)
    labels = np.zeros(places.shape, np.int64)
    boxes[places] = np.concatenate([sample.boxes for sample in samples])
    labels[places] = np.concatenate([sample.labels for sample in samples])
    colours = [sample.colour for sample in samples]
    flip = np.array([colour.flip for colour in colours])
    factors = np.concatenate([colour.factors for colour in colours]).reshape(-1, 4)
    order = np.concatenate([colour.order for colour in colours]).reshape(-1, 4)

    def tensor(values: NDArray) -> Tensor:
        made = torch.from_numpy(values)
        return made.pin_memory() if pin_memory else made

    rows = tuple(sample.row for sample in samples)
    return TrainBatch(images, tensor(boxes), tensor(labels), tensor(flip), tensor(factors), tensor(order), rows)


def eval_rows(index: Index, which: Literal["with_boxes", "all"]) -> NDArray[np.int64]:
    """The rows (n,) int64 of the evaluated images: those with a usable box (4,952 of COCO's), or all (5,000)."""
    return index.with_boxes() if which == "with_boxes" else np.arange(len(index))


def eval_batch(index: Index, rows: NDArray[np.int64], images: Tensor) -> EvalBatch:
    """The batch of `images` (B, 300, 300, 3) uint8, which are those of `rows` (B,) int64 of the index."""
    return EvalBatch(images, tuple(rows.tolist()), torch.from_numpy(index.sizes[rows]))


class EvalLoader:
    """Evaluation batches of one process: whole images, each exactly once over all ranks.

    rows: (n,) int64, this rank's share of `eval_rows`. cache: keep the decoded images of this rank after the first
    pass. COCO's 5,000 images take 1.35 GB over all ranks. A file that cannot be decoded always stops the evaluation,
    whatever `reading.corrupt_images` says, because a score without that image would be the score of another set.

    Threads: the consumer of the iterator owns the kept batches. A worker writes only the one image that it was given.
    """

    def __init__(
        self, index: Index, rows: NDArray[np.int64], reading: Reading, *, batch_size: int, cache: bool = False
    ) -> None:
        decoder()
        self.index, self.rows, self.reading = index, rows, reading
        self.batch_size, self.cache = batch_size, cache
        self._kept: list[EvalBatch] = []

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[EvalBatch]:
        """The batches of this rank, in order. The last may be smaller. A rank without images has no batch."""
        if self._kept:
            yield from self._kept
            return
        starts = range(0, len(self.rows), self.batch_size)
        keys = ([int(row) for row in self.rows[start : start + self.batch_size]] for start in starts)
        kept = []
        for batch in in_order(keys, list, self._load, self._collect, self.reading):
            if self.cache:
                kept.append(batch)
            yield batch
        self._kept = kept

    def _load(self, row: int, out: Tensor) -> int:
        load_image(*located(self.index, row, self.reading.folder), out)
        return row

    def _collect(self, images: Tensor, rows: Sequence[int]) -> EvalBatch:
        return eval_batch(self.index, np.array(rows), images)


def in_order(
    batches: Iterable[Sequence[Place]],
    prepare: Callable[[Sequence[Place]], Sequence[Key]],
    load: Callable[[Key, Tensor], Result],
    collect: Callable[[Tensor, Sequence[Result]], Batch],
    reading: Reading,
) -> Generator[Batch, None, None]:
    """Make batches with threads, and yield them in the order of `batches`, each a list of places.

    prepare: called in a worker with the places of a batch, for one key a place. load: called in a worker with a key and
    the one image (300, 300, 3) uint8 of the batch that it has to fill. collect: called in the consumer's thread with
    all images (B, 300, 300, 3) uint8 of a batch and the results of `load`. At most `reading.prefetch` batches are
    prepared beyond the one that is due. An exception of `prepare` or `load` is raised when its batch is due.

    Threads: the consumer owns `ahead`, and it alone calls `collect` and draws from `batches`. A worker owns the images
    that it fills until its future is done. Tasks start in the order in which they are submitted. So a task that waits
    for the keys of its batch waits for a worker that waits for nothing.
    """
    pool = ThreadPoolExecutor(reading.num_workers, thread_name_prefix="ssd-decode")
    ahead: deque[tuple[Tensor, list[Future[list[Result]]]]] = deque()
    closed = threading.Event()

    def fill(keys: Future[Sequence[Key]], images: Sequence[Tensor], first: int) -> list[Result]:
        return [load(keys.result()[first + at], image) for at, image in enumerate(images) if not closed.is_set()]

    def finish() -> Batch:
        images, futures = ahead.popleft()
        return collect(images, [result for future in futures for result in future.result()])

    try:
        for batch in batches:
            images = torch.empty(
                len(batch), IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8, pin_memory=reading.pin_memory
            )
            keys, each = pool.submit(prepare, batch), images.unbind()
            size = max(1, min(TASK_IMAGES, len(batch) // reading.num_workers))
            parts = range(0, len(batch), size)
            ahead.append((images, [pool.submit(fill, keys, each[at : at + size], at) for at in parts]))
            if len(ahead) > reading.prefetch:
                yield finish()
        while ahead:
            yield finish()
    finally:
        closed.set()
        pool.shutdown(wait=True, cancel_futures=True)
