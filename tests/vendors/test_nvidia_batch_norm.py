"""Batch norm over a group against torch's SyncBatchNorm, which refuses CPU tensors: needs two GPUs, and nccl.

Without them the same layer is held to one process with the joint batch (tests/compute/test_batch_norm.py). Not yet run
on hardware.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = """
import copy, sys
import torch
from torch import nn
from ssd.compute.batch_norm import convert_batch_norm
from ssd.compute.ranks import Ranks

ranks = Ranks.from_environment()
device = torch.device("cuda", ranks.local_rank)
torch.cuda.set_device(device)
ranks = ranks.connect("nccl", device, 120)
torch.manual_seed(0)
plain = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
joint = torch.randn(7, 3, 20, 20) * 3 + 1
weights = torch.randn(7, 8, 18, 18)
models = {
    "ours": convert_batch_norm(copy.deepcopy(plain), 2, ranks, 120).to(device),
    "torch": nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain)).to(device),
}
found = {}
for name, model in models.items():
    x = joint.split([3, 4])[ranks.rank].to(device).requires_grad_()
    y = model(x)
    (y * weights.split([3, 4])[ranks.rank].to(device)).sum().backward()
    found[name] = {"y": y.detach(), "x": x.grad, "gamma": model[1].weight.grad, "beta": model[1].bias.grad,
                   "mean": model[1].running_mean, "var": model[1].running_var}
for key, ours in found["ours"].items():
    torch.testing.assert_close(ours, found["torch"][key], rtol=1e-4, atol=1e-4, msg=lambda text: f"{key}: {text}")
ranks.close()
"""


@pytest.mark.skipif(torch.version.cuda is None or torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_two_gpus_equal_torchs_sync_batch_norm(root: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environ = os.environ | {"PYTHONPATH": str(root / "base"), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "worker.py")],
            env={**environ, "MASTER_PORT": str(port), "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(300) for process in processes] == [0, 0]


def test_the_worker_is_sound_python() -> None:
    compile(WORKER, "worker.py", "exec")
