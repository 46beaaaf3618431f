"""Breaks base/ssd in sampled places, one at a time, and asks each module's mirror test file whether it notices.

mutations.py says what a mutant is. It is killed where a test of the mirror file fails or hangs that passes without the
mutant. Left alone are the inputs of conformance cases, and the Triton kernels, which `make kernel-mutants` breaks.
Exit 1: over 1 in 15 survive.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pytest
from mutations import mutant, mutations

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "base" / "ssd"
KERNELS = ("augment", "encode", "loss", "detect", "crop", "select")
CASES = ("cases", "detect_edges", "edges", "fixed", "inputs")
LEFT_ALONE = {f"conformance/{name}.py" for name in CASES} | {f"vendor/triton/{name}.py" for name in KERNELS}
IMPORTED = ("torch", "torchvision", "numpy", "PIL.Image", "pydantic", "tyro", "hypothesis", "xdist", "pytest")
"""What most tests need and no mutant changes: imported once, before the processes of the tests are forked."""
TEST_LIMIT, FILE_LIMIT = 200, 1500
"""Seconds after which a test, and a whole file of tests, is taken to hang where no other process wants the cores."""
ELSEWHERE = dict(line.split() for line in (ROOT / "tests" / "mirrors.txt").read_text().splitlines())
"""Modules and rooms whose tests are not in a mirror file `tests/ROOM/test_MODULE.py` -> the file that tests them."""


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


def slowed() -> float:
    """How many processes there are that would run now, a core; at least 1. All takes that many times as long."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def run_pytest(copy: Path, words: list[str], limit: float) -> int:
    """Forks a process that runs pytest in a copy; its exit code. After `limit` seconds it is killed, which is -9.

    On a machine that other work slows down, this limit and that of a test are as many times as long.
    """
    slow = slowed()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            os.chdir(copy)
            for number in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            sys.path[:] = [folder for folder in sys.path if folder != str(ROOT / "tests")]
            os._exit(pytest.main(["-q", "-o", "cache_dir=.kept", f"--timeout={TEST_LIMIT * slow:.0f}", *words]))
        finally:
            os._exit(1)
    end = time.monotonic() + limit * slow
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(ended[1] if ended[0] else os.waitpid(pid, 0)[1])


def verdict(module: Path, text: str, scratch: Path, limit: float = FILE_LIMIT) -> str:
    """What a module's test file says of another text of it. Each process works in a copy of the repository of its own.

    What failed is run once more without the mutant: pytest keeps which test failed (--lf). Exit code 2 is a file that
    cannot be imported, and of that no test has to be run. Where pytest itself ended, the whole file runs.
    """
    copy = scratch / str(os.getpid())
    if not copy.exists():
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".*_cache", "runs"))
    shutil.rmtree(copy / ".kept", ignore_errors=True)
    tests = str(mirror(module).relative_to(ROOT))
    write(copy, module, text)
    code = run_pytest(copy, ["-x", tests], limit)
    write(copy, module, module.read_text())
    if code == 0:
        return "SURVIVES"
    again = run_pytest(copy, ["--collect-only" if code == 2 else "--lf", tests], limit)
    return "killed" if again == 0 else "FAILS WITHOUT IT"


def main() -> int:
    """Samples, runs, prints each mutant. 0 where at most 1 in 15 survives."""
    flags = argparse.ArgumentParser(description=__doc__)
    for name, default, words in (("count", 60, "mutants to sample"), ("jobs", 2, "test files at a time")):
        flags.add_argument(f"--{name}", type=int, default=default, help=words)
    flags.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the sample")
    flags.add_argument("--only", default="", help="modules whose path holds this text, such as plan/")
    given = flags.parse_args()
    texts = {path: path.read_text() for path in modules() if given.only in path.relative_to(PACKAGE).as_posix()}
    sites = [(path, n) for path, text in texts.items() for n, _ in enumerate(mutations(ast.parse(text)))]
    chosen = random.Random(given.seed).sample(sites, min(given.count, len(sites)))
    chosen.sort(key=lambda one: "end_to_end" not in mirror(one[0]).parts)  # the longest first, so that none is last
    print(f"seed {given.seed}: {len(chosen)} of {len(sites)} mutants", flush=True)
    os.environ.setdefault("SSD_TINY_COCO", str(ROOT.parent / "shared" / "coco2017-tiny"))
    os.environ["OMP_NUM_THREADS"] = "1"
    list(map(importlib.import_module, IMPORTED))
    killed = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(given.jobs, multiprocessing.get_context("fork")) as pool,
    ):
        asked = {}
        for module, number in chosen:
            said, text = mutant(texts[module], number)
            asked[pool.submit(verdict, module, text, Path(scratch))] = f"{module.relative_to(ROOT)}:{said}"
        for one in as_completed(asked):
            killed += one.result() == "killed"
            print(f"{one.result():16}", asked[one], flush=True)
    print(f"{killed} of {len(chosen)} mutants are killed by the mirror file alone")
    return 0 if (len(chosen) - killed) * 15 <= len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
