"""How much memory a run on the CPU takes, estimated before it starts: running out of it gives no message."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssd.counts import IMAGE_SIZE

if TYPE_CHECKING:
    from ssd.config import Config

__all__ = ["available_bytes", "required_bytes"]

MIB = 2**20
PROCESS_MIB = 900
"""torch, weights, gradients and momentum of one process."""
TRAIN_MIB = (25, 115)
"""Of one training image in fp32: what does not scale with width (logits, loss), and what does (activations)."""
EVAL_MIB = (15, 5)
"""The same of one evaluation image, where no activation outlives its layer."""
# Measured as peak resident memory of two training steps and one evaluation forward with torch 2.14.1 on x86: training
# 1,410 MiB at batch 4 and 1,929 at batch 8 (130 an image), at width 0.25 893 at batch 4 and 1,430 at batch 16 (45 an
# image); about 11 MiB an image are added for the loss, which that trial did not have. Evaluation: 12 an image, and 8 at
# width 0.25, with the softmax; 8 are added for the sorting in `detect`.


def required_bytes(config: Config) -> int:
    """Estimated peak of all processes of one host, in bytes; good to about a fifth."""
    train = config.train_batch_size * _scaled(TRAIN_MIB, config.width)
    evaluate = config.eval_batch_size * _scaled(EVAL_MIB, config.width)
    batches = config.prefetch * config.train_batch_size * IMAGE_SIZE * IMAGE_SIZE * 3 / MIB
    return int(config.nproc_per_node * (PROCESS_MIB + max(train, evaluate) + batches) * MIB)


def _scaled(cost: tuple[int, int], width: float) -> float:
    return cost[0] + cost[1] * width


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that can be had without swapping (MemAvailable), in bytes; None where the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
