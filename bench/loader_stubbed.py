"""One side of bench/loader_python.py: the loader of the ssd on PYTHONPATH, without the work that runs beside Python.

    PYTHONPATH=base python bench/loader_stubbed.py FOLDER BATCH WORKERS

FOLDER has annotations.json and its JPEG files. Decoding and resizing give pixels made before, and images have 2x2
pixels, so that next to nothing is copied. For each line on standard input an epoch is loaded, and its CPU time is
printed, in microseconds an image: that of this process with all its threads, and the user's part of it.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from ssd.data import decode, loader
from ssd.data.annotations import parse_annotations
from ssd.data.sampler import Sampler


def main(folder: Path, batch: int, workers: int) -> None:
    """Load an epoch a line."""
    torch.set_num_threads(1)
    index = parse_annotations(folder / "annotations.json")
    sampler = Sampler(len(loader.train_rows(index)), batch, seed=1)
    batches = loader.ThreadLoader(index, sampler, loader.Reading(folder, num_workers=workers))
    width, height = index.sizes[0].tolist()
    decoded, resized = (torch.zeros(*shape, dtype=torch.uint8) for shape in ((3, height, width), (1, 3, 2, 2)))
    interpolate = SimpleNamespace(interpolate=lambda *_, **__: resized)
    vars(decode).update(decoder=lambda: lambda content: decoded, functional=interpolate)
    vars(loader).update(IMAGE_SIZE=2)
    for epoch, _ in enumerate(sys.stdin, start=1):
        before = resource.getrusage(resource.RUSAGE_SELF)
        images = sum(len(made.rows) for made in batches.epoch(epoch))
        after = resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        print(f"{(user + system) / images * 1e6:.2f} {user / images * 1e6:.2f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
