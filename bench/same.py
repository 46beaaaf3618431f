"""Whether this checkout trains as another commit does, to the bit: smoke and tiny by both, held to each other.

    make same BASE=REV [DATA_DIR=FOLDER]
    python bench/same.py --base REV [--configs smoke tiny] [--data_dir FOLDER] [--output FOLDER] [-- --key value ...]

REV is checked out as a worktree of git, which is removed again. Each config is trained by both with one seed, and
`compare --assert-equal` of this checkout says where the runs part: step by step where both keep a record of their
steps, else by the mean losses of logging intervals and by the checkpoints' tensors. Without DATA_DIR tiny trains on a
drawn set. What was said stands in OUTPUT/same.txt. Exit code 0: the same; 9: they part; 1: a run failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from measure import ROOT

from ssd.errors import (
    EXIT_DIFFERENT,
    EXIT_INTERNAL,
    EXIT_MAX_STEPS,
    EXIT_NOT_CONVERGED,
    EXIT_REACHED,
    ConfigError,
)
from ssd.prepare.drawn import draw_set
from ssd.verbs.equal import held_to_each_other

CONFIGS = ("smoke", "tiny")
ENDED = (EXIT_REACHED, EXIT_NOT_CONVERGED, EXIT_MAX_STEPS)
DRAWN_IMAGES, DRAWN_CLASSES = 16, 4


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: the worst of all configs'."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--base", required=True, metavar="REV")
    flags.add_argument("--configs", nargs="+", default=CONFIGS)
    flags.add_argument("--data_dir", type=Path)
    flags.add_argument("--output", type=Path, help="folder of the runs (default: a temporary one)")
    flags.add_argument("--root", type=Path, default=ROOT, help="the checkout that is held to REV")
    flags.add_argument("keys", nargs="*", help="more keys of the runs, after --")
    asked = flags.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ssd-same-") as scratch:
        folder = asked.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with worktree(asked.root, asked.base, Path(scratch) / "base") as base:
            heading = f"{commit(base)} and {commit(asked.root)}, torch {torch.__version__}"
            lines, codes = [heading], []
            for config in asked.configs:
                keys = [*data_keys(config, asked.data_dir, Path(scratch)), *asked.keys]
                code, said = held(config, (base, asked.root), keys, folder)
                lines += [f"\n{config} {' '.join(asked.keys)}".rstrip(), *said]
                codes.append(code)
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if asked.output:
        (folder / "same.txt").write_text(text, encoding="utf-8")
    return max(codes)


@contextmanager
def worktree(root: Path, revision: str, folder: Path) -> Iterator[Path]:
    """A checkout of a commit, inside of the context. ConfigError for what is no commit."""
    git = ("git", "-C", str(root), "worktree")
    command = [*git, "add", "--quiet", "--detach", str(folder), revision]
    added = subprocess.run(command, capture_output=True, text=True)
    if added.returncode:
        raise ConfigError(f"BASE = {revision}: git cannot check it out: {added.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def commit(checkout: Path) -> str:
    """The commit of a checkout; "+changed" behind it where files differ."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=12", "--dirty=+changed", "--exclude=*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def data_keys(config: str, data_dir: Path | None, scratch: Path) -> list[str]:
    """The keys that name a config's images: a user's folder, or a drawn set; smoke draws its own."""
    if config == "smoke":
        return []
    cache = ["--cache_dir", str(scratch / "cache")]
    if data_dir is not None:
        return ["--data_dir", str(data_dir.resolve()), *cache]
    if not (scratch / "drawn").is_dir():
        draw_set(scratch / "drawn", train=DRAWN_IMAGES, val=DRAWN_IMAGES // 4, seed=1)
    return ["--data_dir", str(scratch / "drawn"), "--num_classes", str(DRAWN_CLASSES), *cache]


def held(config: str, checkouts: tuple[Path, Path], keys: Sequence[str], folder: Path) -> tuple[int, list[str]]:
    """Train a config by both checkouts; the exit code, and what is said of it."""
    runs = [folder / f"{config}-{name}" for name in ("base", "here")]
    codes = []
    for checkout, run in zip(checkouts, runs, strict=True):
        command = [sys.executable, "-m", "ssd", "train", "--name", "cpu", "--config", config, "--seed", "1"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SSD_")}
        done = subprocess.run(
            [*command, *keys, "--output", str(run.resolve())],
            cwd=checkout / "base",
            env={**environ, "PYTHONPATH": "", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            capture_output=True,
            text=True,
        )
        codes.append(done.returncode)
        if done.returncode not in ENDED:
            return EXIT_INTERNAL, [f"{run.name} ended with exit code {done.returncode}:", done.stderr.strip()[-2000:]]
    verdict = held_to_each_other(runs[0], runs[1], 0.0)
    said = [line for line in verdict.lines() if not line.startswith(("A: ", "B: "))]
    if codes[0] != codes[1]:
        said.insert(0, f"Their exit codes differ: {codes[0]} and {codes[1]}.")
    return (EXIT_REACHED if verdict.equal and codes[0] == codes[1] else EXIT_DIFFERENT), said


if __name__ == "__main__":
    sys.exit(main())
