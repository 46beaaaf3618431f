"""One prediction: a config on N accelerators, from the best numbers at hand.

Where the numbers come from, best first: runs of the user's own (`--measured`), published systems of the same chip, the
ratio of the chip's peak to the A100's. Each prediction says which.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssd.compute.memory import required_bytes
from ssd.config import Config
from ssd.counts import steps_per_epoch
from ssd.errors import ConfigError, DataError
from ssd.plan.epochs import LARGEST_BATCH, EpochSpread, epoch_spread, pass_probability
from ssd.plan.model import Constants, fit
from ssd.plan.overhead import Overhead, evaluations_until, fit_overhead
from ssd.plan.peaks import half_precision_peak, slower_by_peak
from ssd.plan.rows import TRAIN_IMAGES, Device, Row

__all__ = ["Measured", "Prediction", "Source", "by_measured", "by_published", "predict", "read_measured"]

LOADER_IMAGES_PER_CORE = 208
"""Images/s that one core decodes, crops and resizes: bench/loader.py, two workers on two cores of an AMD EPYC."""
COCO_CLASSES = 81
MEASURED_ERROR, PUBLISHED_ERROR, SCALED_ERROR = 0.05, 0.06, 0.5
"""Relative error of a step that is not exceeded in nine of ten cases. Measured: what repeats differ by. Published: 90%
of `plan --validate`. Scaled by peaks: V100 systems of round 0.7 lie 8 to 50% off, 8 x BI-V100 takes twice the time."""


@dataclass(frozen=True)
class Measured:
    """A run of the user's own. local_batch: images a process and step. step_ms: while training.

    epochs: to its target, None where it did not reach it. evaluation_s, start_s: seconds of one evaluation, and of all
    that is neither step nor evaluation. images: of the training set.
    """

    folder: Path
    accelerators: int
    nodes: int
    local_batch: int
    step_ms: float
    images: int
    evaluation_s: float
    start_s: float
    epochs: int | None


@dataclass(frozen=True)
class Source:
    """Where a prediction's numbers come from, in words, and how far off a step may be (nine of ten)."""

    words: str
    constants: Constants
    device: Device
    slower: float
    overhead: Overhead
    spread: EpochSpread
    measured_epochs: tuple[int, ...]
    images: int
    error: float
    largest: int
    """Accelerators of the largest system in the data."""


@dataclass(frozen=True)
class Prediction:
    """A config on `accelerators`. Times of a step in ms, of a run in minutes: (low, middle, high), eight of ten runs.

    epochs: to the target, the same way; None where nobody knows. pass_probability: that five runs pass the
    reference-convergence check. host_cores: of each host, to feed it. memory_gib: of each process, estimated.
    """

    accelerators: int
    nodes: int
    local_batch: int
    global_batch: int
    steps_per_epoch: int
    launch_ms: float
    arithmetic_ms: float
    communication_ms: float
    step_ms: float
    images_per_s: float
    host_cores: int
    evaluation_s: float
    start_s: float
    epochs: tuple[float, float, float] | None
    minutes: tuple[float, float, float] | None
    memory_gib: float
    pass_probability: float | None
    limit: str
    notes: tuple[str, ...]


def by_published(rows: Sequence[Row], device: Device) -> Source:
    """Numbers of published systems. ConfigError for a chip of which neither rows nor a peak are known."""
    constants = fit(rows)
    known = [row for row in rows if row.device.chip == device.chip]
    if known:
        words = f"{len(known)} published systems of {device.chip}"
        error = PUBLISHED_ERROR
    elif half_precision_peak(device.chip):
        words = f"a roofline: A100 systems, scaled by the peak arithmetic of {device.chip}; no published row has it"
        error = SCALED_ERROR
    else:
        raise ConfigError(
            f"accelerator {device.chip!r}: neither a published row nor a vendor's peaks know it. "
            "Give a run of your own: --measured RUN, or name another accelerator."
        )
    largest = max(row.accelerators for row in known or rows)
    slower = slower_by_peak(constants, device)
    overhead, spread = fit_overhead(rows), epoch_spread(rows)
    return Source(words, constants, device, slower, overhead, spread, (), TRAIN_IMAGES, error, largest)


