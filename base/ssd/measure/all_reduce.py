"""How fast the processes of a run average their gradients: `python -m ssd.measure.all_reduce KEYS` is one of them.

The gradients of the config's model are averaged as one buffer, with nothing beside it. In a run DDP hides most of it
behind the backward pass, so this is the most that a step can wait.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence

from ssd.compute.gradients import FlatGradients
from ssd.compute.precision import DTYPES
from ssd.compute.ranks import Ranks
from ssd.config import Config, resolve
from ssd.measure.together import run_together
from ssd.model import build_model
from ssd.run.evaluation import input_channels
from ssd.vendor import load_vendor

__all__ = ["all_reduced", "gradient_bytes"]

ROUNDS, WARM_UP = 10, 2
TIMEOUT = 120
"""Seconds after which processes that do not meet are given up."""


def gradient_bytes(parameters: int, config: Config) -> int:
    """Bytes that a step communicates of a model with so many parameters."""
    return parameters * DTYPES[config.allreduce_dtype].itemsize


def all_reduced(argv: Sequence[str], processes: int) -> float:
    """Seconds in which `processes` processes of this host average the gradients of a config. argv: its keys.

    Raises MachineError, with what a process said, where they cannot.
    """
    said = run_together(["-m", "ssd.measure.all_reduce", *argv], processes, "an all-reduce", TIMEOUT)
    return float(json.loads(said[0].splitlines()[-1]))


def main(argv: Sequence[str]) -> int:
    """Be one of the processes, the one that the variables of the launcher name. Rank 0 prints the median seconds."""
    config = resolve(argv).config
    vendor, ranks = load_vendor(config.name), Ranks.from_environment()
    device = vendor.set_up(config, ranks.local_rank)
    ranks = ranks.connect(vendor.backend_for(device), device, TIMEOUT)
    model, _ = build_model(
        seed=0, num_classes=config.num_classes, width=config.width, in_channels=input_channels(config)
    )
    gradients = FlatGradients(model.to(device), ranks, DTYPES[config.allreduce_dtype])
    abilities, taken = vendor.abilities(device), []
    for turn in range(-WARM_UP, ROUNDS):
        ranks.barrier()
        begun = time.perf_counter()
        gradients.average_()
        abilities.synchronize()
        if turn >= 0:
            taken.append(time.perf_counter() - begun)
    if ranks.is_rank_0:
        sys.stdout.write(f"{json.dumps(statistics.median(taken))}\n")
    ranks.barrier()
    ranks.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
