"""NUMA binding is torchrun's own, and is asked for or not: nothing is left to a newer torch's choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssd.config import Config
from ssd.errors import MachineError
from ssd.launch import processes as launch
from ssd.launch.numa import bind


def numa_options(config: Config, tmp_path: Path) -> object:
    return getattr(launch._launch_config(config, str(tmp_path)), "numa_options", "this torch has none")


def test_numa_binding_is_torchrun_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert numa_options(Config(), tmp_path) in (None, "this torch has none")
    with pytest.raises(MachineError, match=r"numa_binding = socket: .*set numa_binding = none"):
        numa_options(Config(numa_binding="socket"), tmp_path)  # no numactl, or no accelerator, or an older torch
    binding = pytest.importorskip("torch.numa.binding", reason="this torch has no NUMA binding")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    found = numa_options(Config(numa_binding="core-complex", nproc_per_node=8), tmp_path)
    assert found == binding.NumaOptions(binding.AffinityMode.CORE_COMPLEX)


def test_numa_binding_needs_torch_to_have_it() -> None:
    with pytest.raises(MachineError, match=r"numa_binding = node: torch .* has no NUMA binding"):
        bind(SimpleNamespace(), "node")


def test_a_newer_torch_s_own_choice_is_undone() -> None:
    chosen = SimpleNamespace(numa_options="node")
    bind(chosen, "none")
    assert chosen.numa_options is None


def cannot_say() -> bool:
    raise AttributeError("torch of this device has no is_available")


@pytest.mark.parametrize(
    ("mode", "numactl", "is_available", "missing"),
    [
        ("bay", "/usr/bin/numactl", lambda: True, "torch .* does not know it"),
        ("socket", None, lambda: True, "the command numactl is not installed"),
        ("socket", "/usr/bin/numactl", lambda: False, "torch sees no accelerator to bind near to"),
        ("socket", "/usr/bin/numactl", cannot_say, "torch sees no accelerator to bind near to"),
    ],
)
def test_what_is_missing_is_named(
    mode: str, numactl: str | None, is_available: Callable, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch.numa.binding", reason="this torch has no NUMA binding")
    monkeypatch.setattr("shutil.which", lambda name: numactl)
    monkeypatch.setattr("torch.accelerator.is_available", is_available)
    launched = SimpleNamespace(numa_options=None)
    with pytest.raises(MachineError, match=rf"^numa_binding = {mode}: {missing}\. Remedy: provide it, or set"):
        bind(launched, mode)
    assert launched.numa_options is None
