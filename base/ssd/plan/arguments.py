"""What `plan` refuses before torch is imported: a mistake is said at once, and not after seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssd.errors import ConfigError
from ssd.text import shortened

__all__ = ["MOST", "numbers_of", "require_plan"]

MOST = 4096
"""The most accelerators of a prediction. With one image each they have the largest reference batch."""
PREDICTS = ("accelerator", "measured", "target_minutes", "page", "measure")
"""Flags of a prediction, which `--validate` does not make."""


def numbers_of(text: str) -> list[int]:
    """The numbers in a text such as `8,64,512`, ascending, each once. ConfigError for others than 1 to MOST."""
    words = text.replace(",", " ").split()
    whole = all(word.isascii() and word.isdecimal() and len(word) <= len(str(MOST)) for word in words)
    if not words or not whole or not all(1 <= int(word) <= MOST for word in words):
        raise ConfigError(f"--accelerators {shortened(text)}: takes numbers from 1 to {MOST:,}, such as 8,64,512.")
    return sorted({int(word) for word in words})


def require_plan(own: Mapping[str, Any], nodes: int = 1) -> None:
    """ConfigError for flags that do not go together or have no such values, DataError for files that are not theirs.

    own: the values of the verb's flags. nodes: of the config.
    """
    numbers_of(own["accelerators"])
    if own["validate"]:
        if given := [name for name in PREDICTS if own[name]]:
            raise ConfigError(f"--validate predicts published systems: take --{given[0]} out.")
        if own["rows"]:
            from ssd.plan.rows import read_rows  # what flags alone can answer need not wait for this

            read_rows(own["rows"])
        return
    if own["rows"]:
        raise ConfigError("--rows FILE goes with --validate.")
    if own["measure"] and (other := next((name for name in ("measured", "accelerator") if own[name]), None)):
        raise ConfigError(f"--measure measures this machine: take --{other} out.")
    if own["measure"] and nodes > 1:
        raise ConfigError(
            f"nodes = {nodes}: --measure times one host: leave the key out, or give a run: --measured RUN."
        )
    if own["page"] and not own["page"].parent.is_dir():
        raise ConfigError(f"--page {own['page']}: its folder does not exist: make it, or name another.")
    if own["measured"]:
        from ssd.plan.measured import read_measured

        for path in own["measured"]:
            read_measured(path)
