"""What the figures of a machine mean together: which part limits a run, how many cores feed it, and what to set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssd.measure.copying import IMAGE_BYTES

__all__ = ["FULL", "Figures", "cores_for", "fallen", "host_rates", "workers_for"]

SPARE = 1.2
"""Decoding threads are asked for with so much to spare: images differ, and the first batches must be caught up."""
FULL = 0.95
"""A part that has less than this share of the reference's figure is named."""


@dataclass(frozen=True)
class Figures:
    """What was measured of a host. Rates in images/s, and larger is better; None where there is nothing to measure.

    decode_core: of one core, by its CPU time. decode_all: of all cores together. read: of files that are not in memory.
    step, data_step: of one device, without and with the loader. evaluation: of one device. copy: bytes/s to a device.
    all_reduce: bytes/s of averaged gradients. all_reduce_s: seconds of one. batch: images of a micro-batch and device.
    """

    cores: int
    devices: int
    shares_cores: bool
    batch: int
    decode_core: float
    decode_all: float
    read: float
    copy: float | None
    step: float
    data_step: float
    evaluation: float
    all_reduce: float | None
    all_reduce_s: float | None

    def parts(self) -> dict[str, float | None]:
        """The figures that are compared with a reference's, by name."""
        names = ("decode_core", "decode_all", "read", "copy", "step", "data_step", "evaluation", "all_reduce")
        return {name: getattr(self, name) for name in names}


def host_rates(found: Figures) -> dict[str, float]:
    """Images/s that each part allows a host with all of its devices, the least first: it limits a run.

    The steps of several devices wait for the whole all-reduce, of which a run hides a part. Where the device is the
    host, decoding and steps take turns on the same cores: one part stands for both.
    """
    step_s = found.batch / found.step + (found.all_reduce_s or 0.0)
    steps = found.devices * found.batch / step_s
    rates = {"reading files": found.read, "decoding": found.decode_all, "training steps": steps}
    if found.copy is not None:
        rates["copies to the device"] = found.devices * found.copy / IMAGE_BYTES
    if found.shares_cores:
        del rates["training steps"]
        rates["training steps and decoding, on the same cores"] = 1 / (1 / steps + 1 / rates.pop("decoding"))
    return dict(sorted(rates.items(), key=lambda one: one[1]))


def cores_for(images_per_s: float, decode_core: float) -> int:
    """Cores that decode so many images a second, where one core decodes `decode_core`."""
    return max(1, math.ceil(images_per_s / decode_core))


def workers_for(found: Figures) -> int:
    """Decoding threads a process, the key num_workers: what the device's steps need, and no more than its cores."""
    return min(cores_for(SPARE * found.step, found.decode_core), max(1, found.cores // found.devices))


def fallen(now: Mapping[str, float | None], reference: Mapping[str, float | None]) -> Sequence[tuple[str, float]]:
    """The parts below FULL of the reference's, each with its share, the least first."""
    shares = {
        name: value / before
        for name, before in reference.items()
        if before and (value := now.get(name)) is not None and value < FULL * before
    }
    return sorted(shares.items(), key=lambda one: one[1])
