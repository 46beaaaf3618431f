"""From a config to batches: the only module that knows which loader and which files a run reads.

The loaders of `ssd.data` take plain arguments. This module fills them in from the config and the rank.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssd.compute.device import Abilities
from ssd.compute.memory import available_bytes, required_bytes
from ssd.compute.ranks import Ranks
from ssd.config import Config
from ssd.data import EvalBatch, TrainLoader
from ssd.data.folder import TRAIN, VAL, annotation_file
from ssd.data.image_files import MISSING, image_faults
from ssd.data.index import Index, check_categories, clipped_words, ground_truth, require_scorable
from ssd.data.index_cache import load_index
from ssd.data.loader import EvalLoader, Reading, ThreadLoader, eval_rows, train_rows
from ssd.data.resident import ResidentLoader, ShardSampler
from ssd.data.sampler import Sampler
from ssd.data.synthetic import CycledLoader, SyntheticEvalLoader, SyntheticLoader, make_synthetic
from ssd.errors import ConfigError, DataError
from ssd.text import shortened, visible

__all__ = ["EvalSource", "open_eval_source", "open_sources"]

Drawn = TypeVar("Drawn", bound=Sampler)

log = logging.getLogger(__name__)

SYNTHETIC_SEED = {TRAIN: 0, VAL: 1}


@dataclass(frozen=True)
class EvalSource:
    """What is evaluated: the batches of this rank, and what the metric needs to know of the images of all ranks.

    index: the annotations. rows: (n,) int64, the evaluated images of all ranks. ground_truth: the annotations in COCO's
    format, with the ids of `ssd.data.index.ground_truth`.
    """

    loader: Iterable[EvalBatch]
    index: Index
    rows: NDArray[np.int64]
    ground_truth: dict[str, Any]

    @property
    def categories(self) -> list[tuple[int | str, str]]:
        """The id and the name, as in the annotation file, of the labels 1, 2, ..."""
        return list(zip(self.index.category_ids, self.index.category_names, strict=True))


def open_sources(config: Config, ranks: Ranks, seed: int, abilities: Abilities) -> tuple[TrainLoader, EvalSource]:
    """The training loader of this rank, and its share of the evaluation. No training image is read yet.

    Raises ConfigError without data_dir. Raises DataError for files that are missing or broken, and for splits with
    different categories. Raises MachineError where the loader's library or memory is missing.
    """
    evaluation = open_eval_source(config, ranks, abilities)
    if config.data_backend == "synthetic":
        index, images = _synthetic(config, TRAIN)
        sampler, pinned = _sampler(Sampler, config.synthetic_samples, config, ranks, seed), abilities.pinned_memory
        if config.synthetic_batches:
            return CycledLoader(index, images, sampler, config.synthetic_batches, pin_memory=pinned), evaluation
        return SyntheticLoader(index, images, sampler, pin_memory=pinned), evaluation
    index, reading = _index(config, ranks, TRAIN), _reading(config, TRAIN, abilities)
    check_categories(index, evaluation.index, config.num_classes)
    samples = len(train_rows(index))
    loader: TrainLoader
    if config.data_backend == "resident":
        left = _memory_left(config, abilities)
        shards = _sampler(ShardSampler, samples, config, ranks, seed)
        loader = ResidentLoader(
            index, shards, reading, device=abilities.device, storage=config.resident_storage, available_bytes=left
        )
    elif config.data_backend == "dali":
        from ssd.data.dali import DaliLoader  # optional: its module says what to install

        sampler = _sampler(Sampler, samples, config, ranks, seed)
        loader = DaliLoader(index, sampler, reading, use_nvjpeg=config.use_nvjpeg, device=abilities.device)
    else:
        loader = ThreadLoader(index, _sampler(Sampler, samples, config, ranks, seed), reading)
        if loader.cache and ranks.is_rank_0:
            log.info("%s", loader.cache.words)
    return loader, evaluation


def _sampler(kind: type[Drawn], samples: int, config: Config, ranks: Ranks, seed: int) -> Drawn:
    """The sampler of this rank."""
    accumulation = config.gradient_accumulation_steps
    return kind(samples, config.train_batch_size, seed, ranks.rank, ranks.world_size, accumulation)


def _reading(config: Config, split: str, abilities: Abilities) -> Reading:
    """How the image files of a split are read."""
    return Reading(
        folder=_data_dir(config) / split,
        num_workers=config.num_workers,
        prefetch=config.prefetch,
        corrupt_images=config.corrupt_images,
        pin_memory=abilities.pinned_memory,
        decoded_cache=config.decoded_cache,
    )


def _memory_left(config: Config, abilities: Abilities) -> int | None:
    """The bytes that a process may fill with images at most. None where neither device nor host reports free memory.

    A device's is all that is free: what the network takes is asked again when it is held (ssd.run.setup). A host's is
    shared by its processes, and what the network will take there is estimated.
    """
    if not abilities.is_host:
        return abilities.free_bytes
    available = available_bytes()
    return None if available is None else (available - required_bytes(config)) // config.nproc_per_node


def open_eval_source(config: Config, ranks: Ranks, abilities: Abilities) -> EvalSource:
    """This rank's share of the evaluation. Raises DataError where an image is missing, or where none has a box."""
    loader: Iterable[EvalBatch]
    if config.data_backend == "synthetic":
        index, images = _synthetic(config, VAL)
        rows = eval_rows(index, config.eval_images)
        mine = rows[ranks.rank :: ranks.world_size]
        loader = SyntheticEvalLoader(index, images, mine, batch_size=config.eval_batch_size)
    else:
        index, reading = _index(config, ranks, VAL), _reading(config, VAL, abilities)
        rows = eval_rows(index, config.eval_images)
        mine = rows[ranks.rank :: ranks.world_size]
        loader = EvalLoader(index, mine, reading, batch_size=config.eval_batch_size, cache=True)
    if config.data_backend != "synthetic":
        require_scorable(index, rows)
        _require_evaluable(index, mine, _data_dir(config) / VAL, config.num_workers)
    return EvalSource(loader, index, rows, ground_truth(index, rows))


