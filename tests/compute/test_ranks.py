"""Several gloo processes: what they tell each other, and what they say when one is lost.

One start of two processes runs all cases (importing torch takes seconds); each case leaves its findings in a file.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssd.compute import ranks as compute_ranks
from ssd.compute.ranks import Ranks, average_batch_norm, lost_peer
from ssd.errors import ConfigError

WORKER = """
import json, os, sys
import numpy as np, torch
from torch import nn
from ssd.compute.ranks import Ranks, average_batch_norm, averaged_batch_norm, lost_peer
from ssd.errors import LostPeerError

ranks = Ranks.from_environment().connect("gloo", torch.device("cpu"), 20)
found = {"first": ranks.is_rank_0, "hosts": len(ranks.hosts)}
found["broadcast"] = ranks.broadcast({"from": ranks.rank})
found["gather"] = ranks.gather(ranks.rank * 10)
found["rows"] = ranks.gather_rows(np.full((ranks.rank, 7), float(ranks.rank))).tolist()
found["sum"] = ranks.sum_(torch.tensor([1.0 + ranks.rank])).tolist()
model = nn.BatchNorm2d(3)
model.running_mean.fill_(float(ranks.rank)); model.running_var.fill_(2.0 + ranks.rank)
with averaged_batch_norm(model, ranks):
    found["inside"] = [model.running_mean.tolist(), model.running_var.tolist()]
found["after"] = [model.running_mean.tolist(), model.running_var.tolist()]
average_batch_norm(model, ranks)
found["mean"], found["var"] = model.running_mean.tolist(), model.running_var.tolist()
ranks.barrier()
if ranks.rank == 1:
    json.dump(found, open(sys.argv[1], "w"))
    os._exit(0)
try:
    ranks.barrier()
except RuntimeError as error:
    found["lost"] = str(lost_peer(error, ranks))
json.dump(found, open(sys.argv[1], "w"))
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes found; the second leaves without a word at the end."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    common = {**os.environ, "PYTHONPATH": str(root / "base"), "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    common |= {"MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, str(folder / "worker.py"), str(folder / f"{rank}.json")], env={**common, "RANK": str(rank)}
        )
        for rank in (0, 1)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_rank_zero_is_first_and_hosts_are_known(found: list[dict]) -> None:
    assert [one["first"] for one in found] == [True, False]
    assert [one["hosts"] for one in found] == [2, 2]


@pytest.mark.slow
def test_objects(found: list[dict]) -> None:
    assert [one["broadcast"] for one in found] == [{"from": 0}, {"from": 0}]
    assert [one["gather"] for one in found] == [[0, 10], []]
    assert found[0]["rows"] == [[1.0] * 7]
    assert found[1]["rows"] == []


@pytest.mark.slow
def test_sums_and_batch_norm_statistics(found: list[dict]) -> None:
    assert [one["sum"] for one in found] == [[3.0], [3.0]]
    assert [one["mean"] for one in found] == [[0.5] * 3] * 2
    assert [one["var"] for one in found] == [[2.5] * 3] * 2


@pytest.mark.slow
def test_statistics_that_are_averaged_for_a_moment(found: list[dict]) -> None:
    assert [one["inside"] for one in found] == [[[0.5] * 3, [2.5] * 3]] * 2
    assert [one["after"] for one in found] == [[[0.0] * 3, [2.0] * 3], [[1.0] * 3, [3.0] * 3]]


@pytest.mark.slow
def test_a_lost_process_is_named_with_its_host(found: list[dict]) -> None:
    assert f"process 0 of 2 lost process 1 on host {socket.gethostname()}" in found[0]["lost"]


def test_alone() -> None:
    ranks = Ranks()
    assert ranks.connect("gloo", torch.device("cpu"), 1) is ranks
    assert ranks.broadcast(3) == 3
    assert ranks.gather(3) == [3]
    assert ranks.gather_rows(np.ones((2, 7))).shape == (2, 7)
    assert lost_peer(RuntimeError("Connection closed by peer"), ranks) is None
    model = nn.BatchNorm2d(2)
    model.running_mean.fill_(1.5)
    average_batch_norm(model, ranks)
    assert model.running_mean.tolist() == [1.5, 1.5]


