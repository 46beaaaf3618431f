"""`profile` on a real step: every part is there, nothing waits for a device, and what does is found."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssd import cli
from ssd.config import Config
from ssd.ops import loss as loss_op
from ssd.ops.table import Ops
from ssd.report.profiled import Part, Profile
from ssd.verbs.profile import _show, _waits

SMALL = ["--config", "smoke", "--width", "0.125", "--train_batch_size", "2", "--gradient_accumulation_steps", "2"]


def profiled(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[dict, str]:
    """profile.json, and what was printed."""
    assert cli.main(["profile", *SMALL, "--steps", "2", "--output", str(folder), *flags]) == 0
    return json.loads((folder / "profile.json").read_text()), capsys.readouterr().out


@pytest.mark.slow
def test_a_step_has_its_parts_and_waits_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = profiled(tmp_path / "profile", capsys)
    names = [part["name"] for part in content["parts"]]
    assert names == ["data", "augment", "encode", "forward", "loss", "backward", "record", "optimizer"]
    assert (content["steps"], content["images_a_step"], content["device"]) == (2, 4, "cpu")
    assert 0.9 * content["step_ms"] < sum(part["ms"] for part in content["parts"]) <= content["step_ms"]
    assert content["synchronisations"] == {}
    assert content["launches"] > 1000
    assert max(content["parts"], key=lambda part: part["memory_mib"])["name"] in ("forward", "loss", "backward")
    assert "host synchronisations a step: none" in said
    assert "first to fix: " in said
    assert "cpu / smoke on cpu, one process: 2 steps of 4 images, " in " ".join(said.split())
    assert [said.count(title) for title in ("A step by part", "By operation, its own time")] == [1, 1]
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    assert sum(one.get("name") == "ssd: step" for one in trace["traceEvents"]) == 2
    assert not (tmp_path / "profile" / "result_0.txt").exists(), "it is no run"


@pytest.mark.slow
def test_an_operation_that_waits_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
        losses = loss_op(locations, logits, offsets, labels)
        assert losses.sum().item() >= 0
        return losses

    monkeypatch.setattr("ssd.vendor.required.REFERENCE", Ops(loss=waiting))
    content, said = profiled(tmp_path / "profile", capsys, "--json")
    assert content["synchronisations"] == {"aten::_local_scalar_dense": 2.0}, "one a micro-batch"
    assert "in loss: nothing in a step should" in content["first_to_fix"]
    assert json.loads(said) == content


def test_which_operations_wait() -> None:
    waiting = ["aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_dim"]
    assert [name for name in waiting if not _waits(name)] == []
    assert [
        name
        for name in ("aten::add", "aten::item", "aten::conv2d", "ssd: forward", "aten::", "foo::nonzero")
        if _waits(name)
    ] == []


@pytest.mark.slow
def test_nvtx_asks_for_an_accelerator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["profile", *SMALL, "--nvtx", "--output", str(tmp_path / "profile")]) == 7
    assert "--nvtx needs an accelerator with CUDA's API" in capsys.readouterr().err
    assert not (tmp_path / "profile").exists()


LONG = "[out]" + "y" * 200
IN_WORDS = f"""\
cpu / smoke on cpu, one process: 2 steps of 8 images, 8.0 ms each
A step by part
part       ms  share  peak MiB above the start
data     2.00    25%
forward  6.00    75%                   1,234.6
By operation, its own time
operation   ms a step  times a step
aten::[mm]       5.00            12
aten::x          0.25           1.5
host synchronisations a step: none
operations a step, each of which an accelerator would launch: 1600
first to fix: A step waits for its batch for 25% of its time: raise num_workers, or take another data_backend \
(docs/loaders.md).
trace (Perfetto, chrome://tracing): {LONG}/trace.json
"""


def test_a_profile_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps of 8 images, of which the forward pass takes three quarters; names are never read as markup."""

    def shown(device_ms: float | None, memory: float | None, waits: dict[str, float]) -> list[str]:
        run: Any = SimpleNamespace(config=Config(train_batch_size=8), device=torch.device("cpu"))
        half = device_ms and device_ms / 2
        parts = [Part("data", 2.0, half, None, 0.0), Part("forward", 6.0, half, memory, 0.0)]
        ops = [("aten::[mm]", 5.0, 12.0), ("aten::x", 0.25, 1.5)]
        _show(Profile(2, 8.0, device_ms, parts, ops, 1600.0, waits), run, Path(LONG))
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    host = shown(None, 1234.56, {})
    assert host == IN_WORDS.splitlines()
    device = shown(4.0, 1.0, {"aten::nonzero": 2.0, "[sync]": 1.5})
    assert device[2:5] == [
        "part       ms  share  ms on the device  peak MiB above the start",
        "data     2.00    25%              2.00",
        "forward  6.00    75%              2.00                       1.0",
    ]
    assert device[9:11] == ["host synchronisations a step: aten::nonzero 2, [sync] 1.5", "launches a step: 1600"]
