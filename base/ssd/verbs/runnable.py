"""Before and after a run that the command line starts: what it lacks, its folder, and what one that was cut off saved.

torch is imported inside the functions that need it: mistakes in a command line are said at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ssd.config import Config, Resolved, require_run_keys
from ssd.config.folders import BASE, runs_folder, vendor_folder
from ssd.config.paths import absolute_path
from ssd.config.verb import QUIET
from ssd.console import is_quiet
from ssd.errors import ConfigError, was_cut_off
from ssd.terminal import settle_streams
from ssd.verbs.given import require_data

__all__ = ["require_runnable", "say_saved", "set_variables", "start_with_variables", "with_output"]

VARIABLES = "SSD_VARIABLES"
"""Set by run_training.sh: the vendor whose environment variables are set."""
VERB = "SSD_VERB"
"""Tells run_training.sh which verb to start."""


def say_saved(config: Config, code: int) -> None:
    """What a run that was cut off has saved. Reading a checkpoint needs torch, which a run has loaded."""
    from ssd.run.saved import say_saved

    if was_cut_off(code):
        say_saved(config, code)


def set_variables(config: Config, argv: Sequence[str]) -> None:
    """Let run_training.sh start this command anew where the vendor's environment variables are not set.

    It does nothing where that script started this process. Libraries read such variables when a process begins, so
    they cannot be set from within. A config that a run cannot have is refused first.
    """
    require_run_keys(config)
    require_data(config)
    start_with_variables(config.name, "launch", argv)


def start_with_variables(name: str, verb: str, argv: Sequence[str], own: Mapping[str, Any] | None = None) -> None:
    """Let run_training.sh start the command `verb argv` where the environment variables of the vendor are not set.

    own: values of the verb's own flags, which are given again.
    """
    variables = vendor_folder(name) / "config" / "environment_variables.sh"
    if os.environ.get(VARIABLES) == name or not variables.is_file():
        return
    settle_streams()
    flags = [f"--{flag}" if value is True else f"--{flag}={value}" for flag, value in (own or {}).items() if value]
    environ = {**os.environ, "PYTHON": sys.executable, VERB: verb}
    quiet = [QUIET] if is_quiet() else []
    os.execvpe("bash", ["bash", str(BASE / "run_training.sh"), *argv, *flags, *quiet], environ)


def require_runnable(resolved: Resolved) -> None:
    """Raise, before anything slow, for what a run lacks: keys first, then data, then the machine."""
    require_run_keys(resolved.config)
    require_data(resolved.config)
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
