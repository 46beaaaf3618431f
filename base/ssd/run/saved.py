"""Logs, when a run was cut off, what it has saved and the command that continues it."""

from __future__ import annotations

import logging
import shlex

from ssd.config import Config
from ssd.config.folders import BASE
from ssd.errors import EXIT_KILLED, SsdError
from ssd.run.checkpoint import CHECKPOINT, load_saved

__all__ = ["say_saved"]

log = logging.getLogger(__name__)


def say_saved(config: Config, code: int) -> None:
    """Log what the run in `config.output` has saved, and the command that continues it.

    Nothing is logged for a run that was refused before it wrote anything.
    """
    folder = config.output
    if folder is None or not folder.is_dir():
        return
    path = folder / CHECKPOINT
    if not path.is_file():
        if code >= EXIT_KILLED and any(folder.iterdir()):
            when = f"after epoch {config.checkpoint_interval}" if config.checkpoint_interval else "at the end"
            log.info(
                "nothing of the run in %s is saved: its first checkpoint was due %s (checkpoint_interval). To begin "
                "anew in this folder give the same command, with --restart auto --output %s",
                *(folder, when, shlex.quote(str(folder))),
            )
        return
    try:
        saved = load_saved(folder)
    except SsdError as error:
        log.warning("%s", error)
        return
    host = ["--node_rank", str(config.node_rank)] if config.nodes > 1 else []
    words = shlex.join(["bash", str(BASE / "run_training.sh"), "--resume", "--output", str(folder), *host])
    epochs = saved.step / saved.steps_per_epoch
    log.info("%s holds the run after step %d (%.3g epochs); to go on:\n  %s", path, saved.step, epochs, words)
