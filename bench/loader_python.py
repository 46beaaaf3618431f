"""Python's time an image in the backend `threads`, with decoding and resizing stubbed out; beside another commit's.

    python bench/loader_python.py [--base REV] [--workers 1] [--batch 256] [--rounds 7] [--quick]

One thread of a process runs Python at a time, so this time bounds a process's images/s, at any number of cores. What is
counted is the CPU's time of all threads, for all that is left: drawing, reading the file (from the page cache), looking
at its header, the calls of torch, and joining the batch. The files have the size of COCO's, and the images its number
of boxes. REV is checked out as a worktree of git. Both run in processes of their own, an epoch each in turn.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, Item, bounded, parser, write_row
from PIL import Image
from same import commit, worktree

from ssd.vendor import load_vendor

GOAL_US = 40
FILES, FILE_BYTES, SIDE = 32, 160_000, 8
"""Different files, their size (the mean of COCO's), and the pixels of a side: little to copy."""
BOXES = 7.3
"""Boxes of an image of COCO, in the mean."""


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--base", metavar="REV", help="a commit that is measured beside")
    flags.add_argument("--workers", type=int, default=1, help="threads; more of them wait for each other")
    flags.add_argument("--batch", type=int, default=256)
    flags.add_argument("--rounds", type=int, default=7, help="epochs of each, in turn")
    asked = flags.parse_args(argv)
    rounds, images = (1, 2 * asked.batch) if asked.quick else (asked.rounds, 8 * asked.batch)
    with tempfile.TemporaryDirectory(prefix="ssd-loader-") as scratch, ExitStack() as stack:
        folder = Path(scratch, "set")
        make_set(folder, images)
        checkouts = {"ours": ROOT}
        if asked.base:
            checkouts["base"] = stack.enter_context(worktree(ROOT, asked.base, Path(scratch, "base")))
        found = turns(checkouts, folder, (asked.batch, asked.workers), rounds)
        names = {name: commit(checkout) for name, checkout in checkouts.items()}
    row: dict[str, Any] = {"images": images, "batch": asked.batch, "workers": asked.workers, "rounds": rounds}
    for name, values in found.items():
        whole, user = np.array(values).T
        row[f"{name}_us_an_image"] = round(statistics.median(whole.tolist()), 1)
        row[f"{name}_quartiles_us"] = [round(one, 1) for one in np.quantile(whole, (0.25, 0.75)).tolist()]
        row[f"{name}_user_us"] = round(statistics.median(user.tolist()), 1)
    if asked.base:
        row |= {"base_commit": names["base"], "times_less": round(row["base_user_us"] / row["ours_user_us"], 2)}
    write_row("loader_python", asked, load_vendor("cpu"), row, [item(row)])
    return 0


def make_set(folder: Path, images: int) -> None:
    """A set of `images` JPEG files, with as many boxes as COCO's images have. Its files are links to a few."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        (folder / f"file{number}").write_bytes(made_jpeg(rng))
    counts = rng.geometric(1 / BOXES, images)
    content: dict[str, list] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "any"}]}
    for number, count in enumerate(counts.tolist(), start=1):
        os.link(folder / f"file{number % FILES}", folder / f"{number:012d}.jpg")
        image = {"id": number, "file_name": f"{number:012d}.jpg", "width": SIDE, "height": SIDE}
        content["images"].append(image)
        for left, top, width, height in (rng.random((count, 4)) * SIDE / 2 + 0.01).tolist():
            box = {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0, "category_id": 1}
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": number, **box})
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def made_jpeg(rng: np.random.Generator) -> bytes:
    """A JPEG file of few pixels and of COCO's size. What follows its data looks to a reader of markers like data."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "JPEG")
    data = rng.integers(0, 256, FILE_BYTES, dtype=np.uint8)
    data[1:][data[:-1] == 255] = 0
    return file.getvalue()[:-2] + data[:-1].tobytes() + b"\x00\xff\xd9"


def turns(
    checkouts: Mapping[str, Path], folder: Path, sizes: tuple[int, int], rounds: int
) -> dict[str, list[list[float]]]:
    """Microseconds an image of each checkout's loader, an epoch each in turn, after one that is not counted.

    Each epoch has two numbers: the CPU's time, and the user's part of it.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in checkouts}
    command = [sys.executable, str(ROOT / "bench" / "loader_stubbed.py"), str(folder), *map(str, sizes)]
    with ExitStack() as stack:
        sides = {}
        for name, checkout in checkouts.items():
            environ = {**os.environ, "PYTHONPATH": str(checkout / "base"), "OMP_NUM_THREADS": "1"}
            side = subprocess.Popen(
                command, env=environ, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            sides[name] = stack.enter_context(side)
        for turn in range(rounds + 1):
            for name, side in sides.items():
                assert side.stdin is not None
                assert side.stdout is not None
                print(file=side.stdin, flush=True)
                answer = side.stdout.readline()
                if not answer:
                    raise RuntimeError(f"the loader of {name} ended; what it said stands above")
                if turn:
                    found[name].append([float(one) for one in answer.split()])
    return found


def item(row: Mapping[str, Any]) -> Item:
    """The row of the table of `make bench`."""
    what = f"Python of the loader, batch {row['batch']}, {row['workers']} workers, an image (CPU)"
    beside = {"peer": row["base_commit"], "theirs": f"{row['base_user_us']} us"} if "base_commit" in row else {}
    limit = "reading files, and the calls of torch"
    return bounded(what, row["ours_user_us"], "us", most=GOAL_US, limit=limit, **beside)


if __name__ == "__main__":
    sys.exit(main())