def _require_evaluable(index: Index, rows: NDArray[np.int64], folder: Path, num_workers: int) -> None:
    """Raise DataError where an image of these rows is missing, is not a JPEG, or has not the size of its annotations.

    Without this check a run would find out at its first evaluation, hours later. Only headers are read.
    """
    names = index.file_names[rows].tolist()
    faults = image_faults(folder, names, index.sizes[rows].tolist(), num_workers)
    bad = [(shortened(visible(name)), fault) for name, fault in zip(names, faults, strict=True) if fault]
    missing = [name for name, fault in bad if fault == MISSING]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(rows)} evaluation images are missing, {missing[0]} the first; "
            "`prepare` checks and completes data_dir"
        )
    if bad:
        name, fault = bad[0]
        raise DataError(
            f"{folder}: {len(bad)} of {len(rows)} evaluation images cannot be evaluated, {name} the first: {fault}. No "
            "key leaves an evaluation image out: mend or replace the file, or take it out of the annotations"
        )


def _synthetic(config: Config, split: str) -> tuple[Index, Tensor]:
    """The synthetic set of a split. It is the same in every run, so that runs with different seeds compare.

    A run that repeats a few micro-batches needs no more images than these hold.
    """
    held = config.synthetic_batches * config.train_batch_size * config.world_size
    samples = min(config.synthetic_samples, held or config.synthetic_samples)
    return make_synthetic(samples, config.num_classes, seed=SYNTHETIC_SEED[split])


def _data_dir(config: Config) -> Path:
    if config.data_dir is None:
        raise ConfigError(
            "data_dir is missing: name a COCO folder (annotations/, train2017/, val2017/), or let `prepare` fetch one; "
            "data_backend = synthetic needs none"
        )
    return config.data_dir


def _index(config: Config, ranks: Ranks, split: str) -> Index:
    """The index of a split. On each host local rank 0 builds a missing cache, and the other ranks wait for it."""
    path = annotation_file(_data_dir(config), split)
    index = load_index(path, config.cache_dir) if ranks.local_rank == 0 else None
    ranks.barrier()
    index = index or load_index(path, config.cache_dir)
    if ranks.is_rank_0 and (clipped := index.clipped().sum()):
        log.warning("%s: %s", path, clipped_words(clipped, len(index.labels)))
    return index
