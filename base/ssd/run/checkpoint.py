"""Checkpoints: everything a run needs to go on bit for bit, written so that a half-written one is never found.

One file, `checkpoint.pt`, replaced atomically. It holds tensors and plain values only, so it loads with weights_only.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from ssd.errors import DataError, MachineError

__all__ = ["CHECKPOINT", "Checkpoint", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.pt"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after an optimizer step: what it was told, where it stands, and its tensors on the CPU.

    config: the run's Config as JSON. seed: of everything random. step: optimizer steps done.
    evaluations: (epoch, mAP) of each evaluation so far. seconds: by kind of work, as Clock.totals gives them.
    categories: COCO's id and name of label 1, 2, ...
    model, optimizer, scaler: state dicts. rng: torch's random state (n,) uint8.
    """

    config: str
    seed: int
    step: int
    evaluations: list[tuple[int, float]]
    seconds: dict[str, float]
    categories: list[tuple[int, str]]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: Tensor


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to a temporary file beside `path`, and rename it.

    Raises MachineError where the disk refuses it; the last checkpoint is still there.
    """
    part = path.with_suffix(".part")
    state = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    try:
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        # torch's writer hides what the file system said behind an error of its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise MachineError(
            f"{path} cannot be written: {cause.strerror}; make room or give permission, then --resume from the last "
            "checkpoint, or start anew"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU. Raises DataError where there is none, or where it is not one of ours."""
    if not path.is_file():
        raise DataError(f"{path}: no checkpoint there; name a run's folder that holds {CHECKPOINT}, or start anew")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({type(error).__name__}); start the run anew") from error
    if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
        raise DataError(f"{path}: not a checkpoint of this project (format {FORMAT}); a backbone goes to backbone_path")
    pairs = {name: [tuple(one) for one in state[name]] for name in ("evaluations", "categories")}
    return Checkpoint(**{**state, **pairs})
