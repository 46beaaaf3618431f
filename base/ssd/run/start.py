"""Before a run writes anything: its folder, the checkpoint it goes on from, its seed, and its data.

Whatever can be refused is refused here, so that a refused command leaves the folder as it was.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import torch

from ssd.compute.ranks import Ranks
from ssd.config import Config, Resolved
from ssd.config.roles import RESUMABLE_KEYS
from ssd.counts import last_step
from ssd.data import TrainLoader
from ssd.errors import ConfigError
from ssd.run.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint
from ssd.run.sources import EvalSource, open_sources
from ssd.vendor import Vendor

__all__ = ["Start", "start_run"]


@dataclass(frozen=True)
class Start:
    """A run of which nothing is written yet. saved: the checkpoint to go on from, None for a new run."""

    resolved: Resolved
    vendor: Vendor
    device: torch.device
    ranks: Ranks
    folder: Path
    saved: Checkpoint | None
    seed: int
    loader: TrainLoader
    source: EvalSource

    @property
    def config(self) -> Config:
        """The keys of the run."""
        return self.resolved.config

    @property
    def last_step(self) -> int:
        """The optimizer step that a run ends with which does not reach its target."""
        return last_step(self.config.epochs, self.loader.steps_per_epoch, self.config.max_steps)


def start_run(resolved: Resolved, vendor: Vendor, device: torch.device, ranks: Ranks) -> Start:
    """Find out what the run starts from. No image is read, and no file is written.

    Raises ConfigError or DataError where the folder, the checkpoint or the data are not fit for it.
    """
    config = resolved.config
    folder = _own_folder(config, ranks)
    saved = ranks.broadcast(_saved_run(config, folder) if ranks.first and config.resume else None)
    seed = ranks.broadcast(_pick_seed(config, saved))
    loader, source = open_sources(config, ranks, seed, device)
    return Start(resolved, vendor, device, ranks, folder, saved, seed, loader, source)


def _own_folder(config: Config, ranks: Ranks) -> Path:
    """The run's folder, not made yet. Raises ConfigError where none is named, or where it holds another run."""
    folder, problem = config.output, None
    if folder is None:
        raise ConfigError("output is missing: name the folder of the run (the launcher names one by date)")
    if ranks.first and not config.resume and folder.is_dir() and any(folder.iterdir()):
        remedy = "remove it: it ended before its first checkpoint"
        if (folder / CHECKPOINT).exists():
            remedy = "--resume to continue the run in it"
        problem = f"output = {folder} is not empty: choose another folder, or {remedy}"
    if problem := ranks.broadcast(problem):
        raise ConfigError(problem)
    return folder


def _pick_seed(config: Config, saved: Checkpoint | None) -> int:
    if saved:
        return saved.seed
    return config.seed if config.seed is not None else secrets.randbits(32)


def _saved_run(config: Config, folder: Path) -> Checkpoint:
    """The checkpoint to go on from. ConfigError where the resumed run would compute something else."""
    saved = load_checkpoint(folder / CHECKPOINT)
    before, now = json.loads(saved.config), json.loads(config.model_dump_json())
    changed = sorted(k for k in now if k not in RESUMABLE_KEYS and now[k] != before.get(k))
    if changed:
        changes = ", ".join(f"{key} was {before.get(key)} and is {now[key]}" for key in changed)
        raise ConfigError(f"--resume continues the same run, but {changes}; give the old values, or start a new run")
    return saved
