"""The nearest known word to a mistyped one, for messages; used wherever a user names something."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]

NEAR = 0.75
"""Least similarity, by difflib's ratio: of a word of eight letters two are wrong."""
SHORTEST, MOST = 3, 3
"""Letters of a word that is looked for within longer ones, and how many of those are named."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" Did you mean '...'?"`, or nothing where none is near. Case, dashes in front, and - or . for _, do not count.

    Near is a slip of the keyboard, or one part of a longer name, such as `workers` for `num_workers`. A word that
    merely shares letters is not suggested.
    """
    given = _folded(word)
    folded = {_folded(candidate): candidate for candidate in known}
    near = [name for name in folded if f"_{given}_" in f"_{name}_"] if len(given) >= SHORTEST else []
    near = near or [name for name in folded if sorted(name) == sorted(given)]
    near = near or difflib.get_close_matches(given, folded, n=1, cutoff=NEAR)
    if not near and len(given) >= SHORTEST:
        near = [name for name in folded if name.startswith(given)]
    if not 1 <= len(near) <= MOST:
        return ""
    return f" Did you mean {' or '.join(repr(folded[name]) for name in near)}?"


def _folded(text: str) -> str:
    return text.lower().lstrip("-").replace("-", "_").replace(".", "_")
