"""The signatures of the ops: the references keep them, and mypy refuses an override that does not."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.config.files import tomllib
from ssd.ops import OP_NAMES, REFERENCE, AnyOp, Augment, Crop, Detect, Encode, Loss, Ops

SIGNATURES = {"augment": Augment, "encode": Encode, "loss": Loss, "detect": Detect, "crop": Crop}


@pytest.mark.parametrize("op", OP_NAMES)
def test_the_reference_has_the_signature(op: str) -> None:
    """Name, kind, default and type of every argument: a caller may rely on any of them."""
    protocol = inspect.signature(SIGNATURES[op].__call__)
    declared = list(protocol.parameters.values())[1:]  # without self
    found = inspect.signature(getattr(REFERENCE, op))
    assert list(found.parameters.values()) == declared
    assert found.return_annotation == protocol.return_annotation


def test_the_table_holds_one_field_an_op() -> None:
    assert tuple(Ops.__dataclass_fields__) == OP_NAMES == tuple(SIGNATURES)
    assert set(AnyOp.__args__) == set(SIGNATURES.values())


OVERRIDES = """
from torch import Tensor

from ssd.boxes import DefaultBoxes
from ssd.ops import Ops


def whole(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3) -> Tensor:
    return locations


def renamed(locations: Tensor, scores: Tensor, offsets: Tensor, labels: Tensor, *, negative_ratio: int = 3) -> Tensor:
    return locations


def without_option(locations: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
    return locations


def one_result(boxes: Tensor, labels: Tensor, defaults: DefaultBoxes, *, criteria: float, epsilon: float) -> Tensor:
    return boxes


Ops(loss=whole)
Ops(loss=renamed)
Ops(loss=without_option)
Ops(encode=one_result)
"""


@pytest.mark.slow
def test_mypy_refuses_an_override_of_another_signature(tmp_path: Path, root: Path) -> None:
    pytest.importorskip("mypy")
    path = tmp_path / "overrides.py"
    path.write_text(OVERRIDES)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(path)]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    wrong = [line for line in said.splitlines() if "error:" in line]
    names = ['"loss" to "Ops"', '"loss" to "Ops"', '"encode" to "Ops"']
    assert len(wrong) == 3, said
    assert [name in line for name, line in zip(names, wrong, strict=True)] == [True] * 3, said


def test_mypy_reads_every_vendor_and_the_benchmarks(root: Path) -> None:
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mypy"]
    vendors = {path.parent.name for path in root.glob("*/vendor.py")}
    assert set(settings["files"]) == {"base/ssd", "bench", *vendors}
