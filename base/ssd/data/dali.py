"""The backend `dali`: NVIDIA's DALI decodes and resizes, on the CPU or on the GPU; everything drawn is drawn by us.

The pipeline is fed with file contents and with the rectangle of `ssd.data.crop`, so it decodes only what is kept, and
a seed gives every backend the same boxes, flips and colours. The submissions draw with DALI's random_bbox_crop; its
numbers come from the operator's own state, so they depend on all batches before, and a restart in the middle of an
epoch, or another number of processes, would draw others. For the same reason our sampler reads, and not DALI's reader.

Only calls that DALI 1.21 has: the release that other vendors ship.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.counts import IMAGE_SIZE
from ssd.data.batch import TrainBatch
from ssd.data.decode import load_image, read_jpeg
from ssd.data.index import Index
from ssd.data.loader import Reading, Sample, Skipped, ThreadLoader, draw_sample, in_order, undecodable
from ssd.data.sampler import Sampler
from ssd.errors import ConfigError, DataError, MachineError

__all__ = ["DaliLoader"]

log = logging.getLogger(__name__)

Made = Sequence[tuple["Encoded", list[Skipped]]]
"""The samples of a batch, each with those it stands in for."""


@dataclass(frozen=True)
class Encoded(Sample):
    """A sample whose pixels are still a file: jpeg (bytes,) uint8, and the rectangle to decode."""

    jpeg: NDArray[np.uint8]
    rectangle: tuple[int, int, int, int]


class _Source:
    """What the pipeline calls for a batch: files and rectangles; remembers the batches it has not given back yet."""

    def __init__(self) -> None:
        self.batches: Iterator[Made] = iter(())
        self.under_way: deque[Made] = deque()

    def __call__(self) -> tuple[list[NDArray[np.uint8]], NDArray[np.int32], NDArray[np.int32]]:
        made = next(self.batches)
        self.under_way.append(made)
        corners = np.array([sample.rectangle for sample, _ in made], np.int32)
        return [sample.jpeg for sample, _ in made], corners[:, :2].copy(), corners[:, 2:] - corners[:, :2]


class DaliLoader(ThreadLoader):
    """Training batches of one process, decoded by DALI (the protocol `ssd.data.TrainLoader`).

    Arguments are those of `ThreadLoader`: `reading.num_workers` threads read files and draw, and DALI decodes
    with as many.
    use_nvjpeg: decode and resize on `device`, a CUDA device, where the images of a batch then are; else on the CPU.
    Every image, drawn number and stand-in is that of `ThreadLoader` at the same seed; pixels are DALI's.
    The consumer's thread alone writes state; a worker reads `_broken` while no other thread writes it.

    MachineError where DALI cannot be imported or cannot decode here; ConfigError for use_nvjpeg on another device.
    """

    def __init__(
        self,
        index: Index,
        sampler: Sampler,
        reading: Reading,
        *,
        use_nvjpeg: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(index, sampler, reading)
        self.device = device or torch.device("cpu")
        if use_nvjpeg and self.device.type != "cuda":
            raise ConfigError(f"use_nvjpeg decodes on a CUDA device, but this run's is {self.device}: set it to false")
        self.use_nvjpeg = use_nvjpeg
        self._dali = _import_dali()
        self._source, self._pipeline = _Source(), None
        self._broken: dict[int, str] = {}
        """Rows of the index that DALI refused and a second decoder, too, with its reason."""

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """Micro-batches of `epoch` (from 1), from optimizer step `first_step` of it on.

        A pipeline that met a file it cannot decode is lost with all it had under way: the file is looked for, and the
        epoch goes on from the last batch delivered, as `corrupt_images` says.
        """
        due = (self.sampler.steps - first_step) * self.sampler.accumulation
        delivered = 0
        while delivered < due:
            with closing(self._batches(epoch, first_step, delivered)) as batches:
                try:
                    for batch in batches:
                        delivered += 1
                        yield batch
                except _DecodeError as error:
                    self._find_broken(error)

    def _batches(self, epoch: int, first_step: int, skip: int) -> Generator[TrainBatch, None, None]:
        """Batches of an epoch but for the first `skip`; _DecodeError with all that was not delivered."""
        places = itertools.islice(self.sampler.micro_batches(epoch, first_step), skip, None)
        keys = ([(epoch, *place) for place in batch] for batch in places)
        files = in_order(keys, self._load, lambda _, made: cast("Made", made), replace(self.reading, pin_memory=False))
        pipeline = self._pipeline or self._build()
        self._pipeline, finished = None, False
        self._source.batches, self._source.under_way = files, deque()
        try:
            while True:
                try:
                    (images,) = pipeline.run()
                except StopIteration:
                    break
                except RuntimeError as error:
                    raise _DecodeError(str(error), list(self._source.under_way)) from error
                yield self._collect(self._copy(images), self._source.under_way.popleft())
            assert not self._source.under_way, "DALI ended an epoch before it gave back all it was given"
            pipeline.reset()
            finished = True
        finally:
            files.close()
            # One that is stopped within an epoch holds batches of it
            self._pipeline = pipeline if finished else None

    def _build(self) -> Any:
        """The pipeline: decode a rectangle of each file, resize it. MachineError where DALI cannot do so here."""
        dali = self._dali
        # Boxes are drawn on pixels as they are stored. Decoders that turn them by EXIF came after 1.21.
        known = dali.backend.GetSchema("decoders__ImageSlice").GetArgumentNames()
        upright = {"adjust_orientation": False} if "adjust_orientation" in known else {}

        @dali.pipeline_def
        def decode_and_resize() -> Any:
            files, anchors, shapes = dali.fn.external_source(source=self._source, num_outputs=3)
            images = dali.fn.decoders.image_slice(
                files,
                anchors,
                shapes,
                axis_names="WH",
                normalized_anchor=False,
                normalized_shape=False,
                output_type=dali.types.RGB,
                device="mixed" if self.use_nvjpeg else "cpu",
                **upright,
            )
            return dali.fn.resize(
                images,
                resize_x=IMAGE_SIZE,
                resize_y=IMAGE_SIZE,
                min_filter=dali.types.INTERP_TRIANGULAR,
                mag_filter=dali.types.INTERP_LINEAR,
            )

        pipeline = decode_and_resize(
            batch_size=self.sampler.batch,
            num_threads=self.reading.num_workers,
            device_id=(self.device.index or 0) if self.use_nvjpeg else None,
            prefetch_queue_depth=self.reading.prefetch,
            seed=0,
        )
        try:
            pipeline.build()
        except RuntimeError as error:
            raise MachineError(
                f'data_backend = "dali" (use_nvjpeg = {str(self.use_nvjpeg).lower()}): DALI {dali.version} cannot '
                f'decode JPEG files here; install what it names, or set data_backend = "threads". It says: {error}'
            ) from error
        return pipeline

    def _make(self, row: int, rng: np.random.Generator, out: Tensor) -> Encoded:
        """Draw a sample's numbers and read its file; `out` stays as it is. DataError as the threads raise it."""
        if reason := self._broken.get(row):
            raise DataError(reason)
        sample, rectangle = draw_sample(self.index, row, rng)
        path, size = self.reading.folder / self.index.file_names[row], tuple(self.index.sizes[row].tolist())
        content = read_jpeg(path, self.index.image_ids[row], size)
        return Encoded(**vars(sample), jpeg=content, rectangle=rectangle)

    def _copy(self, images: Any) -> Tensor:
        """The pipeline's images (B, 300, 300, 3) uint8 as a tensor of our own: DALI uses its memory again."""
        device = self.device if self.use_nvjpeg else torch.device("cpu")
        pinned = self.reading.pin_memory and not self.use_nvjpeg
        copy = torch.empty(
            self.sampler.batch, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8, device=device, pin_memory=pinned
        )
        self._dali.feed_ndarray(images.as_tensor(), copy)
        return copy

    def _find_broken(self, error: _DecodeError) -> None:
        """Note which files of the lost batches cannot be decoded.

        DataError, as the threads raise it, where `corrupt_images` is "stop"; MachineError where DALI alone is at fault.
        """
        out = torch.empty(IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
        before = len(self._broken)
        rows = dict.fromkeys(sample.row for made in error.under_way for sample, _ in made)
        for row in rows:
            path, size = self.reading.folder / self.index.file_names[row], tuple(self.index.sizes[row].tolist())
            try:
                load_image(path, self.index.image_ids[row], size, out)
            except DataError as reason:
                if self.reading.corrupt_images == "stop":
                    raise undecodable(reason) from reason
                self._broken[row] = str(reason)
        if len(self._broken) == before:
            ids = ", ".join(str(self.index.image_ids[row]) for row in rows)
            raise MachineError(
                f'data_backend = "dali": DALI failed on images that torchvision decodes (among {ids}); set '
                f'use_nvjpeg = false or data_backend = "threads". It says: {error}'
            ) from error


class _DecodeError(Exception):
    """The pipeline failed; `under_way` are the batches it was given and did not give back."""

    def __init__(self, message: str, under_way: list[Made]) -> None:
        super().__init__(message)
        self.under_way = under_way


def _import_dali() -> SimpleNamespace:
    """The parts of DALI used here. MachineError where it is not installed, or not for this machine."""
    try:
        import nvidia.dali
        from nvidia.dali import backend, fn, pipeline_def, types
        from nvidia.dali.plugin.pytorch import feed_ndarray
    except (ImportError, OSError) as error:
        raise MachineError(
            f'data_backend = "dali" needs NVIDIA DALI, which cannot be imported ({error}): install the wheel for this '
            "machine's CUDA (nvidia-dali-cuda120, or the vendor's own), or set data_backend = \"threads\""
        ) from error
    return SimpleNamespace(
        backend=backend,
        fn=fn,
        types=types,
        pipeline_def=pipeline_def,
        feed_ndarray=feed_ndarray,
        version=nvidia.dali.__version__,
    )
