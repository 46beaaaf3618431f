"""`python3 prepare.py --name V [--data_dir D]`: fetch or draw data, check it, build extensions. See ssd.cli."""

from __future__ import annotations

import sys

from ssd.__main__ import run

if __name__ == "__main__":
    sys.exit(run(["prepare", *sys.argv[1:]]))
