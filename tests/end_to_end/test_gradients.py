"""How the global batch is cut changes no gradient: over processes, over micro-batches, or not at all.

Batch norm is frozen here, since it normalises with its own process's micro-batch; all else is the run's own code.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

WORKER = """
import os
import sys
from dataclasses import replace
import torch
from torch import nn
from ssd.boxes import default_boxes
from ssd.config import resolve
from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.model import build_model
from ssd.ops import REFERENCE
from ssd.run.sources import open_sources
from ssd.compute.step import TrainStep
from ssd.vendor import load_vendor

config = resolve(sys.argv[2:], {}).config
device = torch.device("cpu")
vendor = load_vendor("cpu")
ranks = Ranks.from_environment().connect("gloo", device, 60)
loader, _ = open_sources(config, ranks, 3, Abilities(device))
model, _ = build_model(seed=1, num_classes=4, width=0.125)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
trained = vendor.distribute(model, config, device) if ranks.world_size > 1 else model
micro_batches = list(loader.epoch(1))
step = TrainStep(trained, REFERENCE, default_boxes(), torch.Tensor.backward, device, accumulation=len(micro_batches))
for batch in micro_batches:
    step(batch)
rows = sum(ranks.gather([batch.rows for batch in micro_batches]), [])
if ranks.is_rank_0:
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    torch.save({"gradients": gradients, "rows": sorted(row for batch in rows for row in batch)}, sys.argv[1])
ranks.close()
os._exit(0)  # all is written, and gloo's threads may abort a process that takes itself down
"""
COMMON = ["--config", "smoke", "--width", "0.125", "--synthetic_samples", "8"]


def gradients(root: Path, folder: Path, world_size: int, *flags: str) -> dict:
    """Gradients of one step on 8 images, cut as the flags say, averaged over `world_size` processes."""
    script, result = folder / "worker.py", folder / f"{world_size}-{'-'.join(flags)}.pt"
    script.write_text(WORKER)
    environ = {**os.environ, "PYTHONPATH": str(root / "base"), "MASTER_ADDR": "127.0.0.1"}
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        environ["MASTER_PORT"] = str(one.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(result), *COMMON, "--nproc_per_node", str(world_size), *flags],
            env={**environ, "WORLD_SIZE": str(world_size), "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world_size)
    ]
    assert [process.wait(240) for process in processes] == [0] * world_size
    return torch.load(result)


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return gradients(root, tmp_path_factory.mktemp("whole"), 1, "--train_batch_size", "8")


@pytest.mark.parametrize(
    ("world_size", "flags"),
    [
        (1, ["--train_batch_size", "2", "--gradient_accumulation_steps", "4"]),
        (2, ["--train_batch_size", "4"]),
        (2, ["--train_batch_size", "2", "--gradient_accumulation_steps", "2"]),
    ],
)
def test_gradients_do_not_depend_on_the_cut(
    root: Path, whole: dict, tmp_path: Path, world_size: int, flags: list[str]
) -> None:
    cut = gradients(root, tmp_path, world_size, *flags)
    assert cut["rows"] == whole["rows"] == list(range(8))
    for name, gradient in whole["gradients"].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(cut["gradients"][name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)
