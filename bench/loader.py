"""This project's loader beside a DataLoader with PIL and torchvision, in turn, on the images of a COCO folder.

    python bench/loader.py --data_dir D [--workers 2] [--batch 8] [--rounds 7] [--quick]

The peer does what the original did, written anew: PIL decodes, crops and resizes, torchvision jitters and normalises,
in worker processes that stay for all rounds. It draws its crops by this project's rules, so that both cut out
rectangles of the same sizes. Two comparisons: pixels alone (uint8 300x300, which is where this loader stops: the rest
belongs to the device), and everything up to the network's input, with the reference op `augment` on the CPU.

A third one is ours beside ours: images that a `decoded_cache` holds already, in memory as the JPEG files are, on one
thread, by its CPU time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import alternate, compared, parser, spread, write_row
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ssd.data import TrainBatch
from ssd.data.annotations import parse_annotations
from ssd.data.crop import FACTOR_RANGES, draw_crop
from ssd.data.loader import ThreadLoader
from ssd.measure.decoding import epochs, jpeg_loader
from ssd.ops.augment import MEAN, STD, ColourDraws, augment
from ssd.vendor import load_vendor


class PeerSet(Dataset):
    """Samples of the peer. loader: names, boxes and labels of the same images. pixels_only: stop at uint8."""

    def __init__(self, loader: ThreadLoader, pixels_only: bool) -> None:
        index = loader.index
        self.paths = [str(loader.reading.folder / index.file_names[row]) for row in loader.rows]
        self.truth = [index.image_boxes(row) for row in loader.rows]
        brightness, contrast, saturation, hue = FACTOR_RANGES
        self.transform = None if pixels_only else transforms.Compose(
            [
                transforms.ColorJitter(brightness, contrast, saturation, hue),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Any, Any, Any]:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        crop = draw_crop(rng, *self.truth[number])
        image = Image.open(self.paths[number]).convert("RGB")
        image = image.crop(crop.pixels(*image.size)).resize((300, 300), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = self.transform(image) if self.transform else torch.from_numpy(np.array(image))
        return pixels, torch.from_numpy(crop.boxes), torch.from_numpy(crop.labels)


def collate(samples: Sequence[tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    """A batch: images stacked, boxes and labels padded."""
    images, boxes, labels = zip(*samples, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    return torch.stack(images), pad(list(boxes), batch_first=True), pad(list(labels), batch_first=True)


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--data_dir", type=Path, required=True, help="COCO folder; its training images are read")
    flags.add_argument("--workers", type=int, default=2, help="threads of ours, processes of the peer")
    flags.add_argument("--batch", type=int, default=8)
    flags.add_argument("--rounds", type=int, default=7, help="epochs of each, in turn")
    asked = flags.parse_args(argv)
    torch.set_num_threads(1)
    rounds = 1 if asked.quick else asked.rounds
    ours = our_loader(asked.data_dir, asked.workers, asked.batch)
    numbers = iter(range(1, 10**6))

    def peer(pixels_only: bool) -> Callable[[], int]:
        loader = DataLoader(
            PeerSet(ours, pixels_only),
            asked.batch,
            shuffle=True,
            num_workers=asked.workers,
            collate_fn=collate,
            persistent_workers=True,
        )
        return lambda: sum(len(images) for images, _, _ in loader)

    calls = {
        "ours_pixels": epochs(ours),
        "peer_pixels": peer(pixels_only=True),
        "ours_input": lambda: sum(len(network_input(batch)) for batch in ours.epoch(next(numbers))),
        "peer_input": peer(pixels_only=False),
    }
    images = {name: call() for name, call in calls.items()}
    seconds = alternate(calls, rounds, warm_up=0 if asked.quick else 1)
    cache_seconds = cached_epochs(asked.data_dir, asked.batch, rounds)
    rate = {name: images[name] / statistics.median(times) for name, times in seconds.items()}
    row = {
        "images": ours.samples,
        "workers": asked.workers,
        "batch": asked.batch,
        **{f"{name}_images_per_s": round(value, 1) for name, value in rate.items()},
        "times_faster_pixels": round(rate["ours_pixels"] / rate["peer_pixels"], 3),
        "times_faster_input": round(rate["ours_input"] / rate["peer_input"], 3),
        **{
            f"{name}_images_per_s": round(images["ours_pixels"] / statistics.median(times), 1)
            for name, times in cache_seconds.items()
        },
        "spread": spread(seconds | cache_seconds),
        "rounds": rounds,
    }
    shown: dict[str, Any] = {"count": images["ours_pixels"], "unit": "images", "peer": "DataLoader, PIL, torchvision"}
    limit = "decoding, which both do by libjpeg-turbo"
    what = f"loader, {asked.workers} workers, batch {asked.batch}"
    items = [
        compared(f"{what}, to the hand-over", seconds, "ours_pixels", "peer_pixels", least=1, limit=limit, **shown),
        compared(f"{what}, to the network", seconds, "ours_input", "peer_input", least=1, limit="augment", **shown),
        compared(
            f"decoded_cache, one thread, batch {asked.batch}, to the hand-over",
            cache_seconds,
            "decoded_cache",
            "jpeg",
            least=3,
            limit="the resize of a crop, which both do",
            count=images["ours_pixels"],
            unit="images",
            peer="the JPEG files",
        ),
    ]
    write_row("loader", asked, load_vendor("cpu"), row, items)
    return 0


def our_loader(data_dir: Path, workers: int, batch: int) -> ThreadLoader:
    """The backend `threads`, as a run makes it."""
    index = parse_annotations(data_dir / "annotations" / "instances_train2017.json")
    return jpeg_loader(index, data_dir / "train2017", workers, batch)


def cached_epochs(data_dir: Path, batch: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of an epoch from decoded images and from JPEG files, in turn, one decoding thread each."""
    with tempfile.TemporaryDirectory(prefix="ssd-bench-") as folder:
        jpeg = our_loader(data_dir, 1, batch)
        reading = replace(jpeg.reading, decoded_cache=Path(folder))
        cached = ThreadLoader(jpeg.index, jpeg.sampler, reading)
        assert cached.cache
        for number, row in enumerate(jpeg.rows.tolist()):
            cached.cache.fill(number, reading.folder / jpeg.index.file_names[row], jpeg.index.image_ids[row])
        calls = {"decoded_cache": epochs(cached), "jpeg": epochs(jpeg)}
        return alternate(calls, rounds, clock=time.process_time)


def network_input(batch: TrainBatch) -> torch.Tensor:
    """The whole way, as a run on the CPU goes it."""
    return augment(batch.images, ColourDraws(batch.flip, batch.factors, batch.order))


if __name__ == "__main__":
    sys.exit(main())
