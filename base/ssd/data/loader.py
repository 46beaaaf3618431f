"""Batches from JPEG files: decoded by threads, delivered in order, a bounded number ahead.

Threads and not processes, as decoding and resizing hold no GIL: nothing is pickled, shared or forked, and a worker
writes straight into the batch it works for (pinned memory, where asked). What is random comes from the sampler's stream
of a position, so the number of threads changes nothing but the time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.counts import IMAGE_SIZE
from ssd.data.batch import EvalBatch, TrainBatch
from ssd.data.crop import ColourDraw, draw_colour, draw_crop, mirror
from ssd.data.decode import load_image
from ssd.data.index import Index
from ssd.data.sampler import Sampled, Sampler
from ssd.data.texts import Id
from ssd.errors import DataError

__all__ = [
    "EvalLoader",
    "Reading",
    "Sample",
    "Skipped",
    "ThreadLoader",
    "collate",
    "draw_sample",
    "eval_batch",
    "eval_rows",
    "in_order",
    "train_rows",
    "undecodable",
]

log = logging.getLogger(__name__)

Key = TypeVar("Key")
Result = TypeVar("Result")
Batch = TypeVar("Batch")

MAX_STAND_INS = 10
"""Stand-ins tried for one sample before a set this damaged stops the run even with corrupt_images=skip."""


@dataclass(frozen=True)
class Sample:
    """All of a training sample but its pixels: boxes (n, 4) float32 ltrb, mirrored already; labels (n,) int64.

    row: of the image in the index.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    colour: ColourDraw
    row: int


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be decoded and was replaced: where it stood, and what was wrong with it."""

    epoch: int
    position: int
    image_id: Id
    reason: str


@dataclass(frozen=True)
class Reading:
    """How image files are read. folder: where the file names of an index lie. num_workers: decoding threads.

    prefetch: batches made ahead. corrupt_images: "stop" raises the DataError of a training image that cannot be
    decoded, "skip" does without it. pin_memory: give batches in page-locked memory.
    """

    folder: Path
    num_workers: int = 4
    prefetch: int = 2
    corrupt_images: Literal["stop", "skip"] = "stop"
    pin_memory: bool = False


class ThreadLoader(Sampled):
    """Training batches of one process from a COCO folder (the protocol `ssd.data.TrainLoader`).

    index: annotations. sampler: over its `train_rows`. reading: files and threads; with corrupt_images "skip", another
    sample takes the place of one that cannot be decoded, drawn from a stream keyed by its position (so the same in
    every run of that seed) with a crop of its own, and `skipped` records it. DataError when no image has a box.
    The consumer's thread alone writes `skipped`; a worker writes only the one image of a batch that it was given.
    """

    def __init__(self, index: Index, sampler: Sampler, reading: Reading) -> None:
        self.index, self.sampler, self.reading = index, sampler, reading
        self.rows = train_rows(index)
        self.skipped: list[Skipped] = []
        """Samples replaced so far, in the order of their delivery."""

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """Micro-batches of `epoch` (from 1), from optimizer step `first_step` of it on.

        Closing the iterator, or an exception, ends the threads within one image's time.
        """
        keys = ([(epoch, *place) for place in batch] for batch in self.sampler.micro_batches(epoch, first_step))
        return in_order(keys, self._load, self._collect, self.reading)

    def _load(self, key: tuple[int, int, int], out: Tensor) -> tuple[Sample, list[Skipped]]:
        """Fill `out` with the sample at (epoch, position, sample number), or with its stand-in."""
        epoch, position, number = key
        rng = self.sampler.stream(epoch, position)
        skipped: list[Skipped] = []
        while True:
            row = int(self.rows[number])
            try:
                return self._make(row, rng, out), skipped
            except DataError as error:
                if self.reading.corrupt_images == "stop":
                    raise undecodable(error) from error
                if len(skipped) == MAX_STAND_INS:
                    raise DataError(
                        f"{len(skipped) + 1} images in a row cannot be decoded, the last: {error}"
                    ) from error
                skipped.append(Skipped(epoch, position, self.index.image_ids[row], str(error)))
                number, rng = self.sampler.stand_in(epoch, position, len(skipped) - 1)

    def _make(self, row: int, rng: np.random.Generator, out: Tensor) -> Sample:
        """Draw a sample's crop and colours, and decode its pixels into `out`."""
        sample, rectangle = draw_sample(self.index, row, rng)
        path = self.reading.folder / self.index.file_names[row]
        load_image(path, self.index.image_ids[row], tuple(self.index.sizes[row].tolist()), out, rectangle)
        return sample

    def _collect(self, images: Tensor, results: Sequence[tuple[Sample, list[Skipped]]]) -> TrainBatch:
        for _, skipped in results:
            for entry in skipped:
                log.warning("epoch %d: a sample was replaced: %s", entry.epoch, entry.reason)
                self.skipped.append(entry)
        return collate(images, [sample for sample, _ in results], self.reading.pin_memory)


def train_rows(index: Index) -> NDArray[np.int64]:
    """Rows of the images that are trained on: those with a usable box. DataError when there is none."""
    rows = index.with_boxes()
    if not len(rows):
        raise DataError(f"{index.source}: no image has a box with a size; there is nothing to train on")
    return rows


