"""`python3 prepare.py --name V [--data_dir D]`: fetch or draw data, check it, build extensions. See ssd.cli."""

from __future__ import annotations

import sys

from ssd.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