SILENT = """
import os, signal, sys
import torch
from torch import nn
from ssd.compute.batch_norm import convert_batch_norm
from ssd.compute.ranks import Ranks, lost_peer
from ssd.run.stops import Stops

ranks = Ranks.from_environment().connect("gloo", torch.device("cpu"), 600)
model = convert_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), 2, ranks, 600)
ranks.limit_steps(model, 1.0)
stops = Stops(ranks, timeout=1.0)
stops.after_step(save=False)
stops.settle()
if ranks.rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
def exchange():
    stops.after_step(save=False)
    stops.settle()
calls = {"step": lambda: ranks.sum_(torch.ones(1)), "exchange": exchange, "norm": lambda: model(torch.ones(2, 3, 4, 4))}
try:
    calls[sys.argv[1]]()
except RuntimeError as error:
    print(lost_peer(error, ranks), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("call", ["step", "exchange", "norm"])
def test_once_steps_begin_a_silent_process_is_found_soon(call: str, root: Path, tmp_path: Path) -> None:
    """It does not answer and its connection stands, as after a loss of power. Joining might take 600 s."""
    (tmp_path / "worker.py").write_text(SILENT)
    common = {**os.environ, "PYTHONPATH": str(root / "base"), "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    common |= {"MASTER_PORT": str(free_port())}
    command = [sys.executable, str(tmp_path / "worker.py"), call]
    first, silent = (
        subprocess.Popen(command, env={**common, "RANK": rank}, stdout=subprocess.PIPE, text=True) for rank in "01"
    )
    try:
        said, _ = first.communicate(timeout=120)
    finally:
        for process in (first, silent):
            process.kill()
            process.communicate()
    assert "process 0 of 2 lost process 1 on host" in said


@pytest.mark.parametrize("kind", ["DistBackendError", "DistNetworkError", "DistStoreError"])
def test_torch_s_own_types_need_no_words(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_ranks, "_silent_peers", lambda ranks: "process 1")
    lost = lost_peer(getattr(torch.distributed, kind)("nothing known"), Ranks(0, 2))
    assert str(lost).startswith("process 0 of 2 lost process 1. ")


def test_other_errors_stay_what_they_are() -> None:
    assert lost_peer(RuntimeError("CUDA out of memory"), Ranks(0, 2)) is None


@pytest.mark.parametrize(
    "variables",
    [{"RANK": "abc"}, {"WORLD_SIZE": "-2"}, {"LOCAL_RANK": ""}, {"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "0"}],
)
def test_a_launcher_s_variable_that_is_no_number(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=next(iter(variables))):
        Ranks.from_environment()


@pytest.mark.parametrize(
    ("backend", "device", "backends", "through_host"),
    [
        ("gloo", "cpu", "gloo", False),
        ("nccl", "cuda", "cpu:gloo,cuda:nccl", False),
        ("gloo", "cuda", "cpu:gloo,cuda:gloo", False),
        ("gloo", "xpu", "gloo", True),
        ("xccl", "xpu", "cpu:gloo,xpu:xccl", False),
    ],
)
def test_the_groups_that_are_joined(
    backend: str, device: str, backends: str, through_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's tensors always have gloo. A device that gloo does not know is exchanged through the host."""
    joined: list[tuple] = []

    def gather(hosts: list[str], own: str, group: str) -> None:
        hosts[:] = ["a", own]

    dist = compute_ranks.dist
    monkeypatch.setattr(dist, "rendezvous", lambda url, *given, timeout: iter([("store", *given)]))
    monkeypatch.setattr(dist, "PrefixStore", lambda prefix, store: (prefix, store))
    monkeypatch.setattr(dist, "init_process_group", lambda kind, **given: joined.append((kind, given)))
    monkeypatch.setattr(dist, "new_group", lambda **given: joined.append(("objects", given)) or "group")
    monkeypatch.setattr(dist, "all_gather_object", gather)
    found = Ranks(1, 2).connect(backend, torch.device(device), 20)
    limit = timedelta(seconds=20)
    given = {"store": ("gradients", "store"), "rank": 1, "world_size": 2, "timeout": limit}
    assert joined == [(backends, given), ("objects", {"backend": "gloo", "timeout": 10 * limit})]
    assert (found.host_group, found.store, found.through_host) == ("group", "store", through_host)
    assert found.hosts == ("a", socket.gethostname())
