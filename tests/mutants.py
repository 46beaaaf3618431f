"""Breaks base/ssd in sampled places, one at a time, and asks each module's mirror test file whether it notices.

mutations.py says what a mutant is. The mirror file alone must fail or hang. Left alone are the inputs of conformance
cases, and the Triton kernels, which `make kernel-mutants` breaks. Exit 1: over 1 in 15 survive.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mutations import mutant, mutations

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "base" / "ssd"
KERNELS = ("augment", "encode", "loss", "detect", "select")
CASES = ("cases", "edges", "fixed", "inputs")
LEFT_ALONE = {f"conformance/{name}.py" for name in CASES} | {f"vendor/triton/{name}.py" for name in KERNELS}
IMPORTED = ("torch", "torchvision", "numpy", "PIL.Image", "pydantic", "tyro", "hypothesis", "xdist", "pytest")
"""What most tests need and no mutant changes: imported once, before the processes of the tests are forked."""
ELSEWHERE = dict(line.split() for line in (ROOT / "tests" / "mirrors.txt").read_text().splitlines())
"""Modules and rooms whose tests are not in a mirror file `tests/ROOM/test_MODULE.py` -> the file that tests them."""


@dataclass(frozen=True)
class Asked:
    """A module whose test file is to be run with another text of the module."""

    module: Path
    text: str
    said: str = ""
    limit: float = 1200.0


def mirror(module: Path) -> Path:
    """The test file of a module of base/ssd."""
    name = module.relative_to(PACKAGE).with_suffix("")
    path = ROOT / "tests" / name.with_name(f"test_{name.name}.py")
    if path.exists() and str(name) not in ELSEWHERE:
        return path
    return ROOT / "tests" / next(f"{ELSEWHERE[str(n)]}.py" for n in (name, *name.parents) if str(n) in ELSEWHERE)


def modules() -> list[Path]:
    """The modules that are broken."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).as_posix() not in LEFT_ALONE]


def write(copy: Path, module: Path, text: str) -> None:
    """Writes a module of a copy of the repository. Bytecode that Python kept of another text of it is removed."""
    path = copy / module.relative_to(ROOT)
    path.write_text(text)
    for kept in path.parent.glob(f"__pycache__/{path.stem}.*"):
        kept.unlink()


def start(copy: Path, path: Path) -> int:
    """Forks a process that runs a test file in a copy; returns its id. What it starts is of its process group."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        os.chdir(copy)
        for number in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        sys.path[:] = [folder for folder in sys.path if folder != str(ROOT / "tests")]
        os._exit(pytest.main(["-qx", "-p", "no:cacheprovider", str(path.relative_to(ROOT))]))
    finally:
        os._exit(1)


def seconds_to_pass(copies: list[Path], asked: list[Asked], texts: dict[Path, str]) -> Iterator[tuple[Asked, float]]:
    """What each test file takes to pass, in the order they end; infinity if it fails or takes longer than its limit."""
    free, waiting, running = list(copies), list(asked), {}
    while waiting or running:
        while waiting and free:
            one, copy = waiting.pop(0), free.pop()
            write(copy, one.module, one.text)
            running[start(copy, mirror(one.module))] = (one, copy, time.monotonic())
        for pid, (one, copy, began) in list(running.items()):
            seconds = time.monotonic() - began
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended or seconds > one.limit:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                if not ended:
                    os.waitpid(pid, 0)
                write(copy, one.module, texts[one.module])
                free.append(copy)
                del running[pid]
                yield one, seconds if ended and status == 0 else math.inf
        time.sleep(0.02)


def run(chosen: list[tuple[Path, int]], texts: dict[Path, str], copies: list[Path]) -> int:
    """Runs each mutant's test file and prints what came of it. Returns how many survive."""
    whole = {mirror(module): Asked(module, texts[module]) for module, _ in chosen}
    usual = {mirror(one.module): seconds for one, seconds in seconds_to_pass(copies, list(whole.values()), texts)}
    if failing := [path.name for path, seconds in usual.items() if seconds == math.inf]:
        raise SystemExit(f"these fail without any mutant: {', '.join(failing)}")
    asked = []
    for module, number in chosen:
        said, text = mutant(texts[module], number)
        asked.append(Asked(module, text, f"{module.relative_to(ROOT)}:{said}", 30 + 3 * usual[mirror(module)]))
    survivors = 0
    for one, seconds in seconds_to_pass(copies, asked, texts):
        survivors += seconds < math.inf
        print("killed  " if seconds == math.inf else "SURVIVES", one.said, flush=True)
    return survivors


def main() -> int:
    """Samples, runs, prints each mutant. 0 where at most 1 in 15 survives."""
    flags = argparse.ArgumentParser(description=__doc__)
    for name, default, words in (("count", 60, "mutants to sample"), ("jobs", 2, "test files at a time")):
        flags.add_argument(f"--{name}", type=int, default=default, help=words)
    flags.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the sample")
    given = flags.parse_args()
    texts = {path: path.read_text() for path in modules()}
    sites = [(path, n) for path, text in texts.items() for n, _ in enumerate(mutations(ast.parse(text)))]
    chosen = random.Random(given.seed).sample(sites, min(given.count, len(sites)))
    print(f"seed {given.seed}: {len(chosen)} of {len(sites)} mutants", flush=True)
    os.environ.setdefault("SSD_TINY_COCO", str(ROOT.parent / "shared" / "coco2017-tiny"))
    os.environ["OMP_NUM_THREADS"] = "1"
    list(map(importlib.import_module, IMPORTED))
    with tempfile.TemporaryDirectory() as scratch:
        ignored = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "runs")
        copies = [shutil.copytree(ROOT, Path(scratch, str(number)), ignore=ignored) for number in range(given.jobs)]
        survivors = run(chosen, texts, copies)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants are killed by the mirror file alone")
    return 0 if survivors * 15 <= len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
