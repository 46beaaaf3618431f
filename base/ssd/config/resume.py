"""A resumed run takes its keys from the config.json of its folder, so `--resume --output RUN` is enough.

Any other key that is given must have the value with which the run was started. Only the keys that a resumed run may
change are free (ssd.config.roles). With `restart` = auto a command resumes where the folder has a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd.config.paths import absolute_path
from ssd.config.roles import resumable_keys
from ssd.config.rules import Config
from ssd.errors import ConfigError, DataError

__all__ = ["BEST", "CHECKPOINT", "CONFIG_FILE", "PREVIOUS", "has_checkpoint", "require_same_run", "saved_file"]

CHECKPOINT = "checkpoint.pt"
"""In a run's folder: the state of the run at its last checkpoint."""
PREVIOUS = "checkpoint.previous.pt"
"""The same at the checkpoint before that one."""
BEST = "checkpoint.best.pt"
"""The state after the evaluation with the highest mAP so far, where the key keep_best asks for it."""
CONFIG_FILE = "config.json"
"""The file in a run's folder with the value and the origin of every key of the run."""


def saved_file(given: Mapping[str, Any]) -> Path | None:
    """The config.json of the run that the keys in `given` continue. None for a new run.

    A host that does not share the run's folder has no config.json. There the run's keys are given by flags, so the
    result is None if `given` has a name or a config. Raises DataError where there is neither a config.json nor such a
    flag. Raises ConfigError where `output` is a path that no file can have.
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


def has_checkpoint(folder: Path) -> bool:
    """Whether the run in `folder` has a checkpoint from which it can go on, be it damaged or not."""
    return any((folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))


def require_same_run(before: Config, now: Config) -> None:
    """Raise ConfigError where keys differ that a resumed run may not change. It names these keys."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    free = resumable_keys(type(now))
    changed = sorted(key for key in old.keys() & new if key not in free and new[key] != old[key])
    if changed:
        changes = ", ".join(f"{key} was {old[key]} and is {new[key]}" for key in changed)
        raise ConfigError(f"--resume continues the same run, but {changes}; give the old values, or start a new run")
