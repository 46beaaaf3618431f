"""A line of the table of `vendors check`, and its verdict."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMPILED_ONLY", "EMULATOR", "HARDWARE", "Row", "failed", "in_words"]

HARDWARE, EMULATOR, COMPILED_ONLY = "hardware", "emulator", "compiled only"


@dataclass(frozen=True)
class Row:
    """One line of the table. ok: None is not run. error and tolerance: of the worst output, where there is a number.

    seconds, reference_seconds: one call of the override and of the reference on the same device, where it was timed.
    note: which output was worst, or why there is no number.
    """

    op: str
    override: str
    case: str
    means: str
    ok: bool | None
    error: float | None = None
    tolerance: float | None = None
    seconds: float | None = None
    reference_seconds: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """In a word. What was only compiled did not pass: nothing it computes was looked at."""
        if self.ok:
            return "compiled" if self.means == COMPILED_ONLY else "pass"
        return "not run" if self.ok is None else "FAIL"


def failed(op: str, override: str, means: str, note: str, case: str = "all") -> Row:
    """A row that fails without a number. note: why."""
    return Row(op, override, case, means, False, note=note)


def in_words(error: Exception) -> str:
    """An error of anybody's library as one line of a table."""
    return f"{type(error).__name__}: {str(error).strip()[-500:]}"
