"""One prediction: a config on N accelerators, from the best numbers at hand. Each prediction says which.

What no row has measured (more hosts than were, waiting for the slowest of many ranks) is simulated, and widens the
interval of the prediction that it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ssd.compute.memory import required_bytes
from ssd.config import Config
from ssd.counts import steps_per_epoch
from ssd.plan.constants import stated
from ssd.plan.epochs import LARGEST_BATCH, evaluations_until, pass_probability, reference_epochs
from ssd.plan.observed import observed_epochs, span_of
from ssd.plan.simulate import Machine, all_reduce_ms, slowest_of
from ssd.plan.sources import Source, step_range
from ssd.text import counted

__all__ = ["Prediction", "epochs_of", "predict", "run_seconds", "with_chance"]

COCO_CLASSES = 81
DTYPE_BYTES = {"fp32": 4, "bf16": 2}
Span = tuple[float, float, float]
"""Low, middle, high: eight of ten runs lie between low and high."""


@dataclass(frozen=True)
class Prediction:
    """A config on `accelerators`. Times of a step in ms, of a run in minutes.

    step_span: of the time of a step. epochs: to the target; None where nobody knows. epochs_from: who says so. minutes:
    from run_start to run_stop, to the target. most_minutes: to the config's last epoch. host_cores: of each host, to
    feed it; storage_mb: MB/s that each host reads. memory_gib: of each process, estimated. disk_gb: of each host.
    all_reduce_ms, slowest_ms: simulated (ssd.plan.simulate). penalty: epochs beside those of the smallest reference
    point, a factor; None where unknown. pass_probability: that five runs pass the reference-convergence check.
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
    step_span: Span
    images_per_s: float
    host_cores: int
    storage_mb: float
    evaluation_s: float
    start_s: float
    set_up_s: float | None
    epochs: Span | None
    epochs_from: str
    minutes: Span | None
    most_minutes: float
    memory_gib: float
    disk_gb: float
    all_reduce_ms: float
    slowest_ms: float
    penalty: float | None
    pass_probability: float | None
    limit: str
    notes: tuple[str, ...]