def undecodable(error: DataError) -> DataError:
    """The error of a training image, with the remedy that training images alone have."""
    return DataError(f"{error}, or leave such images out with corrupt_images = skip")


def draw_sample(index: Index, row: int, rng: np.random.Generator) -> tuple[Sample, tuple[int, int, int, int]]:
    """All of a training sample but its pixels, and the rectangle they are cut from (left, top, right, bottom).

    One stream, in the order drawn.
    """
    width, height = index.sizes[row].tolist()
    crop = draw_crop(rng, *index.image_boxes(row))
    colour = draw_colour(rng)
    boxes = mirror(crop.boxes) if colour.flip else crop.boxes
    return Sample(boxes, crop.labels, colour, row), crop.pixels(width, height)


def collate(images: Tensor, samples: Sequence[Sample], pin_memory: bool = False) -> TrainBatch:
    """Samples to one batch: boxes zero-padded to the most of any of them, at least one."""
    most = max(1, *(len(sample.labels) for sample in samples))
    boxes = torch.zeros(len(samples), most, 4, pin_memory=pin_memory)
    labels = torch.zeros(len(samples), most, dtype=torch.int64, pin_memory=pin_memory)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.boxes)] = torch.from_numpy(sample.boxes)
        labels[row, : len(sample.labels)] = torch.from_numpy(sample.labels)
    colours = [sample.colour for sample in samples]
    flip = torch.tensor([colour.flip for colour in colours])
    factors = torch.from_numpy(np.stack([colour.factors for colour in colours]))
    order = torch.from_numpy(np.stack([colour.order for colour in colours]))
    if pin_memory:
        flip, factors, order = flip.pin_memory(), factors.pin_memory(), order.pin_memory()
    return TrainBatch(images, boxes, labels, flip, factors, order, tuple(sample.row for sample in samples))


def eval_rows(index: Index, which: Literal["with_boxes", "all"]) -> NDArray[np.int64]:
    """Rows of the evaluated images: those with a usable box (4,952 of COCO's), or all (5,000)."""
    return index.with_boxes() if which == "with_boxes" else np.arange(len(index))


def eval_batch(index: Index, rows: NDArray[np.int64], images: Tensor) -> EvalBatch:
    """The batch of the images (B, 300, 300, 3) uint8 that stand in these rows of the index."""
    return EvalBatch(images, tuple(rows.tolist()), torch.from_numpy(index.sizes[rows]))


class EvalLoader:
    """Evaluation batches of one process: whole images, every one exactly once over all ranks (shares differ by one).

    rows: those of this rank, of `eval_rows`. cache: keep the decoded images of this rank after the first pass (COCO's
    5,000 take 1.35 GB over all ranks). A file that cannot be decoded always stops the evaluation, whatever
    `reading.corrupt_images` says: its score would be of another set.
    The consumer's thread alone writes the kept batches; a worker writes only the one image that it was given.
    """

    def __init__(
        self, index: Index, rows: NDArray[np.int64], reading: Reading, *, batch_size: int, cache: bool = False
    ) -> None:
        self.index, self.rows, self.reading = index, rows, reading
        self.batch_size, self.cache = batch_size, cache
        self._kept: list[EvalBatch] = []

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[EvalBatch]:
        """This rank's batches, in order; the last may be smaller, and a rank without images has none."""
        if self._kept:
            yield from self._kept
            return
        starts = range(0, len(self.rows), self.batch_size)
        keys = ([int(row) for row in self.rows[start : start + self.batch_size]] for start in starts)
        kept = []
        for batch in in_order(keys, self._load, self._collect, self.reading):
            if self.cache:
                kept.append(batch)
            yield batch
        self._kept = kept

    def _load(self, row: int, out: Tensor) -> int:
        width, height = self.index.sizes[row].tolist()
        path = self.reading.folder / self.index.file_names[row]
        load_image(path, self.index.image_ids[row], (width, height), out)
        return row

    def _collect(self, images: Tensor, rows: Sequence[int]) -> EvalBatch:
        return eval_batch(self.index, np.array(rows), images)


def in_order(
    keys: Iterable[Sequence[Key]],
    load: Callable[[Key, Tensor], Result],
    collect: Callable[[Tensor, Sequence[Result]], Batch],
    reading: Reading,
) -> Generator[Batch, None, None]:
    """Batches in the order of `keys`: `load` fills one image of a batch in a thread, `collect` finishes the batch.

    At most `reading.prefetch` batches are ahead of the one waited for. An exception of `load` surfaces when its batch
    is due.
    """
    pool = ThreadPoolExecutor(reading.num_workers, thread_name_prefix="ssd-decode")
    ahead: deque[tuple[Tensor, list[Future[Result]]]] = deque()

    def finish() -> Batch:
        images, futures = ahead.popleft()
        return collect(images, [future.result() for future in futures])

    try:
        for batch in keys:
            images = torch.empty(
                len(batch), IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8, pin_memory=reading.pin_memory
            )
            ahead.append((images, [pool.submit(load, key, images[row]) for row, key in enumerate(batch)]))
            if len(ahead) > reading.prefetch:
                yield finish()
        while ahead:
            yield finish()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
