"""The backend `resident`: training images are decoded once into the accelerator's memory. An epoch reads no file.

Each process holds a shard for the whole run: the images that the seed assigns to it. An epoch is one permutation of all
samples, the same on every rank. A rank goes through it and takes the samples of its own shard. So every image is seen
once an epoch. This is stratified sampling: each step takes the same number of samples from every shard, where the
backend `threads` leaves that number to chance. Nothing else differs. Positions, and with them all random numbers, are
those of `ssd.data.sampler`, and a single process gets the same batches as with `threads`.

Crops are drawn on the host. Pixels are cut out and resized on the device, by the op `crop` (`ssd.data.pixel_store`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ssd.data.batch import TrainBatch
from ssd.data.decode import decode, decoder
from ssd.data.draws import Sample, draw_samples
from ssd.data.folder import located
from ssd.data.index import Index
from ssd.data.loader import Reading, Skipped, collate, train_rows, undecodable
from ssd.data.pixel_store import WORKSPACE, PixelStore, Storage, image_bytes
from ssd.data.sampler import Sampled, Sampler
from ssd.errors import ConfigError, DataError, MachineError
from ssd.ops import REFERENCE, Crop
from ssd.text import counted

__all__ = ["ResidentLoader", "ShardSampler", "shard_bytes"]

log = logging.getLogger(__name__)

_Drawn: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], list[Sample]]
"""The slots (B,) of a batch, its rectangles (B, 4), and its samples without pixels."""


@dataclass(frozen=True)
class ShardSampler(Sampler):
    """A `Sampler` in which each rank takes samples from a shard of its own.

    left_out: the samples of the shard that cannot be decoded. All ranks make as many steps as the whole set needs,
    because ceil(ceil(N / world_size) / b) = ceil(N / (world_size * b)). The sizes of two shards differ by at most one
    sample. A shard that is too short for the last step repeats samples from the start of its own permutation.
    """

    left_out: frozenset[int] = frozenset()

    def shard(self) -> NDArray[np.int64]:
        """The samples (n,) int64 of this rank, ascending. The permutation of epoch 0, which is never trained, assigns
        them."""
        return np.sort(self.order(0)[self.rank :: self.world_size])

    def micro_batches(self, epoch: int, first_step: int = 0) -> Iterator[list[tuple[int, int]]]:
        """A list of (position, sample) for each micro-batch of this rank, from optimizer step `first_step` on."""
        if not 0 <= first_step <= self.steps:
            raise ValueError(f"first_step = {first_step}, but an epoch has {self.steps} steps")
        order = self.order(epoch)
        mine = order[np.isin(order, [number for number in self.shard() if number not in self.left_out])]
        for turn in range(first_step * self.accumulation, self.steps * self.accumulation):
            places = (turn * self.world_size + self.rank) * self.batch + np.arange(self.batch)
            numbers = mine[(turn * self.batch + np.arange(self.batch)) % len(mine)]
            yield list(zip(places.tolist(), numbers.tolist(), strict=True))


def shard_bytes(index: Index, *, seed: int, world_size: int, storage: Storage) -> int:
    """Bytes of the largest shard, computed from the annotations alone. A process needs `WORKSPACE` in addition."""
    rows = index.with_boxes()
    each = image_bytes(index.sizes[rows], storage)
    dealt = each[ShardSampler(len(rows), 1, seed, 0, world_size).order(0)]
    return int(np.pad(dealt, (0, -len(dealt) % world_size)).reshape(-1, world_size).sum(0).max())


class ResidentLoader(Sampled):
    """Training batches of one process from its device's memory (the protocol `ssd.data.TrainLoader`).

    index, reading: as for `ThreadLoader`. `reading.num_workers` threads decode, once. corrupt_images "stop" raises
    DataError for a file that cannot be decoded; "skip" leaves the image out of its shard and records it in `skipped`.
    sampler: a sampler over the index's `train_rows`. storage: "rgb" keeps the decoded pixels; "yuv420" halves the
    resolution of colour, and the memory. available_bytes: what the device has for images and `WORKSPACE` at most. None
    means the memory that is free now. A device that does not report it, such as the CPU, is not checked. What training
    takes of it shows later: call `require_room` once that is held. crop: the op that cuts out and resizes. A run puts
    its own there before the first epoch.

    No image is read before `load`. The first epoch calls `load`, so images are read after run_start. Raises
    MachineError where the shard does not fit, and says what would fit. Raises ConfigError for more processes than
    images, and DataError where no image has a box.

    Threads: the consumer of `epoch` owns all state. A decoding thread writes only its own slot of the pixel store. The
    thread that draws the next batch only reads.
    """

    def __init__(
        self,
        index: Index,
        sampler: ShardSampler,
        reading: Reading,
        *,
        device: torch.device,
        storage: Storage = "rgb",
        available_bytes: int | None = None,
    ) -> None:
        decoder()
        self.index, self.reading, self.device, self.storage = index, reading, device, storage
        self.sampler: ShardSampler = sampler
        self.rows = train_rows(index)
        if sampler.world_size > len(self.rows):
            raise ConfigError(
                f'data_backend = "resident" gives each process images of its own, but {index.source} has '
                f'{len(self.rows):,} for {_processes(sampler.world_size)}: use fewer, or data_backend = "threads"'
            )
        self.skipped: list[Skipped] = []
        """The images of this shard that are left out. Their epoch is 0, and their position is the sample's number."""
        self.crop: Crop = REFERENCE.crop
        self._store: PixelStore | None = None
        self._slots: dict[int, int] = {}
        free = _free_bytes(device) if available_bytes is None else available_bytes
        if free is not None:
            self.require_room(free)

    def require_room(self, available_bytes: int) -> None:
        """Raise MachineError where the largest shard and `WORKSPACE` do not fit into `available_bytes`.

        Every rank checks the largest shard, so with equal devices all ranks come to the same answer.
        """
        seed, world_size = self.sampler.seed, self.sampler.world_size
        needed = shard_bytes(self.index, seed=seed, world_size=world_size, storage=self.storage) + WORKSPACE
        if needed <= available_bytes:
            return
        fits = []
        choices: tuple[Storage, ...] = ("rgb", "yuv420")
        for choice in choices:
            least = _least_world(self.index, seed, choice, available_bytes)
            if least is not None:
                fits.append(f"resident_storage = {choice} over {_processes(least)}")
        raise MachineError(
            f'data_backend = "resident" with resident_storage = {self.storage} over {_processes(world_size)} '
            f"needs {_gigabytes(needed)} a process, {_gigabytes(WORKSPACE)} of it to work in, but "
            f"{_gigabytes(available_bytes)} are available on {self.device}. What fits there: "
            f"{', '.join(fits) or 'no number of processes'}; "
            'data_backend = "threads" needs none of it'
        )

    def load(self) -> None:
        """Decode this rank's shard into the device's memory. A second call is a no-op.

        It reads training images, so call it after run_start. Raises DataError for a file that cannot be decoded where
        corrupt_images is "stop", and where no image is left.
        """
        if self._store is not None:
            return
        begin = time.perf_counter()
        shard = self.sampler.shard()
        store = PixelStore(
            self.index.sizes[self.rows[shard]], self.storage, self.device, non_blocking=self.reading.pin_memory
        )
        with ThreadPoolExecutor(self.reading.num_workers, thread_name_prefix="ssd-decode") as pool:
            # An exception ends `map`, which then cancels the images whose decoding has not begun.
            reasons = list(pool.map(lambda slot: self._fill(store, slot, int(shard[slot])), range(len(shard))))
        for number, reason in zip(shard.tolist(), reasons, strict=True):
            if reason is not None:
                log.warning("an image is left out: %s", reason)
                self.skipped.append(Skipped(0, number, self.index.image_ids[self.rows[number]], reason))
        if len(self.skipped) == len(shard):
            raise DataError(
                f"this process can decode none of its {counted(len(shard), 'image')}: {self.skipped[0].reason}"
            )
        self.sampler = replace(self.sampler, left_out=frozenset(entry.position for entry in self.skipped))
        self._slots = {number: slot for slot, number in enumerate(shard.tolist())}
        self._store = store
        size = sum(plane.stored.pixels.numel() for plane in store.planes)
        seconds = time.perf_counter() - begin
        log.info("%s (%.2f GB) on %s in %.1f s", counted(len(shard), "image"), size / 1e9, self.device, seconds)

    def _fill(self, store: PixelStore, slot: int, number: int) -> str | None:
        """Decode one image into its slot. Returns None, or the reason why the image is left out. Runs in a thread."""
        row = int(self.rows[number])
        try:
            pixels = decode(*located(self.index, row, self.reading.folder))
        except DataError as error:
            if self.reading.corrupt_images == "stop":
                raise undecodable(error) from error
            return str(error)
        store.put(slot, pixels)
        return None

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[TrainBatch, None, None]:
        """The micro-batches of `epoch` (counted from 1), from its optimizer step `first_step` on.

        Images are on the device. A thread draws the next batch while the consumer has this one. It is one batch ahead.
        """
        self.load()
        with ThreadPoolExecutor(1, thread_name_prefix="ssd-draw") as pool:
            ahead: deque[Future[_Drawn]] = deque()
            for batch in self.sampler.micro_batches(epoch, first_step):
                ahead.append(pool.submit(self._draw, epoch, batch))
                if len(ahead) > 1:
                    yield self._make(ahead.popleft().result())
            for last in ahead:
                yield self._make(last.result())

    def _draw(self, epoch: int, batch: list[tuple[int, int]]) -> _Drawn:
        """What the host does for a batch. Runs in a thread, and writes nothing that others read."""
        positions, numbers = np.array(batch, np.int64).T
        drawn = draw_samples(self.index, self.rows[numbers], self.sampler.streams(epoch, positions))
        slots = np.array([self._slots[number] for number in numbers.tolist()], np.int64)
        return slots, np.array([rectangle for _, rectangle in drawn], np.int64), [sample for sample, _ in drawn]

    def _make(self, drawn: _Drawn) -> TrainBatch:
        """What the device does for it: put to work by the consumer, so that it is on the consumer's stream."""
        assert self._store is not None
        slots, rectangles, samples = drawn
        return collate(self._store.crops(slots, rectangles, self.crop), samples, self.reading.pin_memory)


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator in bytes. None where torch's module for it does not report that."""
    ask = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    return int(ask(device)[0]) if ask else None


def _least_world(index: Index, seed: int, storage: Storage, free: int) -> int | None:
    """The smallest number of processes whose shards all fit into `free` bytes. None where no number is enough."""
    each = image_bytes(index.sizes[index.with_boxes()], storage)
    room = free - WORKSPACE
    if room < each.max():
        return None
    least = max(1, -(-int(each.sum()) // room))
    sizes = range(least, len(each) + 1)
    return next((w for w in sizes if shard_bytes(index, seed=seed, world_size=w, storage=storage) <= room), None)


def _processes(count: int) -> str:
    return counted(count, "process", "processes")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
