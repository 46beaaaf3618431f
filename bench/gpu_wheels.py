"""Downloads the wheels that a run needs beside torch, for a machine without a network, and lists their sizes.

    python bench/gpu_wheels.py --output DIR [--python 3.12]      # or: make gpu-wheels OUT=DIR

An image with torch has torch's and torchvision's own requirements too, numpy and pillow among them, so those are left
out. What is left is found from the packages that are installed here, at their versions, for another Python on Linux
x86-64; a package that is needed on that Python alone is taken at its newest version.
There: pip install --no-deps --no-index DIR/*.whl
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from measure import ROOT
from packaging.requirements import Requirement

IMAGE = ("torch", "torchvision")
"""What the machine has."""
TELEMETRY = "nvidia-ml-py"
"""Needed by no run; telemetry is read with it."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")


def main(argv: Sequence[str] | None = None) -> int:
    """Download, and print a line a wheel and their sum; pip's exit code where it fails."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--output", type=Path, required=True, help="folder for the wheels")
    flags.add_argument("--python", default="3.12", help="version of Python there")
    asked = flags.parse_args(argv)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={asked.python}", *(f"--platform={name}" for name in PLATFORMS)]
    done = subprocess.run([*command, f"--dest={asked.output}", *wheels(asked.python)])
    if done.returncode:
        return done.returncode
    sizes = {path.name: path.stat().st_size for path in sorted(asked.output.glob("*.whl"))}
    for name, size in {**sizes, f"{len(sizes)} wheels": sum(sizes.values())}.items():
        print(f"{size / 1e6:8.2f} MB  {name}")
    return 0


def wheels(python: str) -> list[str]:
    """What a run needs and the image does not have, in order, each at the version that is installed here."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    asked = [line.partition("#")[0].strip() for line in lines]
    names = closure([*filter(None, asked), TELEMETRY], python) - closure(IMAGE, python)
    return [pinned(name) for name in sorted(names)]


def pinned(name: str) -> str:
    """The package at the version that is installed here; any version where none is."""
    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:
        return name


def closure(asked: Iterable[str], python: str) -> set[str]:
    """The names of the requirements `asked`, and of all that they require on that version of Python."""
    found: set[str] = set()
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    left = list(asked)
    while left:
        one = Requirement(left.pop())
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found or (one.marker and not one.marker.evaluate(environment)):
            continue
        found.add(name)
        with suppress(PackageNotFoundError):
            left += requires(name) or []
    return found


if __name__ == "__main__":
    sys.exit(main())
