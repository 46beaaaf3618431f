"""A run that goes on: its folder's config.json stands for the command line that it was started with.

`--resume --output RUN` is enough. Whatever is given besides must be what the run was started with, but for the keys
that a resumed run may change (ssd.config.roles).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd.config.paths import absolute_path
from ssd.config.roles import RESUMABLE_KEYS
from ssd.config.rules import Config
from ssd.errors import ConfigError, DataError

__all__ = ["CONFIG_FILE", "require_same_run", "saved_file"]

CONFIG_FILE = "config.json"
"""In a run's folder: every key of the run with its value and its origin."""


def saved_file(given: Mapping[str, Any]) -> Path | None:
    """The config.json of the run that these keys continue; None for a new run, and where a config is named besides.

    A host that does not share the run's folder has no config.json of it, and is told the run's keys by flag.
    Raises DataError where neither is there, ConfigError where `output` is no path that a file can have.
    """
    if not given.get("resume") or given.get("output") is None:
        return None
    try:
        path = absolute_path(Path(given["output"])) / CONFIG_FILE
    except ValueError as error:
        raise ConfigError(f"output = {json.dumps(str(given['output']))[:200]}: {error}.") from error
    if path.is_file():
        return path
    if {"name", "config"} & given.keys():
        return None
    raise DataError(
        f"{path}: no such file, so that nothing says which run goes on: name a run's folder by --output, or give the "
        "run's flags again"
    )


def require_same_run(before: Config, now: Config) -> None:
    """ConfigError, naming each such key, where a key differs that a resumed run may not change."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    changed = sorted(key for key in new if key not in RESUMABLE_KEYS and new[key] != old[key])
    if changed:
        changes = ", ".join(f"{key} was {old[key]} and is {new[key]}" for key in changed)
        raise ConfigError(f"--resume continues the same run, but {changes}; give the old values, or start a new run")
