"""The fewest accelerators that meet a time."""

from __future__ import annotations

from ssd.config import Config
from ssd.plan.arguments import MOST
from ssd.plan.predict import Prediction, predict
from ssd.plan.simulate import Machine
from ssd.plan.sources import Source
from ssd.text import counted

__all__ = ["cheapest", "cheapest_words"]


def cheapest(config: Config, source: Source, minutes: float, machine: Machine | None = None) -> Prediction | None:
    """The prediction with the fewest accelerators, a power of two, whose middle time is at most `minutes`; else None.

    The batch of a process may be the config's, or a half, a quarter ... of it, because a smaller global batch needs
    fewer epochs.
    """
    batches = [max(1, config.train_batch_size >> halvings) for halvings in range(config.train_batch_size.bit_length())]
    configs = [config.model_copy(update={"train_batch_size": one}) for one in batches]
    for count in (2**power for power in range(MOST.bit_length())):
        found = [one for each in configs if (one := predict(each, source, count, machine)).minutes]
        best = min(found, key=_middle, default=None)
        if best is not None and _middle(best) <= minutes:
            return best
    return None


def _middle(prediction: Prediction) -> float:
    return prediction.minutes[1] if prediction.minutes else float("inf")


def cheapest_words(config: Config, source: Source, minutes: float, machine: Machine | None = None) -> str:
    """What `cheapest` finds, as a sentence."""
    best = cheapest(config, source, minutes, machine)
    if best is None:
        if predict(config, source, config.world_size, machine).minutes is None:
            return "Whether a time can be met is unknown: the epochs to the target are."
        return f"No number of accelerators up to {MOST:,} meets {minutes:g} min."
    assert best.minutes
    low, middle, high = best.minutes
    return (
        f"{counted(best.accelerators, 'accelerator')} with batch {best.local_batch} each are the fewest (by powers of "
        f"two) that meet {minutes:g} min: {middle:.1f} ({low:.1f} to {high:.1f})."
    )
