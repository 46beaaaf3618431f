"""`python -m ssd VERB ...`: the command line of the package, and one sentence where Python lacks what it needs.

Nothing but the standard library is imported before the sentence can be said.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run"]

# Python puts the current folder on the path. In the repository's root that would make vendors' folders importable, and
# a wheel may install a package of the same name (`nvidia` is one).
ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]

OLDEST = (3, 10)
OPEN_FILES = 64
"""Least limit of open files. Below it torch waits for ever, or aborts without a word, where it opens its sockets."""
EXIT_MACHINE = 7
"""As in ssd.errors."""


def run(argv: Sequence[str] | None = None) -> int:
    """`ssd.cli.main`; the exit code, that of a lacking machine where this Python is too old or lacks a library."""
    if sys.version_info < OLDEST:
        return _refused(
            f"{sys.executable} (Python {sys.version.partition(' ')[0]}): 3.10 or newer is needed; let `make venv` make "
            "an environment, or name another interpreter in the variable PYTHON"
        )
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < OPEN_FILES:
        return _refused(
            f"{limit} open files are allowed here (ulimit -n), and {OPEN_FILES} are needed; raise the limit"
        )
    try:
        from ssd.cli import main

        return main(argv)
    except (ImportError, MemoryError) as error:
        from ssd.errors import as_ssd_error

        known = as_ssd_error(error)
        if known is None:
            raise
        return _refused(str(known))


def _refused(text: str) -> int:
    sys.stderr.write(f"error: {text}\n")
    return EXIT_MACHINE


if __name__ == "__main__":
    sys.exit(run())
