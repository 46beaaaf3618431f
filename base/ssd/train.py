"""The run, in the order it happens: set-up, run_start, epochs of steps, evaluation, stop at the target, summary.

    bash run_training.sh --name cpu --config demo          # what users call; it ends up here, once a process
    python -m ssd train --name cpu --config smoke          # one process, no launcher

No hooks: every line below is a call by name, and nothing inside a step waits for the device. The loss is read back one
logging interval late; whatever may stop the device says so where it stands.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ssd.boxes import DefaultBoxes, default_boxes
from ssd.compute.apex import ApexScaler, amp_o2
from ssd.compute.batch_norm import convert_batch_norm
from ssd.compute.gradients import FlatGradients
from ssd.compute.precision import DTYPES, LossScaler
from ssd.compute.ranks import Ranks, average_batch_norm, lost_peer
from ssd.compute.step import CudaGraphs, GraphedStep, Step, TrainStep, untouched, warm_up
from ssd.config import Config, Resolved, write_resolved
from ssd.config.roles import COMPUTE_KEYS, RESUMABLE_KEYS
from ssd.counts import evaluation_epochs, last_step
from ssd.data.annotations import Index
from ssd.errors import (
    EXIT_MAX_STEPS,
    EXIT_NOT_CONVERGED,
    EXIT_REACHED,
    ConfigError,
    NotFiniteError,
)
from ssd.mlperf.events import CACHES_DROPPED_VARIABLE, EventWriter
from ssd.mlperf.system import describe_system
from ssd.model import build_model
from ssd.ops import Ops
from ssd.report.mfu import share_of_peak
from ssd.report.picture import contact_sheet, detected, draw_boxes, truth
from ssd.report.summary import RunSummary, show_summary, source_commit, write_summary
from ssd.run.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from ssd.run.evaluation import STATISTICS, blank_batches, detect_all, evaluate, input_channels
from ssd.run.facts import run_facts
from ssd.run.loss_watch import LossWatch
from ssd.run.progress import Clock, Metrics, ProgressLine
from ssd.run.schedule import applied_learning_rate, learning_rate_at
from ssd.run.sources import EvalSource, open_sources
from ssd.run.telemetry import recorded
from ssd.vendor import Vendor, load_vendor, select_ops

__all__ = ["RESULT_LOG", "train"]

log = logging.getLogger(__name__)

RESULT_LOG = "result_0.txt"
PICTURE, PICTURED, PICTURED_SCORE = "detections.jpg", 12, 0.3


def train(resolved: Resolved) -> int:
    """Train as `resolved` says; the exit code of the outcome (ssd.errors). One process of the run.

    Raises SsdError for what a user can mend: bad configuration or data, a lost peer, a loss that is not finite.
    """
    config = resolved.config
    vendor = load_vendor(config.name)
    ranks = Ranks.from_environment()
    device = vendor.set_up(config, ranks.local_rank)
    ranks = ranks.connect(vendor.backend_for(device), device, config.collective_timeout)
    try:
        code = _run(resolved, vendor, device, ranks)
    except RuntimeError as error:
        if lost := lost_peer(error, ranks):
            raise lost from error
        raise
    ranks.close()
    return code


def _run(resolved: Resolved, vendor: Vendor, device: torch.device, ranks: Ranks) -> int:
    config = resolved.config
    folder = _own_folder(config, ranks)
    saved = ranks.broadcast(_saved_run(config, folder) if ranks.first and config.resume else None)
    seed = ranks.broadcast(_pick_seed(config, saved))
    clock = Clock(already=saved["seconds"] if saved else {})
    step, reached, backbone_sha256 = 0, False, None
    evaluations: list[tuple[int, float]] = []

    def summary(code: int) -> RunSummary:
        """The run as it stands."""
        rate = clock.images_per_second()
        arithmetic = "fp16" if config.amp == "apex_o2" else config.precision
        share, peak = share_of_peak(vendor.peaks(), device, arithmetic, rate / ranks.world, config.width)
        return RunSummary(
            name=config.name,
            config=config.config,
            exit_code=code,
            target=config.threshold,
            seed=seed,
            steps=step,
            global_batch=config.global_batch,
            width=config.width,
            backbone_sha256=backbone_sha256 or "",
            resumed=config.resume,
            commit=source_commit(),
            images_per_s=round(rate, 3),
            images_per_s_per_device=round(rate / ranks.world, 3),
            mfu=share,
            peak=peak,
            seconds={kind: round(seconds, 3) for kind, seconds in clock.totals().items()},
            evaluations=evaluations,
        )

    # What there is to train and evaluate on: annotation indexes only, no image is read before run_start
    loader, eval_source = open_sources(config, ranks, seed, device)
    if ranks.first and not config.resume:
        _make_folder(folder, resolved, vendor)
    metrics = Metrics(folder / "metrics.jsonl" if ranks.first else None)
    steps_per_epoch = loader.steps_per_epoch
    end = last_step(config.epochs, steps_per_epoch, config.max_steps)
    facts = run_facts(config, seed, loader.samples, len(eval_source.image_ids))

    with (
        _summary_of_divergence(folder if ranks.first else None, summary),
        EventWriter(folder / RESULT_LOG if ranks.first else None, append=config.resume) as events,
        ProgressLine(end, shown=ranks.first) as line,
        recorded(
            lambda index: vendor.telemetry(torch.device(device.type, index)),
            config.nproc_per_node,
            partial(metrics.write, "telemetry"),
            config.telemetry_interval if ranks.first else 0,
        ),
    ):
        # Set-up: everything slow that needs no data
        events.submission_info(facts)
        events.cache_clear(done=os.environ.get(CACHES_DROPPED_VARIABLE) == "1")
        events.init_start()
        line.say(
            f"seed {seed}, {ranks.world} process(es) on {device.type}, global batch {config.global_batch}, {folder}"
        )
        line.say(", ".join(f"{key} {getattr(config, key)}" for key in COMPUTE_KEYS))
        ops, origins = select_ops(vendor, config)
        for origin in origins:
            line.say(origin)
        metrics.write("start", seed=seed, overrides=origins, repeats=loader.repeats)
        defaults = default_boxes().to(device)
        torch.manual_seed(seed)
        network, backbone_sha256 = build_model(
            seed=seed,
            num_classes=config.num_classes,
            width=config.width,
            in_channels=input_channels(config),
            backbone_path=config.backbone_path if config.pretrained else None,
        )
        parameters = [name for name, _ in network.named_parameters()]  # a vendor's conversion may rename them
        model = convert_batch_norm(network, config.bn_group, ranks, config.collective_timeout)
        model = vendor.convert_model(model, config, device)
        optimizer = vendor.make_optimizer(model, config, applied_learning_rate(config))
        scaler: LossScaler | ApexScaler = LossScaler(optimizer, device, config.precision)
        if config.amp == "apex_o2":
            accumulation = config.gradient_accumulation_steps
            model, optimizer, scaler = amp_o2(
                model, optimizer, gradient_accumulation_steps=accumulation, precision=config.precision
            )
        if saved:
            step, evaluations = saved["step"], saved["evaluations"]
            reached = any(mean_ap >= config.threshold for _, mean_ap in evaluations)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            scaler.load_state_dict(saved["scaler"])
            torch.set_rng_state(saved["rng"])
        work = _work(config, vendor, model, ops, defaults, scaler, device, ranks, loader.index, eval_source)
        model.train()
        watch = LossWatch(device, ranks, clock, metrics, line, 2 * config.log_freq * config.gradient_accumulation_steps)
        events.hyperparameters(replace(facts, backbone_sha256=backbone_sha256 or ""))
        if config.division == "closed":
            events.weights_initialization(parameters)
        events.init_stop()
        events.run_start()
        clock.start()

        # Go
        due = evaluation_epochs(config.epochs, config.eval_epochs, config.eval_interval)
        rows: np.ndarray | None = None
        for epoch in range(step // steps_per_epoch + 1, config.epochs + 1):
            if reached or step >= end:
                break
            first_step = step % steps_per_epoch
            block = max((done + 1 for done in due if done < epoch), default=1)
            if epoch == block and first_step == 0:
                events.block_start(block, min(done for done in due if done >= epoch) - block + 1)
            events.epoch_start(epoch)

            with closing(loader.epoch(epoch, first_step)) as batches:
                for _ in range(first_step, steps_per_epoch):
                    rate = learning_rate_at(config, step, epoch)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    for micro in range(config.gradient_accumulation_steps):
                        with clock.measure("data"):
                            batch = next(batches)
                        last = micro + 1 == config.gradient_accumulation_steps
                        with nullcontext() if last else work.held_back():
                            losses = work.step(batch)
                        watch.add(step + 1, epoch, batch.image_ids, losses)
                    if work.flat:
                        work.flat.average_()
                    scaler.step()
                    optimizer.zero_grad(set_to_none=work.flat is None)
                    step += 1
                    if step % config.log_freq == 0 or step % steps_per_epoch == 0 or step == end:
                        watch.put(step, epoch, rate, step * config.global_batch)
                        watch.read(end - step, config.global_batch)
                    if step == end:
                        break

            watch.read(end - step, config.global_batch, everything=True)
            whole = step % steps_per_epoch == 0
            if whole:
                events.epoch_stop(epoch)
            metrics.write(
                "epoch",
                epoch=epoch,
                step=step,
                skipped_steps=scaler.skipped(),
                skipped_images=sum(ranks.gather(len(loader.skipped))),
                seconds=dict(clock.seconds),
            )
            average_batch_norm(model, ranks)

            if whole and epoch in due:
                events.block_stop(block)
                events.eval_start(epoch)
                with clock.measure("evaluation"):
                    rows = detect_all(
                        model, eval_source.loader, ops, defaults, eval_source.index.category_ids, device, config
                    )
                    statistics, rows = evaluate(
                        eval_source.ground_truth, rows, eval_source.image_ids, ranks, config.coco_metric
                    )
                mean_ap = float(statistics[0])
                events.eval_accuracy(epoch, mean_ap)
                events.eval_stop(epoch)
                reached = mean_ap >= config.threshold
                evaluations.append((epoch, mean_ap))
                metrics.write(
                    "evaluation", epoch=epoch, step=step, **dict(zip(STATISTICS, statistics.tolist(), strict=True))
                )
                line.say(f"epoch {epoch}: mAP {mean_ap:.4f}, target {config.threshold}")

            ends = reached or step == end or epoch == config.epochs
            if ends or (config.checkpoint_interval and epoch % config.checkpoint_interval == 0):
                with clock.measure("checkpoint"):
                    if ranks.first:
                        save_checkpoint(
                            folder / CHECKPOINT,
                            model=model.state_dict(),
                            optimizer=optimizer.state_dict(),
                            scaler=scaler.state_dict(),
                            rng=torch.get_rng_state(),
                            step=step,
                            seed=seed,
                            evaluations=evaluations,
                            seconds=clock.totals(),
                            categories=eval_source.categories,
                            config=config.model_dump_json(),
                        )
            if ends:
                break

        events.run_stop("success" if reached else "aborted")

    # What came of it
    code = EXIT_REACHED if reached else EXIT_MAX_STEPS
    if not reached and step == config.epochs * steps_per_epoch:
        code = EXIT_NOT_CONVERGED
    if ranks.first:
        found = summary(code)  # before the picture is drawn: the run's time ends here
        if rows is not None:
            found = replace(found, picture=_draw(folder / PICTURE, eval_source, rows))
        write_summary(folder / "summary.json", found)
        show_summary(found, folder)
    metrics.close()
    return code


@contextmanager
def _summary_of_divergence(folder: Path | None, summary: Callable[[int], RunSummary]) -> Iterator[None]:
    """Leave a summary of a run that diverged too: it is a result, and must not be mistaken for an interrupted one."""
    try:
        yield
    except NotFiniteError as error:
        if folder is not None:
            write_summary(folder / "summary.json", summary(error.exit_code))
        raise


@dataclass(frozen=True)
class _Work:
    """How a micro-batch is computed, and its gradients averaged: by DDP around the model, or, beside a recorded step,
    in one flat buffer."""

    step: Step
    trained: nn.Module
    flat: FlatGradients | None

    def held_back(self) -> AbstractContextManager[None]:
        """Inside, gradients are added up and not yet averaged: a micro-batch that is not the step's last."""
        if isinstance(self.trained, nn.parallel.DistributedDataParallel):
            return self.trained.no_sync()
        return nullcontext()


