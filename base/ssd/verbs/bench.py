"""The verb `bench`: each part of this machine alone, for about two minutes, and which of them limits a run.

One device is timed, and the host as a whole. What the devices of a host share is worked out (ssd.measure.limits).
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ssd.config import Resolved
from ssd.data.folder import TRAIN, annotation_file
from ssd.data.index_cache import load_index
from ssd.errors import EXIT_REACHED, DataError
from ssd.measure.all_reduce import all_reduced, gradient_bytes
from ssd.measure.copying import copied_per_second
from ssd.measure.decoding import decoded_per_second, jpeg_loader
from ssd.measure.disk import DiskRead, read_files
from ssd.measure.evaluation import evaluation_seconds
from ssd.measure.kept import KIND, keep_row, read_rows, reference_of
from ssd.measure.limits import Figures, fallen
from ssd.measure.made_images import make_folder
from ssd.measure.one_process import alone, open_run
from ssd.measure.settings import Trial, options, search
from ssd.measure.shown import Found, as_json, show
from ssd.measure.steps import step_seconds
from ssd.mlperf.limits import TRAIN_SAMPLES
from ssd.plan.measured import machine_of
from ssd.report.summary import source_commit
from ssd.run.live import Run
from ssd.vendor import load_vendor, require_machine
from ssd.verbs.given import require_data_dir

__all__ = ["bench_command"]

log = logging.getLogger(__name__)

BATCH = 8
"""Images of a batch where decoding alone is timed."""
MOST_FILES = 4000
"""Files that are read from the disk at most."""
SYNTHETIC = {
    "data_backend": "synthetic",
    "crop_op": "reference",
    "synthetic_samples": TRAIN_SAMPLES[0],
    "synthetic_batches": 4,
}
"""A few micro-batches that are repeated, in epochs as long as COCO 2017's: a step waits for nothing of the host."""
UNTIMED = {"pretrained": False, "division": "open", "seed": 0, "epochs": 1000, "max_steps": None}
"""A step takes as long with any weights."""
KEYS = (
    *("name", "config", "device", "nproc_per_node", "num_classes", "width", "train_batch_size", "num_workers"),
    *("data_backend", "precision", "nhwc", "compile", "amp", "optimizer", "cuda_graph"),
)
"""Keys that a row holds for."""


@dataclass(frozen=True)
class Times:
    """Seconds that each part is measured for, about; and the made pictures, with the files of each."""

    decode: float = 6.0
    disk: float = 5.0
    copy: float = 2.0
    step: float = 12.0
    trial: float = 5.0
    evaluation: float = 5.0
    pictures: int = 48
    copies: int = 20


QUICK = Times(0.2, 0.2, 0.1, 0.1, 0.1, 0.01, 8, 4)


def bench_command(
    resolved: Resolved, argv: list[str], *, reference: Path | None, quick: bool, json_wanted: bool = False
) -> int:
    """Measure this machine by a config, print the table or JSON, and keep the row in cache_dir; exit code 0.

    argv: the keys of the run, as given. reference: a file of rows of a machine of the same kind. None: the rows that
    were kept here. Raises DataError for a reference without such a row, and what a run raises that cannot start.
    """
    require_data_dir(resolved.config)
    vendor = load_vendor(resolved.config.name)
    require_machine(vendor, resolved)
    config, system = resolved.config, machine_of(vendor.describe_system())
    values = config.model_dump(mode="json")
    row: dict[str, Any] = {
        "kind": KIND,
        "date": time.strftime("%Y-%m-%d"),
        "commit": source_commit(),
        "quick": quick,
        "framework": system.pop("framework"),
        "machine": system,
        "keys": {key: values[key] for key in KEYS},
        "images": "made" if config.data_dir is None else "of data_dir",
    }
    kept = config.cache_dir / "measured" / ("bench-quick.jsonl" if quick else "bench.jsonl")
    before = _reference(reference, kept, row)
    with TemporaryDirectory(prefix="ssd-bench-", dir=_disk(resolved)) as name:
        found, disk, trials, chosen = _measure(resolved, argv, Path(name), QUICK if quick else Times(), quick)
    row |= {"load": round(os.getloadavg()[0], 1), "figures": found.parts()}
    keep_row(kept, row)
    whole = Found(
        device=vendor.device_of(config),
        num_workers=config.num_workers,
        figures=found,
        disk=disk,
        trials=trials,
        chosen=chosen,
        row=row,
        before=before,
        behind=fallen(found.parts(), before["figures"]) if before else (),
        kept=kept,
    )
    if json_wanted:
        sys.stdout.write(as_json(whole))
    else:
        show(whole)
    return EXIT_REACHED


