"""Builds a run that is ready to train: ops, model, optimizer, loss scaler, step, loss watch.

Everything slow that needs no training image happens here, between init_start and init_stop of the result log.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import torch

from ssd.account.timeline import rounded
from ssd.boxes import DefaultBoxes, default_boxes
from ssd.compute.copies import side_copies
from ssd.compute.gradients import FlatGradients
from ssd.compute.graphs import CudaGraphs, GraphedImages, GraphedStep, WholeStep
from ssd.compute.native import emulation_words, native_units
from ssd.compute.precision import DTYPES, LossScaler
from ssd.compute.step import TrainStep, Update, untouched, warm_up
from ssd.config.keys import COMPUTE
from ssd.config.roles import keys_of_role
from ssd.counts import evaluation_epochs
from ssd.data.resident import ResidentLoader
from ssd.mlperf.events import CACHES_DROPPED_VARIABLE
from ssd.ops import Detections, Ops
from ssd.run.build import Built, build, restore
from ssd.run.checkpoint import CHECKPOINT, PREVIOUS, Checkpoint
from ssd.run.evaluation import blank_batches, detect_all, detections, input_channels
from ssd.run.facts import run_facts
from ssd.run.live import Position, Run, Work
from ssd.run.loss_watch import LossWatch
from ssd.run.progress import METRICS_SCHEMA, Clock
from ssd.run.records import Records
from ssd.run.sampling import Sampling
from ssd.run.saves import Saves
from ssd.run.start import Start
from ssd.run.step_record import StepRecord
from ssd.run.stops import Stops
from ssd.text import counted
from ssd.vendor import select_ops

__all__ = ["set_up"]


def set_up(start: Start, records: Records) -> Run:
    """Build the run, from its checkpoint where it has one, and warm up what is compiled. Every rank must call it."""
    config, vendor, ranks, device = start.config, start.vendor, start.ranks, start.device
    events, metrics, line = records.events, records.metrics, records.line
    facts = run_facts(config, start.seed, start.loader.samples, len(start.source.rows))
    events.submission_info(facts)
    events.cache_clear(done=os.environ.get(CACHES_DROPPED_VARIABLE) == "1")
    events.init_start()
    line.say(
        f"seed {start.seed}, {counted(ranks.world_size, 'process', 'processes')} on {device.type}, "
        f"global batch {config.global_batch}, "
        f"{start.folder}"
    )
    line.say(", ".join(f"{key} {getattr(config, key)}" for key in keys_of_role(type(config), COMPUTE)))
    if start.abilities.is_host and (words := emulation_words(config.precision, native_units())):
        line.say(words)
    with start.timeline.part("kernels"):
        ops, origins = select_ops(vendor, config)
    for origin in origins:
        line.say(origin)
    if isinstance(start.loader, ResidentLoader):
        start.loader.crop = ops.crop
    if start.saved:
        metrics.write("resumed", step=start.saved.step, overrides=origins)
    else:
        metrics.write("start", schema=METRICS_SCHEMA, seed=start.seed, overrides=origins, repeats=start.loader.repeats)

    defaults = default_boxes().to(device)
    position, from_previous = Position(), config.resume_from == "previous"
    with start.timeline.part("model"):
        built = build(start)
        if saved := start.saved:
            position = Position(saved.step, list(saved.evaluations), _is_open(saved))
            restore(built, saved, config, start.folder / (PREVIOUS if from_previous else CHECKPOINT))
    sampling = Sampling(start.abilities, start.loader.steps_per_epoch)
    with start.timeline.part("compile" if config.compile or config.cuda_graph else "warm_up"):
        work = _work(start, built, ops, defaults, sampling)
    # The warm-up made a step and an evaluation, and torch keeps what they took. So images may have what is free now.
    if isinstance(start.loader, ResidentLoader) and (free := start.abilities.free_bytes) is not None:
        start.loader.require_room(free)
    built.model.train()
    clock = Clock(_already(saved) if saved else {}, start.timeline)
    watch = LossWatch(
        start.abilities,
        ranks,
        clock,
        metrics,
        line,
        image_ids=start.loader.index.image_ids,
        remembered=2 * config.log_freq * config.gradient_accumulation_steps,
        last_step=start.last_step,
        global_batch=config.global_batch,
    )
    recorded = built.model.named_parameters() if config.record_norms else ()
    steps = StepRecord(start.abilities, ranks, metrics, start.loader.index.image_ids, recorded)
    events.hyperparameters(replace(facts, backbone_sha256=built.backbone_sha256))
    if config.division == "closed":
        events.weights_initialization(built.parameters)
    limit = min(config.step_timeout, config.collective_timeout)
    ranks.limit_steps(built.model, limit)
    events.init_stop()
    metrics.write("set_up", parts=rounded(start.timeline.totals()))
    return Run(
        config=config,
        vendor=vendor,
        ranks=ranks,
        device=device,
        folder=start.folder,
        seed=start.seed,
        loader=start.loader,
        source=start.source,
        last_step=start.last_step,
        ops=ops,
        defaults=defaults,
        model=built.model,
        optimizer=built.optimizer,
        scaler=built.scaler,
        work=work,
        sampling=sampling,
        backbone_sha256=built.backbone_sha256,
        position=position,
        saves=Saves(keep=not from_previous),
        stops=Stops(ranks, timeout=limit),
        clock=clock,
        watch=watch,
        steps=steps,
        records=records,
        inputs=start.inputs,
    )


def _already(saved: Checkpoint) -> dict[str, float]:
    """The seconds of the run so far, by kind of work.

    The time since the checkpoint was written counts for the run, though its work is lost. It is the kind "lost".
    """
    lost = max(0.0, time.time() - saved.written)
    seconds = saved.seconds
    return {**seconds, "run": seconds["run"] + lost, "lost": seconds.get("lost", 0.0) + lost}


def _is_open(saved: Checkpoint) -> bool:
    """Whether the run was stopped between the last step of an epoch and the evaluation that was due after it."""
    config, (epoch, rest) = saved.run_config(), divmod(saved.step, saved.steps_per_epoch)
    due = evaluation_epochs(config.epochs, config.eval_epochs, config.eval_interval)
    return not rest and epoch in due and all(scored != epoch for scored, _ in saved.evaluations)


def _work(start: Start, built: Built, ops: Ops, defaults: DefaultBoxes, sampling: Sampling) -> Work:
    """Distribute the model, choose an eager or a captured step, and warm up what is compiled, on blank batches."""
    config, ranks, device, model = start.config, start.ranks, start.device, built.model
    wire, one_buffer = DTYPES[config.allreduce_dtype], config.cuda_graph or ranks.through_host
    flat = FlatGradients(model, ranks, wire) if one_buffer else None
    update = Update(built.optimizer, built.scaler.step, flat, sampling.mark)
    trained = start.vendor.distribute(model, config, device) if ranks.world_size > 1 and flat is None else model
    eager = TrainStep(
        trained,
        ops,
        defaults,
        built.scaler.backward,
        device,
        precision=config.precision,
        channels=input_channels(config),
        channels_last=config.nhwc,
        accumulation=config.gradient_accumulation_steps,
        mark=sampling.mark,
        non_blocking=start.abilities.pinned_memory,
        copies=side_copies(start.abilities),
    )
    work = Work(eager, trained, update)
    share = len(start.source.rows[ranks.rank :: ranks.world_size])
    batches = blank_batches(share, config.eval_batch_size)
    if config.cuda_graph:
        work = _captured(start, built, work, ops, defaults, [len(batch.images) for batch in batches])
    elif config.compile or device.type != "cpu":
        warm_up(eager, model, config.train_batch_size)
    if config.compile or device.type != "cpu":
        with untouched(model):
            detect_all(model, batches, ops, defaults, start.abilities, config, captured=work.detect)
    return work


def _captured(start: Start, built: Built, work: Work, ops: Ops, defaults: DefaultBoxes, eval_sizes: list[int]) -> Work:
    """The work of a run with what its key `graph_scope` says captured as CUDA graphs."""
    config, model, eager = start.config, built.model, work.step
    assert isinstance(eager, TrainStep)
    most_boxes = int(np.diff(start.loader.index.offsets).max())
    exchanges = start.ranks.world_size > 1 and (config.graph_scope != "gradients" or config.bn_group > 1)
    capture = CudaGraphs(start.device, min(config.step_timeout, config.collective_timeout) if exchanges else None)
    sizes = config.train_batch_size, most_boxes
    if config.graph_scope == "gradients":
        return replace(work, step=GraphedStep(eager, capture, *sizes))
    assert isinstance(built.scaler, LossScaler)
    whole = WholeStep(eager, work.update, built.scaler, capture, *sizes)
    step = GraphedStep(eager, capture, *sizes) if config.gradient_accumulation_steps > 1 else eager
    work = replace(work, step=step, whole=whole)
    if config.graph_scope == "step":
        return work
    was_training = model.training
    model.eval()
    with torch.inference_mode(), untouched(model):
        graphed = GraphedImages(
            lambda images: tuple(vars(detections(images, model, ops, defaults, config)).values()),
            capture,
            eval_sizes,
            start.device,
        )
    model.train(was_training)
    return replace(work, detect=lambda images: Detections(*graphed(images)))
