"""The learning rate of every step: scaled to the global batch, warmed up linearly, decayed at listed epochs.

Formulas are golden/README.md section 7, checked to 1e-12. The original applied a little less than it logged after
warm-up (the rate stayed at base * (W - 1) / W until the first decay); here the applied rate is the logged one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssd.config import Config

__all__ = ["applied_learning_rate", "learning_rate_at"]

RATE_UNIT = 0.0025
"""The rate for 32 images that the benchmark's rules build every closed-division rate from."""


def applied_learning_rate(config: Config) -> float:
    """Rate after warm-up: `base_learning_rate` as it is, else `learning_rate` for 32 images scaled to the global batch.

    The scaled rate is a whole multiple of 0.0025, at least one, rounded half to even as the original does.
    """
    if config.base_learning_rate is not None:
        return config.base_learning_rate
    return RATE_UNIT * max(1, round(config.learning_rate / RATE_UNIT * config.global_batch / 32))


def learning_rate_at(config: Config, step: int, epoch: int) -> float:
    """Rate of optimizer step `step` (from 0, over the whole run) in `epoch` (from 1).

    Warm-up runs over the first `warmup` steps from base * (1 - 2**-warmup_factor): 0 at step 0 where the factor is 0.
    """
    base = applied_learning_rate(config)
    base *= config.lr_decay_factor ** sum(epoch >= decay for decay in config.lr_decay_epochs)
    if step >= config.warmup:
        return base
    return base - (config.warmup - step) * base / (config.warmup * 2**config.warmup_factor)
