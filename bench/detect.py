"""The reference op `detect` on the CPU beside the original's loop over classes and boxes, written anew.

    python bench/detect.py [--batch 8] [--rounds 5] [--quick]

Both get the same network outputs: those that `vendors check` times, 300 peaks an image, in float32. One thread; a time
is the CPU's. The two must find the same boxes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import alternate, compared, parser, spread, write_row
from torch import Tensor

from ssd.boxes import DefaultBoxes, decode_offsets, iou, xywh_to_ltrb
from ssd.conformance.cases import timed_case
from ssd.ops import REFERENCE
from ssd.vendor import load_vendor

THRESHOLD, OVERLAP, MOST = 0.05, 0.5, 200


def main(argv: Sequence[str] | None = None) -> int:
    """One row. 1 where the two do not find the same number of boxes with the same scores."""
    flags = parser(__doc__)
    flags.add_argument("--batch", type=int, default=8)
    flags.add_argument("--rounds", type=int, default=5)
    asked = flags.parse_args(argv)
    torch.set_num_threads(1)
    batch, rounds = (1, 1) if asked.quick else (asked.batch, asked.rounds)
    locations, logits, defaults = timed_case("detect", batch).make()
    locations, logits = locations.float(), logits.float()
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: REFERENCE.detect(locations, logits, defaults),
        "original": lambda: original(locations, logits, defaults),
    }
    found, theirs = calls["ours"](), original(locations, logits, defaults)
    same = [
        len(scores) == int(count) and torch.allclose(scores, ours[: len(scores)], atol=1e-6)
        for scores, ours, count in zip(theirs, found.scores, found.count, strict=True)
    ]
    seconds = alternate(calls, rounds, warm_up=0, clock=time.process_time)
    row = {
        "batch": batch,
        "threads": 1,
        "detections": int(found.count.sum()),
        **{f"{name}_ms_an_image": round(statistics.median(s) / batch * 1e3, 2) for name, s in seconds.items()},
        "same": all(same),
        "spread": spread(seconds),
        "rounds": rounds,
    }
    item = compared(
        f"detect on the CPU, batch {batch}, one thread",
        seconds,
        "ours",
        "original",
        least=10,
        peer="the original's loop",
        limit="the threshold and softmax over 8,732 x 81 scores",
        count=batch,
        unit="images",
    )
    write_row("detect", asked, load_vendor("cpu"), row, [item])
    return int(not all(same))


def original(locations: Tensor, logits: Tensor, defaults: DefaultBoxes) -> list[Tensor]:
    """The scores (n,) of each image's detections, descending, by the original's algorithm: a class and a box at a time.

    locations (B, 4, D), logits (B, C, D), float32.
    """
    boxes = xywh_to_ltrb(decode_offsets(locations.transpose(1, 2), defaults.xywh))
    return [_one_image(*pair) for pair in zip(boxes, logits.transpose(1, 2).softmax(2), strict=True)]


def _one_image(boxes: Tensor, scores: Tensor) -> Tensor:
    kept = []
    for label in range(1, scores.shape[1]):
        score = scores[:, label]
        passed = score > THRESHOLD
        if not passed.any():
            continue
        candidates, score = boxes[passed], score[passed]
        order = score.sort(descending=True, stable=True)[1][:MOST]
        while len(order):
            best, order = order[0], order[1:]
            kept.append(score[best])
            overlaps = iou(candidates[best][None], candidates[order])[0]
            order = order[overlaps < OVERLAP]
    if not kept:
        return torch.zeros(0)
    return torch.stack(kept).sort(descending=True)[0][:MOST]


if __name__ == "__main__":
    sys.exit(main())