def _work(
    config: Config,
    vendor: Vendor,
    model: nn.Module,
    ops: Ops,
    defaults: DefaultBoxes,
    scaler: LossScaler | ApexScaler,
    device: torch.device,
    ranks: Ranks,
    index: Index,
    eval_source: EvalSource,
) -> _Work:
    """Distribute the model, choose eager or recorded, and warm up what compiles, on made-up data."""
    flat = FlatGradients(model, ranks, DTYPES[config.allreduce_dtype]) if config.cuda_graph else None
    trained = vendor.distribute(model, config, device) if ranks.world > 1 and flat is None else model
    eager = TrainStep(
        trained,
        ops,
        defaults,
        scaler.backward,
        device,
        precision=config.precision,
        channels=input_channels(config),
        channels_last=config.nhwc,
        accumulation=config.gradient_accumulation_steps,
    )
    step: Step = eager
    if config.cuda_graph:
        most_boxes = int(np.diff(index.offsets).max())
        step = GraphedStep(eager, CudaGraphs(device), config.train_batch_size, most_boxes)
    if config.compile or device.type != "cpu":
        if step is eager:
            warm_up(eager, model, config.train_batch_size)
        share = len(eval_source.rows[ranks.rank :: ranks.world])
        batches = blank_batches(share, config.eval_batch_size)
        with untouched(model):
            detect_all(model, batches, ops, defaults, eval_source.index.category_ids, device, config)
    return _Work(step, trained, flat)


