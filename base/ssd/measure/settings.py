"""Which settings make a step faster here: each is tried on top of those that have helped, and kept where it helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ssd.compute.device import Abilities
from ssd.compute.native import emulation_words, native_units
from ssd.config import Config

__all__ = ["GAIN", "Option", "Trial", "options", "search"]

GAIN = 1.03
"""A setting is kept that gives so many times the images/s. A smaller difference is within the spread of a short run."""


@dataclass(frozen=True)
class Option:
    """A setting to try. refused: why it is not tried, "" where it is."""

    key: str
    value: Any
    refused: str = ""


@dataclass(frozen=True)
class Trial:
    """A setting that was tried or refused. images_per_s: of a device with it; None where refused, as `why` says."""

    key: str
    value: Any
    images_per_s: float | None
    kept: bool
    why: str = ""


def options(config: Config, abilities: Abilities, quick: bool = False) -> Iterator[Option]:
    """The settings that may make a step of this config faster on a device, in the order in which they are tried."""
    lacks = "this device lacks it"
    yield Option("nhwc", not config.nhwc, "" if config.nhwc or abilities.channels_last else lacks)
    if config.precision == "fp32" and config.amp == "torch":
        yield Option("precision", "bf16", _why_not_bf16(abilities))
        if not abilities.is_host and not abilities.autocast("bf16"):
            yield Option("precision", "fp16", "" if abilities.autocast("fp16") else lacks)
    if not config.compile:
        slow = "--quick" if quick else "compiling takes minutes on a CPU, and gained nothing" * abilities.is_host
        yield Option("compile", True, slow or ("" if abilities.compiles else lacks))
    batch = config.train_batch_size
    yield Option("train_batch_size", 2 * batch)
    if batch > 1:
        yield Option("train_batch_size", batch // 2)


def _why_not_bf16(abilities: Abilities) -> str:
    if abilities.is_host:
        return "emulated by this CPU, and slower" if emulation_words("bf16", native_units()) else ""
    return "" if abilities.autocast("bf16") else "this device lacks it"


def search(
    config: Config, found: float, tries: Iterator[Option], rate: Callable[[Mapping[str, Any]], float]
) -> tuple[dict[str, Any], list[Trial]]:
    """The settings that help, together; and every trial.

    found: images/s of the config as it is. rate: images/s with some keys changed. It raises torch.OutOfMemoryError
    where the device has not the memory for it.
    """
    chosen: dict[str, Any] = {}
    trials: list[Trial] = []
    for one in tries:
        if one.refused:
            trials.append(Trial(one.key, one.value, None, False, one.refused))
            continue
        try:
            now = rate({**chosen, one.key: one.value})
        except torch.OutOfMemoryError:
            trials.append(Trial(one.key, one.value, None, False, "the device has not the memory"))
            continue
        kept = now >= GAIN * found
        trials.append(Trial(one.key, one.value, now, kept))
        if kept:
            chosen[one.key], found = one.value, now
    return chosen, trials
