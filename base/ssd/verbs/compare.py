"""The verb `compare`: runs side by side; or two runs that must be the same, held to each other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ssd.console import SafeConsole
from ssd.errors import EXIT_DIFFERENT, EXIT_REACHED, ConfigError
from ssd.verbs.equal import held_to_each_other

__all__ = ["compare_command"]


def compare_command(
    words: Sequence[str], *, assert_equal: bool = False, tolerance: float = 0.0, as_json: bool = False
) -> int:
    """`compare A B --assert-equal`: 0 where two runs are the same, EXIT_DIFFERENT where they part."""
    if not assert_equal:
        raise ConfigError("--assert-equal is missing.")
    if len(words) != 2:
        raise ConfigError(f"--assert-equal takes two runs, and got {len(words)}.")
    verdict = held_to_each_other(Path(words[0]), Path(words[1]), tolerance)
    if as_json:
        sys.stdout.write(verdict.as_json())
    else:
        out = SafeConsole(file=sys.stdout, highlight=False)
        for line in verdict.lines():
            out.print(line, soft_wrap=True, markup=False)
    return EXIT_REACHED if verdict.equal else EXIT_DIFFERENT
