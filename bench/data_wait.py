"""How long training waits for JPEG files: for the first batch of a set of COCO's size, and for each batch after it.

    python bench/data_wait.py [--batch 32] [--workers 2] [--steps 30] [--quick]

The loader is that of a run (`threads`). Its pictures are made, and as large as COCO's. Decoding a batch takes 80% of a
step: the step is a sleep of 1.25 times the seconds in which this machine decodes a batch. So it stands for a step of an
accelerator, which leaves the host's cores to the loader. The first batch comes from an index of COCO's size, whose
annotations are read before, as a run reads them before run_start.
Memory is what the process holds at its peak while batches are made, less what it held before.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from coco_sized import BOXES, IMAGES, write_annotations
from measure import bounded, held_mb, parser, peak_anew, write_row

from ssd.counts import IMAGE_SIZE
from ssd.data.annotations import parse_annotations
from ssd.data.loader import ThreadLoader
from ssd.measure.decoding import decoded_per_second, jpeg_loader
from ssd.measure.made_images import picture
from ssd.vendor import load_vendor

DECODING = 0.8
"""Share of a step in which its batch is decoded."""
PICTURES = 48
"""Different pictures of each size: a file system allows a file some ten thousand hard links."""
WORKER_MB = 32
"""A decoding thread's image and crop, and what the C library keeps of freed ones for the next."""


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--batch", type=int, default=32)
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--steps", type=int, default=30)
    asked = flags.parse_args(argv)
    torch.set_num_threads(1)
    images, boxes, batch, steps, seconds, pictures = (
        (200, 1400, 2, 3, 0.05, 1) if asked.quick else (IMAGES, BOXES, asked.batch, asked.steps, 10.0, PICTURES)
    )
    with tempfile.TemporaryDirectory(prefix="ssd-bench-") as folder:
        loader = made_loader(Path(folder), images, boxes, pictures, batch, asked.workers)
        before = held_mb("VmRSS")
        peak_anew()
        first, _ = first_and_waits(loader, 0, 0)
        rate, _ = decoded_per_second(loader, seconds)
        step = batch / rate / DECODING
        _, waits = first_and_waits(loader, steps, step)
        memory = held_mb("VmHWM") - before
    share = 100 * sum(waits) / (steps * step + sum(waits))
    row = {
        "images": images,
        "batch": batch,
        "workers": asked.workers,
        "prefetch": loader.reading.prefetch,
        "first_batch_s": round(first, 4),
        "decoding_images_per_s": round(rate, 1),
        "step_s": round(step, 4),
        "wait_ms": {"median": round(1e3 * statistics.median(waits), 3), "largest": round(1e3 * max(waits), 3)},
        "wait_percent": round(share, 3),
        "loader_mb": round(memory, 1),
        "steps": steps,
    }
    what = f"batch {batch}, {asked.workers} workers"
    items = [
        bounded(f"first batch of {images:,} images, {what}", first, "s", most=1, limit="decoding"),
        bounded(f"data wait where decoding takes 80% of a step, {what}", share, "%", most=1, limit="decoding"),
        bounded(f"memory of the loader, {what}", memory, "MB", most=bound_mb(loader), limit="images being decoded"),
    ]
    write_row("data_wait", asked, load_vendor("cpu"), row, items)
    return 0


def made_loader(folder: Path, images: int, boxes: int, pictures: int, batch: int, workers: int) -> ThreadLoader:
    """The backend `threads` over so many images, in `folder`: hard links to `pictures` different ones of each size."""
    annotations = folder / "instances.json"
    write_annotations(annotations, images, boxes)
    index = parse_annotations(annotations)
    rng = np.random.default_rng(3)
    for number, (name, size) in enumerate(zip(index.file_names.tolist(), index.sizes.tolist(), strict=True)):
        kept = folder / f"{size[0]}x{size[1]}-{number % pictures}"
        if not kept.exists():
            kept.write_bytes(picture(rng, *size))
        os.link(kept, folder / name)
    return jpeg_loader(index, folder, workers, batch)


def first_and_waits(loader: ThreadLoader, steps: int, step: float) -> tuple[float, list[float]]:
    """Seconds until the first batch of an epoch, and for each of `steps` later ones. Before it a step of `step` s."""
    waits, begun = [], time.perf_counter()
    with closing(loader.epoch(1)) as batches:
        for _ in islice(batches, steps + 1):
            waits.append(time.perf_counter() - begun)
            time.sleep(step)
            begun = time.perf_counter()
    return waits[0], waits[1:]


def bound_mb(loader: ThreadLoader) -> float:
    """The most that the loader may hold (docs/loaders.md): batches that are used, due and ahead; and its threads."""
    batches = (loader.reading.prefetch + 2) * loader.sampler.batch * IMAGE_SIZE**2 * 3 / 1e6
    return round(batches + WORKER_MB * (loader.reading.num_workers + 1))


if __name__ == "__main__":
    sys.exit(main())
