"""Checkpoints: everything that a run needs to continue bit for bit. A damaged checkpoint is refused.

A run keeps two: `checkpoint.pt` is the newest, and `checkpoint.previous.pt` the one before it. At every moment each is
whole or missing. A file has what torch.save writes, and then a line with the SHA-256 of all bytes before it. It holds
only tensors and plain values, and nothing else is unpickled. Every load checks the hash, and then the type of every
value.
"""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import IO, Annotated, Any, BinaryIO, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from ssd.config import Config
from ssd.config.resume import CHECKPOINT, PREVIOUS
from ssd.config.vendor_keys import config_of
from ssd.errors import ConfigError, DataError, MachineError
from ssd.files import keep_as, sync_file, whole_file
from ssd.tensor_file import read_tensors

__all__ = ["CHECKPOINT", "PREVIOUS", "Checkpoint", "load_checkpoint", "load_saved", "save_checkpoint"]

FORMAT = 2
SEAL = b"\nsha256 "
"""The text before the hash. The last line of a checkpoint is `sha256 ` and 64 hexadecimal digits."""
SEAL_BYTES = len(SEAL) + 64 + 1


class Checkpoint(BaseModel):
    """The state of a run after an optimizer step: its config, its progress, and its tensors.

    config: the run's Config as JSON. seed: the seed of all random numbers.
    step: the number of optimizer steps done. steps_per_epoch: the number of steps of an epoch.
    evaluations: (epoch, mAP) of each evaluation so far. The mAP is -1 where nothing could be scored.
    seconds: the time by kind of work, as Clock.totals returns it. written: the time of writing, in Unix seconds.
    categories: COCO's id and name of the labels 1, 2, ...
    inputs: the SHA-256 of each file that the run is trained on (ssd.run.inputs).
    logs: the bytes of each log file at this step. A resumed run cuts its logs back to them (ssd.run.rewind).
    model, optimizer, scaler: state dicts. In a file their tensors are on the CPU.
    rng: torch's random state (n,) uint8.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True)

    config: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    step: Annotated[int, Field(ge=0)]
    steps_per_epoch: Annotated[int, Field(ge=1)]
    evaluations: list[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(ge=-1, le=1)]]]
    seconds: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    written: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    categories: list[tuple[int | str, str]]
    inputs: dict[str, str]
    logs: dict[str, Annotated[int, Field(ge=0)]]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: Tensor

    @field_validator("optimizer")
    @classmethod
    def _is_a_state(cls, state: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(state.get("state"), dict) or not state.get("param_groups"):
            raise ValueError("it is no state of an optimizer: state or param_groups is missing or empty")
        return state

    def run_config(self, **given: Any) -> Config:
        """The config of the run, with the `given` keys in place of its own.

        Raises DataError where this version of the project cannot read it. Raises ConfigError where a given key breaks a
        rule.
        """
        try:
            saved = dict(json.loads(self.config).items())
        except (ValueError, AttributeError, RecursionError) as error:
            raise DataError(f"the checkpoint's config is not a JSON object: {error}") from error
        if given.get("name", saved.get("name")) != saved.get("name"):  # another vendor has none of this one's own keys
            saved = {key: value for key, value in saved.items() if "." not in key}
        kind = config_of(str({**saved, **given}.get("name")))
        unknown = sorted(saved.keys() - kind.model_fields.keys())
        if unknown:
            raise DataError(
                f"the checkpoint's config has {', '.join(unknown)}, which this version does not know: use the version "
                "of the project, or of the vendor's folder, that made it"
            )
        try:
            return kind(**{**saved, **given})
        except ValidationError as error:
            at_fault = ConfigError if given else DataError
            raise at_fault(f"the checkpoint's config is not valid here: {_mistakes(error)}") from error


def save_checkpoint(path: Path, checkpoint: Checkpoint, before: Path | None = None) -> None:
    """Write `checkpoint` beside `path` and rename it. File and name are synced to the disk.

    before: the name that the checkpoint at `path` gets, in place of the one that has it. It gets it once the new one is
    on the disk. None: it is replaced. Raises MachineError where the disk refuses it. Then `path` is as it was.
    """
    state = {name: _on_host(getattr(checkpoint, name)) for name in Checkpoint.model_fields}
    try:
        with whole_file(path) as file:
            hashed = _Hashed(file)
            torch.save({"format": FORMAT, **state}, cast(IO[bytes], hashed))
            file.write(_seal(hashed.digest.hexdigest()))
            if before:
                sync_file(file)
                keep_as(path, before)
    except (OSError, RuntimeError) as error:
        # torch's writer hides what the file system said behind an error of its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        remedy = "make room or give permission, then --resume from the last checkpoint, or start anew"
        if cause.errno == errno.ENOENT:
            remedy = "the folder was removed during the run, and its checkpoint with it: start anew"
        raise MachineError(f"{path} cannot be written: {cause.strerror}; {remedy}") from error


def _on_host(value: Any) -> Any:
    """A value with each tensor in it on the CPU, so that any machine can read the file."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    return [_on_host(item) for item in value] if isinstance(value, list) else value


def load_saved(folder: Path, previous: bool = False) -> Checkpoint:
    """Read the newest checkpoint of the run in `folder`, or the one before it.

    Raises DataError as `load_checkpoint` does. Of a damaged newest one it also says whether the one before is whole.
    """
    if previous:
        return load_checkpoint(folder / PREVIOUS)
    try:
        return load_checkpoint(folder / CHECKPOINT)
    except DataError as error:
        try:
            step = load_checkpoint(folder / PREVIOUS).step
        except DataError:
            raise error from None
        raise DataError(
            f"{error}; or go on from the checkpoint before it, {PREVIOUS}, which is whole and of step {step}: "
            "--resume --resume_from previous"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Its tensors are on the CPU.

    Raises DataError where the file is missing, where its content does not have its hash, and where it is not a
    checkpoint of this project.
    """
    if not path.is_file():
        raise DataError(f"{path}: no checkpoint there; name a run's folder that holds {CHECKPOINT}, or start anew")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: not a readable checkpoint: {error.strerror}") from error
    body, seal = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
    if not seal.startswith(SEAL):
        raise DataError(
            f"{path}: not a readable checkpoint: it does not end with its sha256. It was cut short, or another version "
            "or another program wrote it; a backbone goes to backbone_path"
        )
    if seal != _seal(found := hashlib.sha256(body).hexdigest()):
        raise DataError(
            f"{path}: not a readable checkpoint: it is damaged. Its content has the sha256 {found}, and was written "
            f"with {seal[len(SEAL) : -1].decode('ascii', 'replace')}; start the run anew"
        )
    state = read_tensors(body, f"{path}: not a readable checkpoint: it", "start the run anew")
    if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
        raise DataError(f"{path}: not a checkpoint of this version (format {FORMAT}); start the run anew")
    try:
        return Checkpoint(**state)
    except (ValidationError, TypeError) as error:
        said = _mistakes(error) if isinstance(error, ValidationError) else str(error)
        raise DataError(f"{path}: not a checkpoint of this version: {said}") from error


def _mistakes(error: ValidationError) -> str:
    """The first three mistakes as text: the field, and what is wrong with it."""
    said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lstrip(": ") for one in error.errors()[:3]]
    return "; ".join(said)


def _seal(digest: str) -> bytes:
    return SEAL + digest.encode("ascii") + b"\n"


class _Hashed:
    """A file that hashes what is written to it. torch.save writes from front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
