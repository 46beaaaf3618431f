"""Before and after a run that the command line starts: what it lacks, its folder, and what one that was cut off saved.

torch is imported inside the functions that need it: mistakes in a command line are said at once.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ssd.config import Config, Resolved, require_run_keys
from ssd.config.folders import runs_folder
from ssd.config.paths import absolute_path
from ssd.errors import ConfigError

__all__ = ["require_runnable", "say_saved", "with_output"]


def say_saved(config: Config, code: int) -> None:
    """What a run that was cut off has saved. Reading a checkpoint needs torch, which a run has loaded."""
    from ssd.run.saved import say_saved, was_cut_off

    if was_cut_off(code):
        say_saved(config, code)


def require_runnable(resolved: Resolved) -> None:
    """Raise, before anything slow, for what a run lacks: keys first, then the machine."""
    require_run_keys(resolved.config)
    from ssd.vendor import load_vendor, require_machine

    require_machine(load_vendor(resolved.config.name), resolved)


def with_output(resolved: Resolved) -> Resolved:
    """The run's folder, named by date where the user names none."""
    config = resolved.config
    if config.output is not None:
        return resolved
    try:
        folder = absolute_path(runs_folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-{config.name}-{config.config}")
    except ValueError as error:
        raise ConfigError(f"output is not set, and the name made for it cannot be used: {error}. Set it.") from error
    provenance = {**resolved.provenance, "output": "named by date"}
    return replace(resolved, config=config.model_copy(update={"output": folder}), provenance=provenance)
