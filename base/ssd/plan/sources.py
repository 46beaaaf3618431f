"""Where the numbers of a prediction come from, best first, and which figure has which.

1. This machine, measured (`plan --measure`).  2. A run's folder (`--measured`).  3. Published systems of the same chip.
4. A roofline: the A100's time of an image, scaled by peak arithmetic and memory bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
import torch

from ssd.compute.device import UNKNOWN, device_count
from ssd.config import Config
from ssd.errors import ConfigError, DataError
from ssd.plan.constants import fitted_constants, fitted_overhead
from ssd.plan.epochs import EpochSpread, epoch_spread
from ssd.plan.measured import Measured, kept_file, machine_of, read_measured
from ssd.plan.model import Constants
from ssd.plan.overhead import Overhead
from ssd.plan.roofline import half_precision_peak, slower_by_roofline
from ssd.plan.rows import OTHERS, TRAIN_IMAGES, Device, Row, describe_device, read_rows
from ssd.text import counted
from ssd.vendor import load_vendor

__all__ = ["Source", "best_source", "by_measured", "by_published", "kept_measurement", "known_rows", "step_range"]

MEASURED_ERROR, PUBLISHED_ERROR, SCALED_ERROR = 0.05, 0.06, 0.5
"""Relative error of a step that is not exceeded in nine of ten cases. Measured: what repeats differ by, at least.
Published: 90% of `plan --validate`. Roofline: the V100's rows lie 13% above theirs, the BI-V100's row 2.3 times."""
NO_EVALUATION = "nobody measured it: counted as 0"


@dataclass(frozen=True)
class Source:
    """Numbers for predictions. figures: where each comes from, in words, by figure.

    error: how far off a step may be (nine of ten). largest: accelerators of the largest system in the data.
    batches: the least and the greatest local batch in the data; where they are one, floor and image cannot be told
    apart. set_up_s: seconds before run_start, None where unknown. own_epochs: of runs of the user's own. rank_spread:
    of a measured run with several ranks, else None.
    """

    figures: dict[str, str]
    constants: Constants
    device: Device
    slower: float
    overhead: Overhead
    spread: EpochSpread
    images: int
    error: float
    largest: int
    batches: tuple[float, float]
    set_up_s: float | None = None
    own_epochs: tuple[int, ...] = field(default=())
    rank_spread: float | None = None

    @property
    def one_batch(self) -> float | None:
        """The only local batch in the data; None where they have several."""
        return self.batches[0] if self.batches[0] == self.batches[1] else None

    @property
    def words(self) -> str:
        """Where the time of a step comes from."""
        return self.figures["step"]


def known_rows() -> list[Row]:
    """Every published row that can be used, of MLPerf's rounds and beside them."""
    return [*read_rows()[0], *read_rows(OTHERS)[0]]


def best_source(config: Config, measured: Sequence[Measured], accelerator: str | None) -> Source:
    """The best numbers at hand: what is given, else what was measured here and kept, else published ones.

    accelerator: a name, for another machine's plan; what was measured here is not used then. Raises ConfigError where
    nothing is known of the accelerator, and DataError where the kept file is damaged.
    """
    rows = known_rows()
    if measured:
        return by_measured(measured, rows)
    if accelerator is not None:
        return by_published(rows, describe_device(accelerator))
    if kept := kept_measurement(config):
        return by_measured([kept], rows)
    vendor = load_vendor(config.name)
    kind = vendor.device_of(config)
    if kind != "cpu" and device_count(kind) and (name := vendor.abilities(torch.device(kind, 0)).name) != UNKNOWN:
        return by_published(rows, describe_device(name))
    raise ConfigError(
        "which accelerator? This machine has none that published rows know: give --accelerator NAME, for example "
        '"A100-SXM4-80GB (400W)", or measure this machine: --measure, or give runs of your own: --measured RUN'
    )


def kept_measurement(config: Config) -> Measured | None:
    """What `plan --measure` has kept of this config on this machine, or None. DataError where the file is damaged."""
    path = kept_file(config, machine_of(load_vendor(config.name).describe_system()))
    try:
        return read_measured(path) if path.is_file() else None
    except DataError as error:
        raise DataError(f"{error}; remove it, or measure anew: plan --measure") from error


