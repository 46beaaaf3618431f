"""Checkpoints: what was saved comes back, and what is not a checkpoint is refused by name."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd.errors import DataError, MachineError
from ssd.run.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint, save_checkpoint


def checkpoint(**values: Any) -> Checkpoint:
    """A checkpoint of a run that has trained a step, with some values of its own."""
    state: dict[str, Any] = {"config": "{}", "seed": 1, "step": 1, "evaluations": [], "seconds": {"run": 1.0}}
    state |= {"categories": [(1, "cat")], "model": {"w": torch.zeros(1)}, "optimizer": {}, "scaler": {}}
    return Checkpoint(**{**state, "rng": torch.get_rng_state(), **values})


def test_round_trip(tmp_path: Path) -> None:
    weights = {"w": torch.randn(3, 2), "n": torch.tensor(7)}
    save_checkpoint(tmp_path / CHECKPOINT, checkpoint(model=weights, step=12, evaluations=[(5, 0.1)]))
    back = load_checkpoint(tmp_path / CHECKPOINT)
    assert torch.equal(back.model["w"], weights["w"])
    assert (back.step, back.evaluations) == (12, [(5, 0.1)])
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_failed_save_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, checkpoint(step=1))
    with pytest.raises(Exception, match=r"pickle|Pickl|local"):
        save_checkpoint(path, checkpoint(step=2, scaler={"broken": lambda: None}))
    assert load_checkpoint(path).step == 1


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"\0" * 100])
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable checkpoint"):
        load_checkpoint(path)


def test_cut_short(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, checkpoint(model={"w": torch.randn(1000)}))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_a_backbone_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "resnet34.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="backbone"):
        load_checkpoint(path)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path, "ran").touch, ())

    path = tmp_path / CHECKPOINT
    torch.save({"format": 1, "x": Evil()}, path)
    with pytest.raises(DataError):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which stands for a full disk")
def test_a_full_disk_is_named_and_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, checkpoint(step=1))
    path.with_suffix(".part").symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"checkpoint\.pt cannot be written: No space left on device"):
        save_checkpoint(path, checkpoint(step=2, model={"w": torch.zeros(100_000)}))
    assert load_checkpoint(path).step == 1
    assert [one.name for one in tmp_path.iterdir()] == [CHECKPOINT]


def test_what_torch_s_writer_hides_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(state: object, file: object) -> None:  # as torch.save does when the disk fills up half-way
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 73280 vs 73176")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(MachineError, match="No space left on device"):
        save_checkpoint(tmp_path / CHECKPOINT, checkpoint(step=1))
    assert not any(tmp_path.iterdir())
