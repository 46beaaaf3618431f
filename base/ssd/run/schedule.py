"""The learning rate of every step: scaled to the global batch, warmed up linearly, decayed at listed epochs.

The rules, for a global batch G, W warm-up steps with factor F, and a decay factor D:

    base               0.0025 * max(1, round(learning_rate / 0.0025 * G / 32)), or base_learning_rate as it is
    at step s < W      base - (W - s) * base / (W * 2**F): it rises linearly to base
    from epoch e on    base is multiplied by D for each e of lr_decay_epochs

The tests hold them to the original's numbers to 1e-12, and to values that are worked by hand. The original applied a
little less than it logged: after warm-up its rate stayed at base * (W - 1) / W until the first decay. Here the applied
rate is the logged one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssd.config import Config

__all__ = ["applied_learning_rate", "learning_rate_at"]

RATE_UNIT = 0.0025
"""The learning rate for 32 images. In the closed division every rate is a multiple of it."""


def applied_learning_rate(config: Config) -> float:
    """The learning rate after warm-up. It is `base_learning_rate`, or else `learning_rate` scaled to the global batch.

    `learning_rate` is meant for 32 images. The scaled rate is a whole multiple of 0.0025, at least 0.0025. A half is
    rounded to the even number.
    """
    if config.base_learning_rate is not None:
        return config.base_learning_rate
    return RATE_UNIT * max(1, round(config.learning_rate / RATE_UNIT * config.global_batch / 32))


def learning_rate_at(config: Config, step: int, epoch: int) -> float:
    """The learning rate of an optimizer step. step: from 0, counted over the whole run. epoch: from 1.

    Warm-up starts at base * (1 - 2**-warmup_factor), which is 0 for the factor 0.
    """
    base = applied_learning_rate(config)
    base *= config.lr_decay_factor ** sum(epoch >= decay for decay in config.lr_decay_epochs)
    if step >= config.warmup:
        return base
    return base - (config.warmup - step) * base / (config.warmup * 2**config.warmup_factor)