def read_measured(folder: Path) -> Measured:
    """What a run's folder says. DataError where it lacks summary.json or config.json, or holds no rate."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values = {key: entry["value"] for key, entry in config.items()}
        processes = int(values["nproc_per_node"]) * int(values["nodes"])
        rate, batch, steps = float(summary["images_per_s"] or 0), int(summary["global_batch"]), int(summary["steps"])
        seconds, evaluations = summary["seconds"], summary["evaluations"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: not the folder of a finished run ({type(error).__name__}: {error})") from error
    if rate <= 0 or steps <= 0:
        raise DataError(f"{folder}: its run was too short to have a rate; train at least two logging intervals")
    step_s = batch / rate
    evaluating = float(seconds.get("evaluation", 0.0))
    last = int(evaluations[-1][0]) if evaluations else None
    return Measured(
        folder=folder,
        accelerators=processes,
        nodes=int(values["nodes"]),
        local_batch=batch // processes,
        step_ms=step_s * 1000,
        images=steps // last * batch if last else TRAIN_IMAGES,
        evaluation_s=evaluating / max(1, len(evaluations)),
        start_s=max(0.0, float(seconds["run"]) - steps * step_s - evaluating),
        epochs=last if summary["exit_code"] == 0 else None,
    )


def by_measured(runs: Sequence[Measured], rows: Sequence[Row]) -> Source:
    """Numbers of the user's own runs: floor and time of an image where two batch sizes were run, else the latter alone.

    What nodes add is taken from published systems: a run on one host cannot tell.
    """
    batches = np.array([run.local_batch for run in runs], float)
    times = np.array([run.step_ms for run in runs])
    if len(set(batches)) > 1:
        image, floor = np.polyfit(batches, times, 1)
    else:
        image, floor = float(np.median(times / batches)), 0.0
    if image <= 0 or floor < 0:  # noise larger than the difference of the batches
        image, floor = float(np.median(times / batches)), 0.0
    hosts = fit(rows).hosts
    constants = Constants(float(floor), float(image), hosts, 0.0, 0.0, 0.0, 0.0)
    published = epoch_spread(rows)
    evaluation, start = (float(np.median([getattr(run, name) for run in runs])) for name in ("evaluation_s", "start_s"))
    processes = max(run.accelerators for run in runs)
    overhead = Overhead(start, 0.0, 0.0, evaluation * processes)
    epochs = tuple(run.epochs for run in runs if run.epochs is not None)
    words = f"{len(runs)} run(s) of your own, {', '.join(sorted({str(run.folder) for run in runs}))}"
    device = Device("measured")
    return Source(words, constants, device, 1.0, overhead, published, epochs, runs[0].images, MEASURED_ERROR, processes)


def predict(config: Config, source: Source, accelerators: int, host_cores: int | None = None) -> Prediction:
    """A config's run on so many accelerators, each host holding `nproc_per_node` of them.

    The config's batch is made smaller where the global batch would pass the largest of the reference: notes say so.
    host_cores: of each host; where given, a step is no faster than they can feed it.
    """
    each_host = min(config.nproc_per_node, accelerators)
    nodes = -(-accelerators // each_host)
    per_process = config.train_batch_size * config.gradient_accumulation_steps
    local = max(1, min(per_process, LARGEST_BATCH // accelerators))
    notes = [f"batch {local} a process instead of {per_process}: the global batch stays within {LARGEST_BATCH:,}"]
    notes = notes if local != per_process else []
    if accelerators > source.largest:
        notes.append(f"beyond the data: its largest system has {source.largest} accelerators")
    batch = local * accelerators
    parts = source.constants.parts_ms(source.device, local, nodes, slower=source.slower)
    step_ms = sum(parts.values())
    cores = -(-each_host * local * 1000 // round(step_ms * LOADER_IMAGES_PER_CORE)) if step_ms else 0
    limit = max(parts, key=lambda part: parts[part])
    if host_cores is not None and cores > host_cores:
        step_ms, limit = each_host * local * 1000 / (host_cores * LOADER_IMAGES_PER_CORE), "input"
    epochs = _epochs(config, source, batch)
    steps = steps_per_epoch(source.images, batch)
    start = source.overhead.start + source.overhead.first_epoch

    def minutes(epoch: float, factor: float) -> float:
        rest = source.overhead.total_s(accelerators, evaluations_until(epoch))
        return (epoch * steps * step_ms * factor / 1000 + rest) / 60

    factors = (1 / (1 + source.error), 1.0, 1 + source.error)
    spans = tuple(minutes(epoch, factor) for epoch, factor in zip(epochs, factors, strict=True)) if epochs else None
    passing = None if config.num_classes != COCO_CLASSES else pass_probability(source.spread, batch)
    one = config.model_copy(update={"train_batch_size": local, "nproc_per_node": 1})
    return Prediction(
        accelerators=accelerators,
        nodes=nodes,
        local_batch=local,
        global_batch=batch,
        steps_per_epoch=steps,
        launch_ms=parts["launch"],
        arithmetic_ms=parts["arithmetic"],
        communication_ms=parts["communication"],
        step_ms=step_ms,
        images_per_s=batch / step_ms * 1000,
        host_cores=cores,
        evaluation_s=source.overhead.evaluation_s(accelerators),
        start_s=start,
        epochs=epochs,
        minutes=(spans[0], spans[1], spans[2]) if spans else None,
        memory_gib=required_bytes(one) / 2**30,
        pass_probability=passing,
        limit=limit,
        notes=tuple(notes),
    )


def _epochs(config: Config, source: Source, batch: int) -> tuple[float, float, float] | None:
    """Of the user's own runs where there are some, of the reference on COCO; None where nobody knows."""
    if source.measured_epochs:
        low, middle, high = np.quantile(source.measured_epochs, (0.1, 0.5, 0.9)).tolist()
        return low, middle, high
    return source.spread.epochs(batch) if config.num_classes == COCO_CLASSES else None