def by_published(rows: Sequence[Row], device: Device) -> Source:
    """Numbers of published systems. ConfigError for a chip of which neither rows nor a peak are known."""
    constants = fitted_constants()
    known = [row for row in rows if row.device.chip == device.chip]
    batches = {row.local_batch for row in known or rows}
    if known:
        words = f"published rows: {counted(len(known), 'system')} of {device.chip}"
        error = PUBLISHED_ERROR
    elif half_precision_peak(device.chip):
        words = f"a roofline: the A100's image, scaled by the peaks and memory of {device.chip}, which no row has"
        error = SCALED_ERROR
    else:
        raise ConfigError(
            f"accelerator {device.chip!r}: neither a published row nor a vendor's peaks know it. "
            "Measure it: --measure; give a run of your own: --measured RUN, or name another accelerator."
        )
    slower, overhead = slower_by_roofline(constants, device), fitted_overhead()
    factor = slower * math.exp(constants.chips.get(device.chip, 0.0))
    evaluation = "published rows of A100" + ("" if factor == 1 else ", its shared part scaled as the time of an image")
    launch = "published rows" if known and len(batches) > 1 else "the A100's published rows, though the chip is another"
    figures = {
        "step": words,
        "launch and communication": launch,
        "evaluation": evaluation,
        "start": "published rows of A100",
    }
    return Source(
        figures=figures,
        constants=constants,
        device=device,
        slower=slower,
        overhead=replace(overhead, work=overhead.work * factor),
        spread=epoch_spread(rows),
        images=TRAIN_IMAGES,
        error=error,
        largest=max(row.accelerators for row in known or rows),
        batches=(min(batches), max(batches)),
    )


def by_measured(runs: Sequence[Measured], rows: Sequence[Row]) -> Source:
    """Numbers that were measured: floor and image where two batches were timed, else one time of a step.

    What nodes add is taken from published systems: a run on one host cannot tell.
    """
    timed = [(one, run) for run in runs for one in run.timed]
    batches = np.array([one.local_batch for one, _ in timed], float)
    times = np.array([one.step_ms for one, _ in timed])
    largest = batches == batches.max()
    image, floor = float(np.median(times[largest] / batches[largest])), 0.0
    if len(set(batches)) > 1:
        slope, intercept = np.polyfit(batches, times, 1)
        if slope > 0 and intercept >= 0:  # else noise is larger than what the batches differ by
            image, floor = float(slope), float(intercept)
    evaluated = [run.evaluation_s for run in runs if run.evaluation_s is not None]
    fixed, work = (median(values) for values in zip(*evaluated, strict=True)) if evaluated else (0.0, 0.0)
    origins = "; ".join(sorted({run.origin for run in runs}))
    spreads = [one.spread for one, _ in timed if one.spread is not None]
    batch_words = ", ".join(f"{batch:g}" for batch in sorted(set(batches)))
    figures = {
        "step": f"{origins}; batch {batch_words} a process",
        "launch and communication": "launch: the same; what further hosts add: published rows of A100",
        "evaluation": origins if evaluated else NO_EVALUATION,
        "start": origins,
    }
    spread_of_ranks = [run.rank_spread for run in runs if run.rank_spread is not None]
    befores = [run.set_up_s for run in runs if run.set_up_s is not None]
    return Source(
        figures=figures,
        constants=Constants(floor, image, fitted_constants().hosts, 0.0, 0.0, 0.0, 0.0),
        device=Device("measured"),
        slower=1.0,
        overhead=Overhead(median(run.start_s for run in runs), 0.0, fixed, work),
        spread=epoch_spread(rows),
        images=runs[0].images,
        error=max([MEASURED_ERROR, *spreads]),
        largest=max(run.accelerators for run in runs),
        batches=(float(batches.min()), float(batches.max())),
        set_up_s=median(befores) if befores else None,
        own_epochs=tuple(run.epochs for run in runs if run.epochs is not None),
        rank_spread=median(spread_of_ranks) if spread_of_ranks else None,
    )


def step_range(source: Source, local: float) -> tuple[float, float]:
    """The least and the greatest factor of a step's time, eight of ten.

    Where one batch alone was timed, a step without images may take from nothing to half of that step.
    """
    low, high = 1 / (1 + source.error), 1 + source.error
    if source.one_batch is None or source.one_batch == local:
        return low, high
    there = source.constants.step_ms(source.device, source.one_batch, 1, slower=source.slower)
    apart = source.constants.step_ms(source.device, local, 1, slower=source.slower)
    ends = [floor + (there - floor) * local / source.one_batch for floor in (0.0, there / 2)]
    return low * min(1.0, min(ends) / apart), high * max(1.0, max(ends) / apart)
