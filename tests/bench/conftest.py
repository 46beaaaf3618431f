"""Benchmarks for the tests of bench/: each runs in this process, which has imported torch already."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Loaded = Callable[[str], ModuleType]


@pytest.fixture
def loaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Import bench/NAME.py, as a module of another name than the packages that it may share its own with."""
    monkeypatch.syspath_prepend(root / "bench")

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"bench_{name}", root / "bench" / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def bench(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, list[dict]]]:
    """Run a benchmark with --quick and more flags, in a folder of its own; what it printed, and the rows it wrote.

    test_table.py and test_gpu_day.py start benchmarks as programs.
    """
    monkeypatch.setenv("SSD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(name: str, *flags: str) -> tuple[str, list[dict]]:
        rows = tmp_path / "rows.jsonl"
        assert loaded(name).main(["--quick", "--output", str(rows), *flags]) == 0
        return capsys.readouterr().out, [json.loads(line) for line in rows.read_text().splitlines()]

    return run
