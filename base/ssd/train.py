"""The run, in the order it happens: run_start, epochs of steps, evaluation, stop at the target, run_stop.

    bash run_training.sh --name cpu --config demo          # what users call; each process of it calls `train`
    python -m ssd train --name cpu --config smoke          # one process, no launcher

There are no hooks or callbacks: every line below is a call by name. Nothing inside a step synchronises the host with
the device. The loss is read back one logging interval late. Nor does an epoch's end, unless an evaluation or a
checkpoint follows. A call that does synchronise says so in its docstring.
What happens before run_start is in ssd.run.start and ssd.run.setup. What happens after run_stop is in ssd.run.outcome.
"""

from __future__ import annotations

import logging
from contextlib import closing

import torch

from ssd.account.timeline import Timeline
from ssd.compute.ranks import Ranks, average_batch_norm, averaged_batch_norm, lost_peer
from ssd.config import Resolved
from ssd.counts import evaluation_epochs
from ssd.errors import NotFiniteError
from ssd.run.line import RUN_LOG, text_log
from ssd.run.live import Run
from ssd.run.notes import EpochNotes, record_account
from ssd.run.outcome import exit_code, report_outcome, write_run_summary
from ssd.run.records import open_records
from ssd.run.schedule import learning_rate_at
from ssd.run.scoring import Scoring
from ssd.run.setup import set_up
from ssd.run.start import ended, own_folder, saved_run, start_run
from ssd.run.usage import usage
from ssd.vendor import Vendor, load_vendor, require_device

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(resolved: Resolved, started: float | None = None) -> int:
    """Train as one process of the run that `resolved` describes. Return the exit code of its outcome (ssd.errors).

    started: when this process began, in seconds of time.perf_counter (ssd.account.timeline), by default now.

    Raises SsdError for what a user can mend: a bad configuration, bad data, a lost process, a loss that is not finite.
    """
    config, timeline = resolved.config, Timeline(started)
    vendor = load_vendor(config.name)
    ranks = Ranks.from_environment()
    timeline.stage("process_group")
    device = vendor.set_up(config, ranks.local_rank)
    require_device(vendor, config, device)
    ranks = ranks.connect(vendor.backend_for(device), device, config.collective_timeout)
    timeline.stage("set_up")
    try:
        code = _run(resolved, vendor, device, ranks, timeline)
    except RuntimeError as error:
        if lost := lost_peer(error, ranks):
            raise lost from error
        raise
    try:
        ranks.close()
    except RuntimeError as error:  # the run has ended already, so this failure does not change its exit code
        log.warning("leaving the process group: %s", error)
    return code


def _run(resolved: Resolved, vendor: Vendor, device: torch.device, ranks: Ranks, timeline: Timeline) -> int:
    """Prepare the run, train, and report. Return the exit code. A run that has ended already is not trained again."""
    config = resolved.config
    with own_folder(config, ranks) as folder:
        saved = saved_run(config, ranks, folder)
        if saved and (code := ended(config, ranks, folder, saved)) is not None:
            return code
        start = start_run(resolved, vendor, device, ranks, folder, saved, timeline)
        with text_log(folder / RUN_LOG if ranks.is_rank_0 else None):
            with open_records(start) as records:
                run = set_up(start, records)
                epochs, scoring = EpochNotes(run), Scoring(run)
                try:
                    with run.stops.listening():
                        _go(run, epochs, scoring)
                except NotFiniteError as error:  # a run that diverged has a result too, so its summary is written
                    run.steps.write()
                    epochs.write()
                    write_run_summary(run, error.exit_code, usage(run, ended=False))
                    raise
            code = exit_code(run)
            report_outcome(run, code, scoring.rows, {**usage(run), "steps_beyond": scoring.beyond})
            return code


