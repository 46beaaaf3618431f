"""The nearest known word to a mistyped one, for messages; used wherever a user names something."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" Did you mean '...'?"`, or nothing where none is close. Case, and - for _, do not count."""

    def fold(text: str) -> str:
        return text.lower().replace("-", "_")

    folded = {fold(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(fold(word), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[close[0]]}'?" if close else ""
