"""`python -m ssd VERB ...`: the command line of the package, and one sentence where Python lacks what it needs.

Nothing but the standard library is imported before the sentence can be said.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run"]

# Python puts the current folder on the path. In the repository's root that would make vendors' folders importable, and
# a wheel may install a package of the same name (`nvidia` is one).
ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]

OLDEST = (3, 10)
EXIT_MACHINE = 7
"""As in ssd.errors."""


def run(argv: Sequence[str] | None = None) -> int:
    """`ssd.cli.main`; the exit code, that of a lacking machine where this Python is too old or lacks a library."""
    if sys.version_info < OLDEST:
        sys.stderr.write(f"error: {_python()}: 3.10 or newer is needed; {REMEDY}\n")
        return EXIT_MACHINE
    try:
        from ssd.cli import main

        return main(argv)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "ssd":  # a defect of ours
            raise
        sys.stderr.write(f"error: {_python()} has no module {error.name}; {REMEDY}\n")
        return EXIT_MACHINE


REMEDY = (
    f"install {ROOT / 'requirements.txt'} into it, or let `make venv` make an environment, or name another interpreter "
    "in the variable PYTHON"
)


def _python() -> str:
    return f"{sys.executable} (Python {sys.version.partition(' ')[0]})"


if __name__ == "__main__":
    sys.exit(run())
