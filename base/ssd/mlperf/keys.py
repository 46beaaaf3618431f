"""The log keys that this project adds to MLPerf's, and the settings that a result log repeats.

Our keys say what MLPerf's cannot: width, backbone, target, momentum, precision, version, draws, a resume, test data.
"""

from __future__ import annotations

from mlperf_logging.mllog import constants

from ssd.account.log_events import RESUMED

__all__ = [
    "BACKBONE",
    "DECODED_CACHE",
    "DRAWN",
    "MOMENTUM",
    "OUR_PREFIX",
    "PRECISION",
    "RESUMED",
    "SETTINGS",
    "TARGET",
    "TEST_DATA",
    "VERSION",
    "WIDTH",
]

OUR_PREFIX = "ssd_"
"""All keys that this project alone logs begin so."""

BACKBONE = "ssd_backbone_sha256"
DECODED_CACHE = "ssd_decoded_cache"
"""The kind of file system that held decoded training images. Logged where there were some."""
DRAWN = "ssd_draws"
"""The scheme of the random draws, ssd.counts.DRAWS."""
MOMENTUM = "ssd_momentum"
PRECISION = "ssd_precision"
TARGET = "ssd_target_map"
VERSION = "ssd_version"
"""The version of this project that trained."""
WIDTH = "ssd_width"
TEST_DATA = "ssd_test_data"
"""Marks a log that was made for a test, replayed or invented. No such log is a result."""

SETTINGS = {
    WIDTH: "width",
    TARGET: "threshold",
    MOMENTUM: "momentum",
    constants.OPT_WEIGHT_DECAY: "weight_decay_rate",
    constants.OPT_LR_WARMUP_STEPS: "warmup",
    constants.OPT_LR_WARMUP_FACTOR: "warmup_factor",
    constants.OPT_LR_DECAY_FACTOR: "lr_decay_factor",
    constants.OPT_LR_DECAY_BOUNDARY_EPOCHS: "lr_decay_epochs",
    constants.GRADIENT_ACCUMULATION_STEPS: "gradient_accumulation_steps",
}
"""Log key -> key of config.json, where all runs of a package have the same value."""