def predict(config: Config, source: Source, accelerators: int, machine: Machine | None = None) -> Prediction:
    """A config's run on so many accelerators, each host holding `nproc_per_node` of them.

    The config's batch is made smaller where the global batch would pass the largest of the reference: notes say so.
    machine: what the user states of hosts and network. The chance of passing is left out: see `with_chance`.
    """
    machine = machine or Machine()
    if machine.rank_spread is None:
        machine = replace(machine, rank_spread=source.rank_spread)
    each_host = min(config.nproc_per_node, accelerators)
    nodes = -(-accelerators // each_host)
    local, notes = _local_batch(config, accelerators)
    batch = local * accelerators
    parts = source.constants.parts_ms(source.device, local, nodes, slower=source.slower)
    step_ms, limit = sum(parts.values()), max(parts, key=lambda part: parts[part])
    reduce_ms = all_reduce_ms(machine, config.width, DTYPE_BYTES[config.allreduce_dtype], nodes)
    slowest_ms = slowest_of(machine, accelerators) * (parts["launch"] + parts["arithmetic"])
    low, high = step_range(source, local)
    if source.one_batch not in (None, local):
        notes.append(f"one batch alone was timed ({source.one_batch:g}), so launch and image are not told apart")
    elif not source.batches[0] <= local <= source.batches[1]:
        notes.append("outside the data: batches of {:g} to {:g} a process were timed".format(*source.batches))
    if accelerators > source.largest:
        notes.append(
            f"beyond the data: the largest system in them has {counted(source.largest, 'accelerator')}; on paper an "
            f"all-reduce takes {reduce_ms:.2f} ms more and the slowest rank {slowest_ms:.2f} ms, where "
            f"{parts['communication']:.2f} ms are counted"
        )
        paper = step_ms - parts["communication"] + reduce_ms + slowest_ms
        low, high = low * min(1.0, paper / step_ms), high * max(1.0, paper / step_ms)
    cores = -(-each_host * local * 1000 // round(step_ms * stated("loader_per_core"))) if step_ms else 0
    fed_ms, fed = _fed(machine, each_host * local)
    if fed_ms > step_ms:
        step_ms, limit = fed_ms, fed
    (epochs, epochs_from), steps = epochs_of(config, source, batch), steps_per_epoch(source.images, batch)
    if epochs and epochs[1] > config.epochs:
        notes.append(f"the config ends at epoch {config.epochs}: it needs a larger --epochs")

    def minutes(epoch: float, factor: float) -> float:
        return run_seconds(config, source, accelerators, epoch, step_ms * factor) / 60

    spans = tuple(minutes(*one) for one in zip(epochs, (low, 1.0, high), strict=True)) if epochs else None
    one = config.model_copy(update={"train_batch_size": local, "nproc_per_node": 1})
    coco = config.num_classes == COCO_CLASSES
    few, many = (reference_epochs(1), reference_epochs(batch)) if coco else (None, None)
    rate = batch / step_ms * 1000
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
        step_span=(step_ms * low, step_ms, step_ms * high),
        images_per_s=rate,
        host_cores=cores,
        storage_mb=rate / nodes * stated("image_mb"),
        evaluation_s=source.overhead.evaluation_s(accelerators),
        start_s=source.overhead.start + source.overhead.first_epoch,
        set_up_s=source.set_up_s,
        epochs=epochs,
        epochs_from=epochs_from,
        minutes=(spans[0], spans[1], spans[2]) if spans else None,
        most_minutes=minutes(config.epochs, 1.0),
        memory_gib=required_bytes(one) / 2**30,
        disk_gb=stated("run_gb") + (stated("coco_gb") if coco and config.data_backend != "synthetic" else 0.0),
        all_reduce_ms=reduce_ms,
        slowest_ms=slowest_ms,
        penalty=many / few if few and many else None,
        pass_probability=None,
        limit=limit,
        notes=tuple(notes),
    )


def with_chance(prediction: Prediction, config: Config, source: Source) -> Prediction:
    """The same, with the chance that five runs pass. It takes longer than the rest, and a search does not need it."""
    if config.num_classes != COCO_CLASSES:
        return prediction
    return replace(prediction, pass_probability=pass_probability(source.spread, prediction.global_batch))


def run_seconds(config: Config, source: Source, accelerators: int, epochs: float, step_ms: float) -> float:
    """Seconds from run_start to run_stop of a run that ends after so many epochs. The one place that says it."""
    batch = _local_batch(config, accelerators)[0] * accelerators
    evaluations = evaluations_until(epochs, config.epochs, config.eval_epochs, config.eval_interval)
    rest = source.overhead.total_s(accelerators, evaluations)
    return epochs * steps_per_epoch(source.images, batch) * step_ms / 1000 + rest


def _local_batch(config: Config, accelerators: int) -> tuple[int, list[str]]:
    """Images a process and step, and a note where that is less than the config's."""
    asked = config.train_batch_size * config.gradient_accumulation_steps
    local = max(1, min(asked, LARGEST_BATCH // accelerators))
    note = f"batch {local} a process instead of {asked}: the global batch stays within {LARGEST_BATCH:,}"
    return local, [note] if local != asked else []


def _fed(machine: Machine, images: int) -> tuple[float, str]:
    """Milliseconds in which a host can read and decode a step's `images`, and which of both takes longer."""
    by_cores = images / (machine.host_cores * stated("loader_per_core")) if machine.host_cores else 0.0
    by_storage = images * stated("image_mb") / machine.storage_mb if machine.storage_mb else 0.0
    return max(by_cores, by_storage) * 1000, "input" if by_cores >= by_storage else "storage"


def epochs_of(config: Config, source: Source, batch: int) -> tuple[Span | None, str]:
    """Epochs to the target, and who says so: runs of the user's own, the reference on COCO, this project's runs."""
    observed, words = source.own_epochs, counted(len(source.own_epochs), "run") + " of your own"
    if not observed and config.num_classes == COCO_CLASSES:
        return source.spread.epochs(batch), "the ruleset's reference convergence points, spread as published runs"
    if not observed and batch == config.global_batch:
        observed = observed_epochs(config)
        words = f"{counted(len(observed), 'run')} of this config, each with a seed of its own (base/config)"
    if not observed:
        return None, "nobody knows"
    return span_of(observed), words
