"""How long runs of a config take on this machine, in a sentence: `check` and `campaign` say the numbers of `plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ssd.config import Config
from ssd.counts import last_step
from ssd.errors import ConfigError
from ssd.plan.measured import read_measured
from ssd.plan.predict import predict, run_seconds
from ssd.plan.sources import Source, best_source, kept_measurement
from ssd.text import counted

__all__ = ["how_long", "source_here"]

UNKNOWN = "unknown: nothing was measured here, and no published row has this device; `plan --measure` times it"


def source_here(config: Config, images: int, timed: Path | None = None) -> Source | None:
    """The best numbers for runs of the config on this machine, on so many training images; None without any.

    timed: the folder of a short run of this config, which is used where nothing better was measured here.
    """
    kept = kept_measurement(config)
    measured = [kept] if kept else [read_measured(timed)] if timed else []
    try:
        return replace(best_source(config, measured, None), images=images)
    except ConfigError:
        return None


def how_long(config: Config, source: Source | None, runs: int = 1) -> str:
    """A sentence: the time at most, the likely time with its range, and where both come from. Times of all `runs`."""
    if source is None:
        return UNKNOWN
    found = predict(config, source, config.world_size)
    last = last_step(config.epochs, found.steps_per_epoch, config.max_steps)
    most = run_seconds(config, source, config.world_size, last / found.steps_per_epoch, found.step_ms)
    text = f"at most {_time(runs * most)}"
    text += f" ({counted(runs, 'run')}, each {counted(last, 'step')} of {found.step_ms:,.1f} ms)"
    if found.minutes and found.epochs and last == config.epochs * found.steps_per_epoch:
        low, middle, high = (_time(runs * 60 * value) for value in found.minutes)
        text += f"; about {middle} ({low} to {high}) at {found.epochs[1]:.3g} epochs to the target"
    text += f". Step: {source.figures['step']}. Evaluation: {source.figures['evaluation']}."
    if source.set_up_s is not None:
        text += f" Set-up comes on top, {source.set_up_s:.0f} s a run."
    else:
        text += " Set-up comes on top."
    return text


def _time(seconds: float) -> str:
    if seconds >= 6 * 60:
        return f"{seconds / 3600:.2f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} s"