def _draw(path: Path, source: EvalSource, rows: np.ndarray) -> str:
    """Draw the last evaluation's detections, and the ground truth, on the first images; the file's name."""
    batch = next(iter(source.loader))
    names = {category["id"]: category["name"] for category in source.ground_truth["categories"]}
    tiles = []
    for image, image_id, (width, height) in list(zip(batch.images, batch.image_ids, batch.sizes.tolist(), strict=True))[
        :PICTURED
    ]:
        known = truth(one for one in source.ground_truth["annotations"] if one["image_id"] == image_id)
        found = detected(rows[rows[:, 0] == image_id], names, PICTURED_SCORE)
        pixels = Image.fromarray(image.numpy())
        tiles.append(draw_boxes(pixels, known + found, (pixels.width / width, pixels.height / height)))
    contact_sheet(tiles).save(path, quality=92)
    return path.name


def _own_folder(config: Config, ranks: Ranks) -> Path:
    """The run's folder, not made yet. Raises ConfigError where there is none to be, or where it holds another run."""
    folder, problem = config.output, None
    if folder is None:
        raise ConfigError("output is missing: name the folder of the run (the launcher names one by date)")
    if ranks.first and not config.resume and folder.is_dir() and any(folder.iterdir()):
        remedy = "remove it: it ended before its first checkpoint"
        if (folder / CHECKPOINT).exists():
            remedy = "--resume to continue the run in it"
        problem = f"output = {folder} is not empty: choose another folder, or {remedy}"
    if problem := ranks.broadcast(problem):
        raise ConfigError(problem)
    return folder


def _make_folder(folder: Path, resolved: Resolved, vendor: Vendor) -> None:
    """Make the run's folder, with the resolved config and the machine's description in it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_resolved(folder / "config.json", resolved)
    system = describe_system(vendor.describe_system(), nodes=resolved.config.nodes)
    (folder / "system.json").write_text(json.dumps(system, indent=1) + "\n", encoding="utf-8")


def _pick_seed(config: Config, saved: dict[str, Any] | None) -> int:
    if saved:
        return saved["seed"]
    return config.seed if config.seed is not None else secrets.randbits(32)


def _saved_run(config: Config, folder: Path) -> dict[str, Any]:
    """The checkpoint to go on from. ConfigError where the resumed run would compute something else."""
    saved = load_checkpoint(folder / CHECKPOINT)
    before, now = json.loads(saved["config"]), json.loads(config.model_dump_json())
    changed = sorted(k for k in now if k not in RESUMABLE_KEYS and now[k] != before.get(k))
    if changed:
        changes = ", ".join(f"{key} was {before.get(key)} and is {now[key]}" for key in changed)
        raise ConfigError(f"--resume continues the same run, but {changes}; give the old values, or start a new run")
    return saved
