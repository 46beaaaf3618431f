"""Estimates how much memory a run on the CPU takes. A process that runs out of memory is killed without a message."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssd.counts import IMAGE_SIZE

if TYPE_CHECKING:
    from ssd.config import Config

__all__ = ["available_bytes", "required_bytes"]

MIB = 2**20
PROCESS_MIB = 900
"""Memory of torch, weights, gradients and momentum in one process."""
TRAIN_MIB = (25, 115)
"""Memory of one training image in fp32. The first number (logits, loss) does not depend on the width. The second number
(activations) is multiplied by the width."""
EVAL_MIB = (15, 5)
"""The same for one evaluation image, where an activation is freed after the next layer."""
# Source of the numbers: peak resident memory of two training steps and one forward pass of evaluation, with torch
# 2.14.1 on x86. Training took 1,410 MiB at batch 4 and 1,929 MiB at batch 8, which is 130 MiB an image. At width 0.25
# it took 893 MiB at batch 4 and 1,430 MiB at batch 16, which is 45 MiB an image. The trial had no loss, for which about
# 11 MiB an image are added. Evaluation with the softmax took 12 MiB an image, and 8 MiB at width 0.25. For the sorting
# in `detect` 8 MiB an image are added.


def required_bytes(config: Config) -> int:
    """Estimated peak memory of all processes of one host, in bytes. The estimate is good to about 20%."""
    train = config.train_batch_size * _scaled(TRAIN_MIB, config.width)
    evaluate = config.eval_batch_size * _scaled(EVAL_MIB, config.width)
    batches = config.prefetch * config.train_batch_size * IMAGE_SIZE * IMAGE_SIZE * 3 / MIB
    return int(config.nproc_per_node * (PROCESS_MIB + max(train, evaluate) + batches) * MIB)


def _scaled(cost: tuple[int, int], width: float) -> float:
    return cost[0] + cost[1] * width


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that is available without swapping (MemAvailable), in bytes. None where the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
