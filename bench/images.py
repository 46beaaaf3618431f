"""What the host does with one image, on one core, beside the original's way and DALI; and `augment` on the CPU.

    python bench/images.py [--data_dir D] [--batch 16] [--rounds 7] [--quick]

Real images of a COCO folder, each call one epoch of them, one decoding thread. A time is the CPU's of this process, all
of its threads together: so it is that of one core, however busy the machine is. The original's way is written anew:
PIL decodes, crops and resizes, torchvision jitters and normalises. All ways cut out rectangles by the same rules. The
hand-over is where a loader of this project stops: uint8 pixels of 300x300, whose colours the device changes (augment).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from loader import PeerSet, our_loader
from measure import Item, alternate, bounded, compared, not_here, parser, spread, write_row

from ssd.conformance.cases import timed_case
from ssd.data.dali import DaliLoader
from ssd.errors import SsdError
from ssd.measure.decoding import epochs
from ssd.ops import REFERENCE
from ssd.vendor import load_vendor

HAND_OVER = "images to the hand-over, one core"
NEEDS = "a COCO folder: make bench DATA_DIR=D"
ORIGINAL = "the original's way (PIL, ColorJitter)"
DALI, SPDL = "DALI on the CPU", "SPDL"
AUGMENT_BATCH = 32


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--data_dir", type=Path, help="COCO folder; its training images are read")
    flags.add_argument("--batch", type=int, default=16)
    flags.add_argument("--rounds", type=int, default=7, help="epochs of each way, in turn")
    asked = flags.parse_args(argv)
    torch.set_num_threads(1)
    rounds = 1 if asked.quick else asked.rounds
    row: dict[str, Any] = {"batch": asked.batch, "threads": 1, "rounds": rounds}
    if asked.data_dir is None:
        items = [not_here(HAND_OVER, "3.3 x", NEEDS, ORIGINAL), not_here(HAND_OVER, "1.4 x", NEEDS, DALI)]
    else:
        items = ways(asked.data_dir, asked.batch, rounds, row)
    lacks = "SPDL's FFmpeg libraries, which its wheels do not hold"
    items += [not_here(HAND_OVER, "1.4 x", lacks, SPDL), augmented(2 if asked.quick else 15, row)]
    write_row("images", asked, load_vendor("cpu"), row, items)
    return 0


def ways(data_dir: Path, batch: int, rounds: int, row: dict[str, Any]) -> list[Item]:
    """The ways from a file to pixels, one epoch a turn. Their figures are added to `row`."""
    ours = our_loader(data_dir, 1, batch)
    peer = PeerSet(ours, pixels_only=False)
    calls: dict[str, Callable[[], Any]] = {
        "ours": epochs(ours),
        "original": lambda: [peer[n] for n in range(len(peer))],
    }
    dali, lacks = "", ""
    try:
        calls["dali"] = epochs(DaliLoader(ours.index, ours.sampler, ours.reading))
        dali = f"DALI {version_of('nvidia-dali')} on the CPU"
    except SsdError as error:
        lacks = str(error)
    seconds = alternate(calls, rounds, clock=time.process_time)
    images = len(peer)
    for name, times in seconds.items():
        row[f"{name}_images_per_s"] = round(images / statistics.median(times), 1)
    row |= {"images": images, "spread": spread(seconds)}
    shown: dict[str, Any] = {"count": images, "unit": "images"}
    limit = "decoding by libjpeg-turbo, which all ways share"
    items = [compared(HAND_OVER, seconds, "ours", "original", least=3.3, peer=ORIGINAL, limit=limit, **shown)]
    if lacks:
        return [*items, not_here(HAND_OVER, "1.4 x", lacks, DALI)]
    return [*items, compared(HAND_OVER, seconds, "ours", "dali", least=1.4, peer=dali, limit=limit, **shown)]


def version_of(package: str) -> str:
    """The version of the first installed package whose name begins so."""
    from importlib.metadata import distributions

    names = (one.metadata["Name"] for one in distributions())
    return version(next(name for name in names if name.startswith(package)))


def augmented(rounds: int, row: dict[str, Any]) -> Item:
    """The reference op `augment` on the CPU: ms an image, one thread. Its figure is added to `row`."""
    case = timed_case("augment", AUGMENT_BATCH)
    inputs = case.make()
    call = {"augment": lambda: REFERENCE.augment(*inputs, channels_last=True)}
    seconds = alternate(call, rounds, clock=time.process_time)["augment"]
    ms = statistics.median(seconds) / AUGMENT_BATCH * 1e3
    row["augment_ms"] = round(ms, 3)
    limit = "about 40 passes over an image of 1 MB"
    return bounded(f"augment on the CPU, batch {AUGMENT_BATCH}, one thread, an image", ms, "ms", most=1, limit=limit)


if __name__ == "__main__":
    sys.exit(main())