def _go(run: Run, epochs: EpochNotes, scoring: Scoring) -> None:
    """Train until the target is reached or the last step is done."""
    config, clock, timeline, at = run.config, run.clock, run.clock.timeline, run.position
    events, watch, work, sampling = run.records.events, run.watch, run.work, run.sampling
    steps_per_epoch = run.loader.steps_per_epoch
    due = evaluation_epochs(config.epochs, config.eval_epochs, config.eval_interval)
    evaluated = at.evaluations[-1][0] if at.evaluations else 0
    events.run_start()
    clock.start()
    timeline.stage("start")

    for epoch in range(at.step // steps_per_epoch + (0 if at.open else 1), config.epochs + 1):
        first_step = at.step - (epoch - 1) * steps_per_epoch
        if at.reached(config.threshold) or (at.step >= run.last_step and not at.open):
            break
        block = evaluated + 1
        if first_step == 0:  # a run that was resumed in the middle of this epoch has logged its start already
            if epoch == block:
                events.block_start(block, min(done for done in due if done >= epoch) - block + 1)
            events.epoch_start(epoch)

        before = timeline.totals()
        timeline.stage("between")
        asked = won = at.open = False
        with closing(run.loader.epoch(epoch, first_step)) as batches, timeline.part("step"):
            for place in range(first_step, steps_per_epoch):
                sampling.begin(at.step + 1, place)
                rate = learning_rate_at(config, at.step, epoch)
                for group in run.optimizer.param_groups:
                    group["lr"] = rate
                for micro in range(config.gradient_accumulation_steps):
                    with clock.measure("data"):
                        batch = next(batches)
                    sampling.mark("")
                    last = micro + 1 == config.gradient_accumulation_steps
                    losses = work.micro_batch(batch, last)
                    sampling.mark("backward")
                    watch.add(at.step + 1, epoch, batch.rows, losses)
                    run.steps.add(at.step + 1, epoch, micro, batch, losses)
                sampling.mark("")
                work.finish()
                at.step += 1
                asked = run.stops.after_step(run.saves.due(config.checkpoint_minutes), scoring.is_known())
                ends = at.step == run.last_step or bool(run.stops.number)
                if asked or ends or at.step % config.log_freq == 0 or at.step % steps_per_epoch == 0:
                    run.steps.put(at.step)
                    watch.put(at.step, epoch, rate)
                    watch.read()
                won = (run.stops.scored or asked or ends) and scoring.settle()
                if ends or won:
                    break
                if asked and place + 1 < steps_per_epoch:
                    _save_amid(run, epochs)
            # A run that is stopped does not begin an evaluation: it may take longer than a scheduler waits.
            whole = at.step % steps_per_epoch == 0 and not (run.stops.number and epoch in due)
            evaluates = whole and epoch in due
            ends = at.step == run.last_step or epoch == config.epochs or bool(run.stops.number)
            saves = ends or asked or bool(config.checkpoint_interval and epoch % config.checkpoint_interval == 0)
            won = won or ((evaluates or saves) and scoring.settle())
            if won:  # by weights of an earlier epoch, and their checkpoint is written: this epoch does not count
                whole = evaluates = saves = False
            # What reads the weights waits for the device. Other epochs end while it works, and are recorded later.
            waits = evaluates or saves or won
            if waits:
                watch.drain()
            if evaluates and saves and config.async_eval and not ends:
                _save_amid(run, epochs)  # a run that goes on from here evaluates these weights itself
                saves = False

        if whole:
            events.epoch_stop(epoch)
            epochs.put(epoch, timeline.since(before))
        run.steps.write(waits)
        epochs.write(waits)
        average_batch_norm(run.model, run.ranks, run.abilities.float64)

        if evaluates:
            events.block_stop(block)
            evaluated = epoch
            scoring.begin(epoch)
            won = ends and scoring.settle()
            ends = ends or at.reached(config.threshold)

        if (ends or saves) and not won:
            run.save()
        if ends or won:
            break

    run.stops.settle()
    events.run_stop("success" if at.reached(config.threshold) else "aborted")
    timeline.stage("end")
    record_account(run)


def _save_amid(run: Run, epochs: EpochNotes) -> None:
    """Write a checkpoint in the middle of an epoch, with all that is logged until now. Every rank must call it."""
    run.watch.drain()
    run.steps.write()
    epochs.write()
    with averaged_batch_norm(run.model, run.ranks, run.abilities.float64):
        run.save()
