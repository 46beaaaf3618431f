"""What is looked at before a run: memory, devices, and what a key asks of a device that is played."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssd.config import Config
from ssd.vendor import checks
from ssd.vendor.checks import Check, device_check, key_checks, memory_check, precision_check

GIB = 2**30


@pytest.mark.parametrize(
    ("available", "ok", "found"),
    [
        (None, True, "about 2.5 GiB needed; what is available is unknown"),
        (2.5, True, "about 2.5 GiB needed, 2.5 GiB available"),
        (2.4, False, "about 2.5 GiB needed, 2.4 GiB available"),
    ],
)
def test_memory(monkeypatch: pytest.MonkeyPatch, available: float | None, ok: bool, found: str) -> None:
    monkeypatch.setattr(checks, "required_bytes", lambda config: int(2.5 * GIB))
    monkeypatch.setattr(checks, "available_bytes", lambda: available and int(available * GIB))
    check = memory_check(Config(nproc_per_node=2, train_batch_size=8))
    assert (check.what, check.ok, check.found) == ("memory for 2 x batch 8 on the CPU", ok, found)


@pytest.mark.parametrize(
    ("units", "precision", "found"),
    [
        (None, "bf16", "fp32; whether it computes bf16 and fp16 itself is unknown"),
        ({}, "fp32", "fp32"),
        ({"bf16": "avx512_bf16"}, "bf16", "fp32, bf16 (avx512_bf16)"),
        (
            {"bf16": "amx_bf16"},
            "fp16",
            "fp32, bf16 (amx_bf16); precision = fp16 is emulated on this CPU, and slower than fp32",
        ),
    ],
)
def test_precisions_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, units: dict[str, str] | None, precision: Any, found: str
) -> None:
    monkeypatch.setattr(checks, "native_units", lambda: units)
    check = precision_check(Config(precision=precision))
    assert (check.what, check.ok, check.found) == ("precisions of this CPU", True, found)


@pytest.mark.parametrize(
    ("seen", "wanted", "what", "ok", "words"),
    [
        (2, 1, "1 device of type cuda", True, "sees 2"),
        (2, 2, "2 devices of type cuda", True, "sees 2"),
        (2, 3, "3 devices of type cuda", False, "sees 2"),
        (0, 1, "1 device of type cuda", False, "sees none"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, seen: int, wanted: int, what: str, ok: bool, words: str) -> None:
    monkeypatch.setattr(checks, "device_count", lambda kind: seen)
    check = device_check("acme", "cuda", wanted)
    assert (check.what, check.ok) == (what, ok)
    assert words in check.found
    assert check.remedy == f"set nproc_per_node to at most {seen}" or (
        seen == 0 and "a machine of vendor acme" in check.remedy
    )


def test_a_type_that_torch_does_not_know() -> None:
    check = device_check("acme", "abacus", 1)
    assert not check.ok
    assert "knows no such type" in check.found
    assert "on top of acme/vendor.py" in check.remedy


ABLE = {"is_host": False, "channels_last": True, "bfloat16": True, "compiles": True}
ASKING = Config(nhwc=True, precision="bf16", allreduce_dtype="bf16", compile=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch):
    """Key checks of a device `xpu` with given abilities, which computes; without the row that says so."""

    def ask(config: Config, backend: str = "nccl", kind: str = "xpu", **able: Any) -> dict[str, Check]:
        monkeypatch.setattr(checks, "_computes", lambda device: Check("tensors", True, "all"))
        abilities = SimpleNamespace(
            device=torch.device(kind), autocast=lambda precision: precision == "bf16", **ABLE | able
        )
        found = key_checks(config, abilities, backend)
        assert found[0].what == "tensors"
        return {check.what: check for check in found[1:]}

    return ask


def test_a_key_is_looked_at_where_it_asks_for_something(asked) -> None:
    assert asked(Config()) == {}
    found = asked(ASKING)
    assert list(found) == ["nhwc = true", "precision = bf16", "allreduce_dtype = bf16", "compile = true"]
    assert all(check.ok and check.found == "xpu has it" for check in found.values())


@pytest.mark.parametrize(
    ("lacking", "key", "lacks", "otherwise"),
    [
        ({"channels_last": False}, "nhwc = true", "has no channels-last tensors", "nhwc = false"),
        ({"bfloat16": False}, "allreduce_dtype = bf16", "has no such tensors", "allreduce_dtype = fp32"),
        ({"compiles": False}, "compile = true", "has no compiler that torch.compile finds", "compile = false"),
    ],
)
def test_a_device_that_lacks_what_a_key_asks(asked, lacking: dict, key: str, lacks: str, otherwise: str) -> None:
    found = asked(ASKING, **lacking)
    assert [what for what, check in found.items() if not check.ok] == [key]
    assert (found[key].found, found[key].remedy) == (f"xpu {lacks}", f"set {otherwise}")


def test_mixed_precision_is_tried_in_the_precision_of_the_run(asked) -> None:
    [found] = asked(Config(precision="fp16")).values()
    assert (found.what, found.ok, found.remedy) == ("precision = fp16", False, "set precision = fp32")


@pytest.mark.parametrize(("kind", "ok"), [("cuda", True), ("xpu", False)])
def test_graphs_are_cuda_s(asked, kind: str, ok: bool) -> None:
    assert asked(Config(cuda_graph=True), kind=kind)["cuda_graph = true"].ok is ok


@pytest.mark.parametrize("keys", [{"bn_group": 2}, {"graph_scope": "step", "optimizer": "torch_fused"}], ids=str)
def test_a_graph_holds_no_collective_of_gloo(asked, keys: dict) -> None:
    several = Config(cuda_graph=True, nproc_per_node=2, **keys)
    [found] = [check for check in asked(several, "gloo", kind="cuda").values() if not check.ok]
    assert found.found == "cuda has no collectives that a graph can hold"
    assert not [check for check in asked(several, "nccl", kind="cuda").values() if "hold" in check.found]


def test_collectives_are_looked_at_where_there_are_several_processes(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.dist, "is_backend_available", lambda backend: backend == "gloo")
    assert asked(Config(nproc_per_node=1)) == {}
    several = Config(nproc_per_node=2)
    assert {what: check.ok for what, check in asked(several, "gloo").items()} == {"collectives by gloo": True}
    [found] = asked(several, "acme_ccl").values()
    assert (found.ok, found.found) == (False, "torch has no such backend")
    monkeypatch.setattr(checks.dist, "is_available", lambda: False)
    assert not asked(several, "gloo")["collectives by gloo"].ok


@pytest.mark.parametrize(
    ("backend", "kind", "ok"), [("gloo", "xpu", False), ("gloo", "cuda", True), ("nccl", "xpu", True)]
)
def test_apex_needs_collectives_of_the_device(asked, backend: str, kind: str, ok: bool) -> None:
    assert asked(Config(nproc_per_node=2, ddp="apex"), backend, kind)["ddp = apex"].ok is ok
    assert "ddp = apex" not in asked(Config(nproc_per_node=1, ddp="apex"), backend, kind)


def test_the_host_is_asked_nothing_and_a_device_without_tensors_no_more() -> None:
    host = SimpleNamespace(device=torch.device("cpu"), is_host=True)
    assert key_checks(ASKING, host, "gloo") == []
    meta = SimpleNamespace(device=torch.device("meta"), is_host=False)
    [found] = key_checks(ASKING, meta, "gloo")
    assert (found.what, found.ok) == ("tensors on meta", False)
    assert found.remedy == "install its driver and its build of torch"


def test_tensors_go_to_the_device_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks._computes(torch.device("cpu"))
    assert (found.what, found.ok) == ("tensors on cpu", True)
    assert found.found == "float32, int64, uint8, bool"
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor if tensor.dtype != torch.uint8 else tensor + 1)
    wrong = checks._computes(torch.device("cpu"))
    assert (wrong.ok, wrong.found) == (False, "torch.uint8 comes back with other values")
    assert wrong.remedy == "repair the device or its driver"
