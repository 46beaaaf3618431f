"""Breaks base/ssd in sampled places, one at a time, and asks each module's mirror test file whether it notices.

A mutant is one changed operator, condition, truth value, or number 0 or 1, or one statement that is left out. The
mirror file alone must fail or hang. Left alone are annotations, decorators, texts, zip's `strict`, logging, and the
inputs of conformance cases. Other numbers are choices, which a test could only repeat. Exit 1: over 1 in 15 survive.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "base" / "ssd"
INPUTS = ("conformance/cases.py", "conformance/inputs.py")
ELSEWHERE = {
    "account": "account/test_anomalies", "report": "report/test_page", "compute/laps": "end_to_end/test_runs",
    "config": "config/test_config", "config/help": "test_cli", "compute/memory": "vendor/test_interface",
    "train": "end_to_end/test_runs", "vendor": "vendor/test_interface", "vendor/scaffold": "vendors/test_porting",
    "vendor/csrc": "vendor/csrc/test_host", "vendor/triton": "vendor/triton/test_kernels", "model": "model/test_ssd300",
    "report/summary": "end_to_end/test_runs", "verbs": "end_to_end/test_runs", "verbs/campaign": "mlperf/test_series",
    "plan": "plan/test_command", "plan/epochs": "plan/test_validate", "__main__": "test_cli",
    "data": "data/test_annotations", "conformance": "vendors/test_conformance", "run": "end_to_end/test_runs",
    "prepare": "prepare/test_coco", "mlperf": "mlperf/test_package_check", "mlperf/agreement": "mlperf/test_series",
    "mlperf/commands": "mlperf/test_series", "mlperf/package": "mlperf/test_series",
    "mlperf/records": "mlperf/test_results", "mlperf/expectations": "mlperf/test_limits",
}  # fmt: skip
"""Modules and rooms without a mirror file `tests/ROOM/test_MODULE.py` -> the file that tests them."""

PAIRS = "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, FloorDiv Mod, BitAnd BitOr, UAdd USub"
SWAPS = {one: other for pair in PAIRS.split(", ") for one, other in (pair.split(), pair.split()[::-1])}


def mirror(module: Path) -> Path:
    """The test file of a module of base/ssd."""
    name = module.relative_to(PACKAGE).with_suffix("")
    if (path := ROOT / "tests" / name.with_name(f"test_{name.name}.py")).exists():
        return path
    return ROOT / "tests" / next(f"{ELSEWHERE[str(n)]}.py" for n in (name, *name.parents) if str(n) in ELSEWHERE)


def left_alone(tree: ast.Module) -> set[ast.AST]:
    """Nodes that no mutant changes."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", 0), getattr(node, "returns", 0), *getattr(node, "decorator_list", [])]
        if isinstance(node, ast.Call | ast.If | ast.keyword):
            parts += [node] * ast.unparse(node).startswith(("log.", "if TYPE_CHECKING", "strict="))
        found |= {inner for part in parts if part for inner in ast.walk(part)}
    return found


def mutations(tree: ast.Module) -> Iterator[tuple[ast.AST, str, ast.AST, str, object]]:
    """What to show: a node, and its change in words. What to do: a node, its field, and the field's new value."""
    skipped = left_alone(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        ops = node.ops if isinstance(node, ast.Compare) else [getattr(node, "op", None)]
        for place, name in enumerate(type(op).__name__ for op in ops):
            if name in SWAPS:
                new = [*ops[:place], getattr(ast, SWAPS[name])(), *ops[place + 1 :]]
                field, value = ("ops", new) if isinstance(node, ast.Compare) else ("op", new[0])
                yield node, f"{name} becomes {SWAPS[name]}", node, field, value
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            yield node.test, "becomes its opposite", node, "test", ast.UnaryOp(ast.Not(), node.test)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value in (0, 1):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield node, f"becomes {value}", node, "value", value
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            for place, inner in enumerate(body if isinstance(body, list) else []):
                call = isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Call) and inner.value not in skipped
                if call or isinstance(inner, ast.Raise | ast.AugAssign | ast.Continue | ast.Break):
                    yield inner, "is left out", node, name, [*body[:place], ast.Pass(), *body[place + 1 :]]


def seconds_to_pass(folders: SimpleQueue[Path], path: Path, limit: float, broken: Path = ROOT, text: str = "") -> float:
    """What a test file takes to pass in a copy of the repository, with `text` in a module; infinity if it does not."""
    folder = folders.get()
    if text:
        (folder / broken.relative_to(ROOT)).write_text(text)
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", str(path.relative_to(ROOT))]
    start = time.monotonic()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, cwd=folder, start_new_session=True, **silent)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(limit)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    seconds = time.monotonic() - start if child.wait() == 0 else math.inf
    if text:
        shutil.copy(broken, folder / broken.relative_to(ROOT))
    folders.put(folder)
    return seconds


def killed(folders: SimpleQueue[Path], limit: float, module: Path, number: int) -> bool:
    """Whether the mirror file notices a module's mutant; one that it does not notice is printed."""
    tree = ast.parse(module.read_text())
    shown, words, node, field, value = list(mutations(tree))[number]
    said = f"{module.relative_to(ROOT)}:{shown.lineno}: {ast.unparse(shown).splitlines()[0]}: {words}"
    setattr(node, field, value)
    found = seconds_to_pass(folders, mirror(module), limit, module, ast.unparse(tree)) == math.inf
    print("killed  " if found else "SURVIVES", said, flush=True)
    return found


def main() -> int:
    """Samples, runs, prints the survivors. 0 where at most 1 in 15 survives."""
    flags = argparse.ArgumentParser(description=__doc__)
    for name, default, words in (("count", 60, "mutants to sample"), ("jobs", 2, "test files at a time")):
        flags.add_argument(f"--{name}", type=int, default=default, help=words)
    flags.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the sample")
    asked = flags.parse_args()
    modules = [path for path in sorted(PACKAGE.rglob("*.py")) if not str(path).endswith(INPUTS)]
    sites = [(path, n) for path in modules for n, _ in enumerate(mutations(ast.parse(path.read_text())))]
    chosen = random.Random(asked.seed).sample(sites, min(asked.count, len(sites)))
    print(f"seed {asked.seed}: {len(chosen)} of {len(sites)} mutants", flush=True)
    os.environ.setdefault("SSD_TINY_COCO", str(ROOT.parent / "shared" / "coco2017-tiny"))
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(asked.jobs) as pool:
        folders: SimpleQueue[Path] = SimpleQueue()
        for number in range(asked.jobs):
            folder = Path(scratch, str(number))
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv*", ".*_cache", "runs"))
            folders.put(folder)
        paths = sorted({mirror(module) for module, _ in chosen})
        usual = dict(zip(paths, pool.map(lambda path: seconds_to_pass(folders, path, 1200), paths), strict=True))
        if failing := [str(path.relative_to(ROOT)) for path in paths if usual[path] == math.inf]:
            raise SystemExit(f"these fail without any mutant: {', '.join(failing)}")
        count = sum(pool.map(lambda site: killed(folders, 30 + 3 * usual[mirror(site[0])], *site), chosen))
    print(f"{count} of {len(chosen)} mutants are killed by the mirror file alone")
    return 0 if count * 15 >= len(chosen) * 14 else 1


if __name__ == "__main__":
    sys.exit(main())
