"""What a run does before it writes anything: it finds its folder, its checkpoint, its seed and its data.

Everything that can be refused is refused here. So a refused command leaves the folder as it was.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ssd.account.timeline import Timeline
from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.config import Config, Resolved
from ssd.config.resume import has_checkpoint, require_same_run
from ssd.counts import last_step
from ssd.data import TrainLoader
from ssd.errors import EXIT_MAX_STEPS, EXIT_MEANING, EXIT_NOT_CONVERGED, EXIT_REACHED, ConfigError
from ssd.locks import hold
from ssd.run.checkpoint import Checkpoint, load_saved
from ssd.run.inputs import inputs_of, require_same_inputs
from ssd.run.sources import EvalSource, open_sources
from ssd.vendor import Vendor

__all__ = ["SUMMARY", "Start", "ended", "own_folder", "saved_run", "start_run"]

log = logging.getLogger(__name__)

LOCK = ".lock"
BEFORE_A_CHECKPOINT = re.compile(
    r"(config|system)\.json|result_0(\.cut-\d+)?\.txt|metrics(\.cut-\d+)?\.jsonl|run\.log|tensorboard(\.cut-\d+)?"
    r"|checkpoint\.best(\.cut-\d+)?\.pt|.+\.part"
)
"""The names of what a run may leave in its folder that was killed before its first checkpoint, once or more."""
SUMMARY = "summary.json"
"""The file that a run writes last. A run with this file has ended."""


@dataclass(frozen=True)
class Start:
    """A run before it writes anything.

    saved: the checkpoint from which it continues, None for a new run. inputs: the SHA-256 of each file that it is
    trained on, by name; empty on ranks other than 0. timeline: where the time of this process went.
    """

    resolved: Resolved
    vendor: Vendor
    device: torch.device
    ranks: Ranks
    folder: Path
    saved: Checkpoint | None
    seed: int
    loader: TrainLoader
    source: EvalSource
    inputs: dict[str, str]
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def config(self) -> Config:
        """The keys of the run."""
        return self.resolved.config

    @property
    def abilities(self) -> Abilities:
        """What the device can do."""
        return self.vendor.abilities(self.device)

    @property
    def last_step(self) -> int:
        """The number of the last optimizer step, for a run that does not reach its target before."""
        return last_step(self.config.epochs, self.loader.steps_per_epoch, self.config.max_steps)


@contextmanager
def own_folder(config: Config, ranks: Ranks) -> Iterator[Path]:
    """A context with the run's folder, in which no other run can write to that folder. It is made if it is missing.

    A new folder that is still empty at the end is removed, so that a refused run leaves nothing behind. Raises
    ConfigError where no folder is named, where it holds another run, and where another run is writing to it.
    """
    if config.output is None:
        raise ConfigError("output is missing: name the folder of the run (the launcher names one by date)")
    problem = None
    with ExitStack() as stack:
        if ranks.is_rank_0:
            try:
                stack.enter_context(_claimed(config.output, config.resume, config.restart == "auto"))
            except ConfigError as error:
                problem = error
        if problem := ranks.broadcast(problem):
            raise problem
        yield config.output


@contextmanager
def _claimed(folder: Path, resume: bool, restart: bool) -> Iterator[None]:
    if resume and not folder.is_dir():
        yield  # there is no checkpoint, which its reader says
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold(folder / LOCK, f"output = {folder}"):
            if not resume:
                _require_free(folder, restart)
            yield
    finally:
        if made:
            with suppress(OSError):  # the run is in it
                folder.rmdir()


def _require_free(folder: Path, restart: bool) -> None:
    """Raise ConfigError where a new run cannot begin in a folder. With `restart` it can after a run that was killed.

    Such a run has left nothing but files of BEFORE_A_CHECKPOINT.
    """
    held = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    if restart:
        held = [name for name in held if not BEFORE_A_CHECKPOINT.fullmatch(name)]
    if not held:
        return
    remedy = "remove it, or give --restart auto: it ended before its first checkpoint"
    if has_checkpoint(folder):
        remedy = "--resume to continue the run in it"
    elif restart:
        remedy = f"take out what no run leaves that is killed before its first checkpoint: {', '.join(held[:3])}"
    raise ConfigError(f"output = {folder} is not empty: choose another folder, or {remedy}")


def saved_run(config: Config, ranks: Ranks, folder: Path) -> Checkpoint | None:
    """The checkpoint from which the run continues, on every rank. None for a new run.

    Raises DataError for a checkpoint that cannot be used. Raises ConfigError where the keys would change what the run
    computes.
    """
    saved = None
    if config.resume and ranks.is_rank_0:  # another host may not see the folder
        saved = load_saved(folder, config.resume_from == "previous")
    if saved:
        require_same_run(saved.run_config(), config)
    found: Checkpoint = ranks.broadcast(saved)
    return found


def ended(config: Config, ranks: Ranks, folder: Path, saved: Checkpoint) -> int | None:
    """The exit code of a saved run that has nothing left to do; a line about it is logged. None for any other run.

    A run that was killed between its last checkpoint and its summary still has its summary to write.
    """
    code = None
    if any(mean_ap >= config.threshold for _, mean_ap in saved.evaluations):
        code, more = EXIT_REACHED, ""
    elif saved.step >= config.epochs * saved.steps_per_epoch:
        code, more = EXIT_NOT_CONVERGED, "; it goes on with a larger --epochs"
    elif config.max_steps is not None and saved.step >= config.max_steps:
        code, more = EXIT_MAX_STEPS, "; it goes on with a larger --max_steps"
    if not ranks.broadcast(code is not None and _summarized(folder / SUMMARY, saved.step, code)):
        return None
    if code is not None and ranks.is_rank_0:
        meaning = "reached the target" if code == EXIT_REACHED else EXIT_MEANING[code]
        log.info(
            "the run in %s has ended (exit code %d: %s), and nothing in it is changed%s", folder, code, meaning, more
        )
    return code


def _summarized(path: Path, step: int, code: int) -> bool:
    """Whether the summary of a run that ended after `step` with `code` is there.

    A run that a signal stopped after its last step has a summary too, but its evaluation is still to be made.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(summary, dict) or not isinstance(done := summary.get("steps"), int):
        return False
    return done - int(summary.get("steps_beyond") or 0) == step and summary.get("exit_code") == code


def start_run(
    resolved: Resolved,
    vendor: Vendor,
    device: torch.device,
    ranks: Ranks,
    folder: Path,
    saved: Checkpoint | None,
    timeline: Timeline,
) -> Start:
    """Choose the seed and open the data. No training image is read, and nothing is written to the run's folder.

    Raises ConfigError or DataError where the data cannot be used, and where they are not those of the checkpoint.
    """
    config = resolved.config
    seed = ranks.broadcast(_pick_seed(config, saved))
    with timeline.part("index"):
        loader, source = open_sources(config, ranks, seed, vendor.abilities(device))
        inputs = inputs_of(config, loader, source) if ranks.is_rank_0 else []
    if saved:
        require_same_inputs(inputs, saved.inputs)
    named = {one.name: one.sha256 for one in inputs}
    return Start(resolved, vendor, device, ranks, folder, saved, seed, loader, source, named, timeline)


def _pick_seed(config: Config, saved: Checkpoint | None) -> int:
    if saved:
        return saved.seed
    return config.seed if config.seed is not None else secrets.randbits(32)
