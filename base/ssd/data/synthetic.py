"""The backend `synthetic`: a small set in memory. It reads and decodes no file, so a run times the computation alone.

The images are coloured rectangles on grey noise, with one colour for each class. A few steps on them show a falling
loss, and an evaluation on other such images shows a rising score. The images are drawn once. Their order, mirroring and
colour jitter come from the same random streams as those of real images.
"""

from __future__ import annotations

import colorsys
from collections.abc import Generator, Iterator
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.counts import IMAGE_SIZE
from ssd.data.annotations import index_of
from ssd.data.batch import EvalBatch, TrainBatch
from ssd.data.crop import ColourDraw, mirror
from ssd.data.draws import Sample, draw_colours
from ssd.data.index import Index
from ssd.data.loader import Skipped, collate, eval_batch
from ssd.data.sampler import Sampled, Sampler
from ssd.text import counted

__all__ = ["CycledLoader", "SyntheticEvalLoader", "SyntheticLoader", "make_synthetic"]

QUADRANTS = ((0, 0), (IMAGE_SIZE // 2, 0), (0, IMAGE_SIZE // 2), (IMAGE_SIZE // 2, IMAGE_SIZE // 2))
"""Left and top of each quarter of an image, in pixels."""


def make_synthetic(samples: int, num_classes: int, seed: int) -> tuple[Index, Tensor]:
    """Draw a set from `seed`. Returns its annotations and its images (samples, 300, 300, 3) uint8.

    num_classes includes the background, so there are num_classes - 1 categories, with ids from 1. Each image has 1 to 3
    rectangles, each in another quadrant. Use different seeds for training and evaluation.
    """
    rng = np.random.default_rng((4, seed))
    images = rng.integers(90, 150, (samples, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    content: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    for number in range(samples):
        name = {"id": number + 1, "file_name": f"synthetic {number + 1}", "width": IMAGE_SIZE, "height": IMAGE_SIZE}
        content["images"].append(name)
        for quadrant in rng.permutation(4)[: rng.integers(1, 4)]:
            width, height = (int(side) for side in rng.integers(60, IMAGE_SIZE // 2 - 10, 2))
            left, top = (int(edge + rng.integers(5)) for edge in QUADRANTS[quadrant])
            label = int(rng.integers(1, num_classes))
            images[number, top : top + height, left : left + width] = _colour(label, num_classes)
            annotation = {
                "id": len(content["annotations"]) + 1,
                "image_id": number + 1,
                "category_id": label,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
            content["annotations"].append(annotation)
    content["categories"] = [{"id": label, "name": f"colour {label}"} for label in range(1, num_classes)]
    return index_of(content, f"synthetic set of {counted(samples, 'image')}, seed {seed}"), torch.from_numpy(images)


def _colour(label: int, num_classes: int) -> tuple[int, int, int]:
    """A saturated RGB colour for a class. For few classes, hues differ by more than the jitter changes them."""
    red, green, blue = colorsys.hsv_to_rgb((label - 1) / (num_classes - 1), 0.9, 0.9)
    return int(255 * red), int(255 * green), int(255 * blue)


class SyntheticLoader(Sampled):
    """Training batches from memory (the protocol `ssd.data.TrainLoader`).

    images: (N, 300, 300, 3) uint8, those of the index. sampler: a sampler over all of them. It starts no threads.
    """

    def __init__(self, index: Index, images: Tensor, sampler: Sampler, *, pin_memory: bool = False) -> None:
        self.index, self.images, self.sampler, self.pin_memory = index, images, sampler, pin_memory
        self.skipped: list[Skipped] = []
        """Always empty, because nothing is decoded."""

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """The micro-batches of `epoch` (counted from 1), from its optimizer step `first_step` on."""
        for batch in self.sampler.micro_batches(epoch, first_step):
            images = torch.empty(len(batch), IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8, pin_memory=self.pin_memory)
            torch.index_select(self.images, 0, torch.tensor([row for _, row in batch]), out=images)
            colours = draw_colours(self.sampler.streams(epoch, np.array([position for position, _ in batch])))
            samples = [self._sample(row, colour) for (_, row), colour in zip(batch, colours, strict=True)]
            yield collate(images, samples, self.pin_memory)

    def _sample(self, row: int, colour: ColourDraw) -> Sample:
        boxes, labels = self.index.image_boxes(row)
        return Sample(mirror(boxes) if colour.flip else boxes, labels, colour, row)


class CycledLoader(Sampled):
    """A few micro-batches of a synthetic set, made once and trained on in turn (the protocol `ssd.data.TrainLoader`).

    The host then does the same little work for a micro-batch of any size, so a run times the device. index, images: as
    for `SyntheticLoader`. sampler: says how many steps an epoch has; its samples need not exist. batches: how many
    micro-batches are made. No thread shares the loader's state.
    """

    def __init__(
        self, index: Index, images: Tensor, sampler: Sampler, batches: int, *, pin_memory: bool = False
    ) -> None:
        self.index, self.sampler = index, sampler
        drawn = Sampler(len(index), sampler.batch, sampler.seed, sampler.rank, sampler.world_size)
        loader = SyntheticLoader(index, images, drawn, pin_memory=pin_memory)
        epochs = (batch for epoch in count(1) for batch in loader.epoch(epoch))
        self._batches = list(islice(epochs, batches))
        self.skipped: list[Skipped] = []
        """Always empty: nothing is decoded."""

    @property
    def samples(self) -> int:
        """Training images that exist."""
        return len(self.index)

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """The same micro-batches in every epoch, each as often as the epoch is long, from step `first_step` on."""
        accumulation = self.sampler.accumulation
        for number in range(first_step * accumulation, self.sampler.steps * accumulation):
            yield self._batches[number % len(self._batches)]


class SyntheticEvalLoader:
    """Evaluation batches from memory. It starts no threads.

    images: (N, 300, 300, 3) uint8, those of the index. The other arguments are those of `EvalLoader`.
    """

    def __init__(self, index: Index, images: Tensor, rows: NDArray[np.int64], *, batch_size: int) -> None:
        self.index, self.images, self.rows, self.batch_size = index, images, rows, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[EvalBatch]:
        """The batches of this rank, in order. The last may be smaller. A rank without images has no batch."""
        for start in range(0, len(self.rows), self.batch_size):
            rows = self.rows[start : start + self.batch_size]
            yield eval_batch(self.index, rows, self.images[torch.from_numpy(rows)])
