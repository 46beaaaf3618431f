"""The backend `dali`: NVIDIA's DALI decodes and resizes, on the CPU or on the GPU. Random numbers are our own.

The pipeline gets file contents and the rectangle that `ssd.data.crop` drew. So it decodes only the pixels that are
kept, and a seed gives every backend the same boxes, flips and colours. NVIDIA's submissions draw with DALI's
random_bbox_crop. Its numbers come from the operator's own state and so depend on all batches before. A restart in the
middle of an epoch, or another number of processes, would draw other numbers. For the same reason this project's sampler
chooses the files, and not DALI's reader.

Only calls that exist in DALI 1.21 are used. That is the release that other vendors ship.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.counts import IMAGE_SIZE
from ssd.data.batch import TrainBatch
from ssd.data.decode import load_image, read_jpeg
from ssd.data.draws import Drawn, Rectangle, Sample
from ssd.data.folder import located
from ssd.data.index import Index
from ssd.data.loader import Reading, Skipped, ThreadLoader, in_order, undecodable
from ssd.data.sampler import Sampler
from ssd.errors import ConfigError, DataError, MachineError

__all__ = ["DaliLoader"]

log = logging.getLogger(__name__)

Made = Sequence[tuple["Encoded", list[Skipped]]]
"""The samples of a batch, each with the samples that it stands in for."""


@dataclass(frozen=True)
class Encoded(Sample):
    """A sample that is not decoded yet.

    jpeg: (bytes,) uint8, the file's content. rectangle: left, top, right, bottom in pixels, the part to decode.
    """

    jpeg: NDArray[np.uint8]
    rectangle: Rectangle


class _Source:
    """The pipeline calls this object to get a batch: files (bytes,) uint8, anchors (B, 2) and shapes (B, 2) int32.

    under_way: the batches that the pipeline was given and has not returned yet, the oldest first. Owner: the thread
    that calls the pipeline's `run`, because DALI calls a plain external source from that thread.
    """

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

    The first arguments are those of `ThreadLoader`. `reading.num_workers` threads read files and draw, and DALI decodes
    with the same number of threads. use_nvjpeg: decode and resize on `device`, which must be a CUDA device. The images
    of a batch are then on that device. Otherwise DALI works on the CPU. With the same seed, every image, random number
    and stand-in is that of `ThreadLoader`. Pixels may differ, because DALI resizes them.

    Raises MachineError where DALI cannot be imported or cannot decode here, and ConfigError for use_nvjpeg on a device
    that is not CUDA's.

    Threads: the consumer of `epoch` owns all state. Workers read `_broken`, which the consumer writes only after it has
    ended them.
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
        """Rows of the index that both DALI and torchvision refused to decode, with torchvision's reason."""

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """The micro-batches of `epoch` (counted from 1), from its optimizer step `first_step` on.

        A pipeline that meets a file it cannot decode is lost, with all batches under way. This loader then looks for
        the file. With corrupt_images "skip" it goes on after the last batch that was delivered, with a new pipeline.
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
        """The batches of an epoch without the first `skip` batches.

        Raises _DecodeError, which carries the batches under way, where DALI cannot decode a file.
        """
        places = itertools.islice(self.sampler.micro_batches(epoch, first_step), skip, None)
        draw, load = partial(self._draw, epoch), partial(self._load, epoch)
        reading = replace(self.reading, pin_memory=False)
        files = in_order(places, draw, load, lambda _, made: cast("Made", made), reading)
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
            # A pipeline that is stopped within an epoch still holds batches of that epoch, so it is not used again.
            self._pipeline = pipeline if finished else None

    def _build(self) -> Any:
        """A pipeline that decodes a rectangle of each file and resizes it. MachineError where DALI cannot build it."""
        dali = self._dali
        # Boxes belong to the pixels as they are stored. Releases after 1.21 turn the pixels by EXIF unless told not to.
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

    def _make(self, number: int, drawn: Drawn, out: Tensor) -> Encoded:
        """Read the file of a drawn sample. `number` and `out` are not used. Raises DataError as `ThreadLoader` does."""
        sample, rectangle = drawn
        if reason := self._broken.get(sample.row):
            raise DataError(reason)
        content = read_jpeg(*located(self.index, sample.row, self.reading.folder))
        return Encoded(**vars(sample), jpeg=content, rectangle=rectangle)

    def _copy(self, images: Any) -> Tensor:
        """Copy the pipeline's images (B, 300, 300, 3) uint8 to a new tensor, because DALI reuses its own memory."""
        device = self.device if self.use_nvjpeg else torch.device("cpu")
        pinned = self.reading.pin_memory and not self.use_nvjpeg
        copy = torch.empty(
            self.sampler.batch, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8, device=device, pin_memory=pinned
        )
        self._dali.feed_ndarray(images.as_tensor(), copy)
        return copy

    def _find_broken(self, error: _DecodeError) -> None:
        """Write to `_broken` which files of the lost batches cannot be decoded.

        Raises DataError, as `ThreadLoader` does, where corrupt_images is "stop". Raises MachineError where torchvision
        can decode all files, so that DALI alone is at fault.
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
    """The pipeline failed. under_way: the batches that it was given and did not return."""

    def __init__(self, message: str, under_way: list[Made]) -> None:
        super().__init__(message)
        self.under_way = under_way


def _import_dali() -> SimpleNamespace:
    """The parts of DALI that are used here. Raises MachineError where DALI cannot be imported."""
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
