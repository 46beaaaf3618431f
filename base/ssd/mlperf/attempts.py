"""What a campaign has done so far: its runs and their outcomes, kept in campaign.json."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ssd.errors import DataError
from ssd.files import write_whole
from ssd.text import shortened

__all__ = ["STATE", "Attempt", "State", "load_state", "save_state"]

STATE = "campaign.json"


@dataclass(frozen=True)
class Attempt:
    """One run. outcome: "running", "counts", or "failed" with its reason. "running" at a start: it was interrupted."""

    folder: str
    seed: int
    outcome: str = "running"
    exit_code: int | None = None
    reason: str = ""


@dataclass
class State:
    """What campaign.json holds. config: the configuration and the code's commit. images_per_s: measured, or None."""

    config: dict[str, Any]
    attempts: list[Attempt] = field(default_factory=list)
    images_per_s: float | None = None

    @property
    def counted(self) -> list[Attempt]:
        """Runs that count, in order."""
        return [attempt for attempt in self.attempts if attempt.outcome == "counts"]


def load_state(folder: Path) -> State:
    """The state of a campaign. Raises DataError where campaign.json is missing or damaged."""
    try:
        state = TypeAdapter(State).validate_json((folder / STATE).read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise DataError(f"{folder / STATE}: not a campaign's state: {shortened(where + first['msg'])}") from error
    except OSError as error:
        raise DataError(f"{folder / STATE}: not a campaign's state: {error.strerror}") from error
    if outside := [one.folder for one in state.attempts if not re.fullmatch(r"run_\d+", one.folder)]:
        raise DataError(f"{folder / STATE}: {shortened(repr(outside[0]))} is no name of a run's folder")
    return state


def save_state(folder: Path, state: State) -> None:
    """Write campaign.json, whole or not at all."""
    write_whole(folder / STATE, json.dumps(asdict(state), indent=1, default=str) + "\n")
