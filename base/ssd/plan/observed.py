"""Epochs that runs of this project needed with a named config: base/config/NAME_epochs.csv, one run a line.

A line counts for a config that learns as that run did: the same global batch, hyper-parameters, model and data.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from ssd.config import Config, resolve
from ssd.config.folders import BASE_CONFIGS
from ssd.config.keys import RULE
from ssd.config.roles import keys_of_role

__all__ = ["learning_of", "observed_epochs", "span_of"]

BESIDE_LEARNING = (
    *("config", "division", "ruleset", "submitter", "system"),
    *("train_batch_size", "gradient_accumulation_steps"),
)
"""Keys of the role rule that change nothing about learning, and those that the global batch stands for."""


def learning_of(config: Config) -> str:
    """12 digits that are equal for configs whose runs learn the same. A key with its default does not count."""
    values, fields = config.model_dump(mode="json"), type(config).model_fields
    changed = {
        key: values[key]
        for key in keys_of_role(type(config), RULE)
        if key not in BESIDE_LEARNING and getattr(config, key) != fields[key].default
    }
    told = json.dumps({"global_batch": config.global_batch, **changed}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def observed_epochs(config: Config, without: int | None = None) -> tuple[int, ...]:
    """The epochs of the runs of this named config, ascending; empty where none are kept, and on other data.

    without: a seed whose run is left out.
    """
    path = BASE_CONFIGS / f"{config.config}_epochs.csv"
    if "/" in config.config or not path.is_file():
        return ()
    if config.data_dir != resolve(["--name", config.name, "--config", config.config], {}).config.data_dir:
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(line for line in file if not line.startswith("#"))
        learning = learning_of(config)
        same = [line for line in lines if line["learning"] == learning and line["seed"] != str(without)]
        return tuple(sorted(int(line["epochs"]) for line in same))


def span_of(epochs: Sequence[int]) -> tuple[float, float, float]:
    """The 10th, 50th and 90th percentile of runs' epochs: at least eight of ten lie between the outer two."""
    low, middle, high = np.quantile(epochs, (0.1, 0.5, 0.9), method="inverted_cdf").tolist()
    return low, middle, high