def _reference(named: Path | None, kept: Path, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row to compare with: of the file that is named, else of those that were kept here. None where none is kept.

    Raises DataError where a file is named and has no such row.
    """
    if named is None:
        return reference_of(read_rows(kept), row) if kept.is_file() else None
    rows = read_rows(named)
    if (found := reference_of(rows, row)) is None:
        raise DataError(
            f"--reference {named}: none of its {len(rows)} rows is of this kind of machine ({row['machine']}), these "
            f"keys ({row['keys']}) and images ({row['images']}): measure such a machine with the same command"
        )
    return found


def _disk(resolved: Resolved) -> Path:
    """A folder on the disk that is measured where there is no data_dir."""
    folder = resolved.config.cache_dir
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _measure(
    resolved: Resolved, argv: list[str], folder: Path, times: Times, quick: bool
) -> tuple[Figures, DiskRead, list[Trial], dict[str, Any]]:
    """Every part in turn, those of the host first. folder: for made pictures."""
    config, cores = resolved.config, len(os.sched_getaffinity(0))
    data_dir = config.data_dir
    if data_dir is None:
        log.info("no data_dir: pictures are made, of the size of COCO's")
        data_dir = folder / "made"
        make_folder(data_dir, config.num_classes, times.pictures, times.copies)
    index = load_index(annotation_file(data_dir, TRAIN), config.cache_dir)
    names = index.file_names[index.with_boxes()[:MOST_FILES]].tolist()
    images = data_dir / TRAIN
    log.info("disk, and decoding on one core and on %d", cores)
    disk = read_files([images / name for name in names], config.num_workers, times.disk)
    one, _ = decoded_per_second(jpeg_loader(index, images, 1, BATCH), times.decode, time.process_time)
    every, _ = decoded_per_second(jpeg_loader(index, images, cores, BATCH), times.decode)

    log.info("steps and an evaluation on one device, without the loader")
    base = {**UNTIMED, "output": folder}
    synthetic = {**base, **SYNTHETIC}
    run = open_run(alone(resolved, **synthetic), folder)
    step = _images_per_s(run, times.step)
    evaluation = len(run.source.rows) / median(map(sum, evaluation_seconds(run, times.evaluation)))
    copy = copied_per_second(run.abilities, config.train_batch_size, times.copy)
    size = gradient_bytes(sum(one.numel() for one in run.model.parameters()), config)
    abilities = run.abilities
    del run
    log.info("steps with the loader")
    backend = "threads" if config.data_backend == "synthetic" else config.data_backend
    data_step = _images_per_s(
        open_run(alone(resolved, **base, data_dir=data_dir, data_backend=backend), folder), times.step
    )
    seconds = None
    if config.nproc_per_node > 1:
        log.info("gradients averaged by %d processes", config.nproc_per_node)
        seconds = all_reduced(argv, config.nproc_per_node)

    def rate(changed: Mapping[str, Any]) -> float:
        log.info("trying %s", ", ".join(f"{key} = {value}" for key, value in changed.items()))
        gc.collect()
        return _images_per_s(open_run(alone(resolved, **synthetic, **changed), folder), times.trial)

    chosen, trials = search(config, step, options(config, abilities, quick), rate)
    figures = Figures(
        cores=cores,
        devices=config.nproc_per_node,
        shares_cores=abilities.is_host,
        batch=config.train_batch_size * config.gradient_accumulation_steps,
        decode_core=one,
        decode_all=every,
        read=disk.bytes_per_s / disk.mean_bytes,
        copy=copy,
        step=step,
        data_step=data_step,
        evaluation=evaluation,
        all_reduce=None if seconds is None else size / seconds,
        all_reduce_s=seconds,
    )
    return figures, disk, trials, chosen


def _images_per_s(run: Run, seconds: float) -> float:
    return run.config.global_batch / median(step_seconds(run, seconds))
