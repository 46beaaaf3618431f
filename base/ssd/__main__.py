"""`python -m ssd VERB ...`: the command line of the package."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts the current folder on the path. In the repository's root that would make vendors' folders importable, and
# a wheel may install a package of the same name (`nvidia` is one).
ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]

from ssd.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
