"""Checkpoints: what was saved comes back, and what is not a whole checkpoint is refused by name."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssd.config import Config, resolve
from ssd.errors import ConfigError, DataError, MachineError
from ssd.run.checkpoint import CHECKPOINT, PREVIOUS, Checkpoint, load_checkpoint, load_saved, save_checkpoint

Make = Callable[..., Checkpoint]


def sealed(state: Any) -> bytes:
    """A file with a right hash, of any content."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue() + f"\nsha256 {hashlib.sha256(file.getvalue()).hexdigest()}\n".encode()


def raw(checkpoint: Checkpoint, **values: Any) -> dict[str, Any]:
    """What a checkpoint's file holds, with values that the type would refuse."""
    return {"format": 2, **{name: getattr(checkpoint, name) for name in Checkpoint.model_fields}, **values}


def test_round_trip(tmp_path: Path, checkpoint: Make) -> None:
    weights = {"w": torch.randn(3, 2), "n": torch.tensor(7)}
    one = checkpoint(model=weights, step=12, evaluations=[(5, 0.1)], logs={"result_0.txt": 1234}, inputs={"a": "b"})
    save_checkpoint(tmp_path / CHECKPOINT, one)
    back = load_checkpoint(tmp_path / CHECKPOINT)
    assert torch.equal(back.model["w"], weights["w"])
    assert (back.step, back.evaluations, back.logs, back.inputs) == (12, [(5, 0.1)], {"result_0.txt": 1234}, {"a": "b"})
    assert back.optimizer == one.optimizer
    assert back.categories == [(1, "cat")]
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_failed_save_leaves_the_last_one(tmp_path: Path, checkpoint: Make) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, checkpoint(step=1))
    with pytest.raises(Exception, match=r"pickle|Pickl|local"):
        save_checkpoint(path, checkpoint(step=2, scaler={"broken": lambda: None}))
    assert load_checkpoint(path).step == 1


def test_the_file_is_flushed_and_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole content, then fsync, then the rename, then fsync of the folder: else power loss leaves half a file."""
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            happened.append("folder")
        else:
            on_disk = Path(os.readlink(f"/proc/self/fd/{handle}")).read_bytes()
            happened.append(
                "whole file" if on_disk.endswith(b"\n") and b"sha256" in on_disk[-80:] else "part of a file"
            )
        fsync(handle)

    def renamed(source: Path, target: Path) -> Path:
        happened.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    save_checkpoint(tmp_path / CHECKPOINT, checkpoint())
    assert happened == ["whole file", "rename", "folder"]


def test_the_one_before_is_kept(tmp_path: Path, checkpoint: Make) -> None:
    """Each of the two is another one, and nothing else stays."""
    path, before = tmp_path / CHECKPOINT, tmp_path / PREVIOUS
    for step in (1, 2, 3):
        save_checkpoint(path, checkpoint(step=step), before)
    assert (load_checkpoint(path).step, load_checkpoint(before).step) == (3, 2)
    assert {one.name for one in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}


def test_a_failed_save_leaves_both(tmp_path: Path, checkpoint: Make) -> None:
    path, before = tmp_path / CHECKPOINT, tmp_path / PREVIOUS
    for step in (1, 2):
        save_checkpoint(path, checkpoint(step=step), before)
    with pytest.raises(Exception, match=r"pickle|Pickl|local"):
        save_checkpoint(path, checkpoint(step=3, scaler={"broken": lambda: None}), before)
    assert (load_checkpoint(path).step, load_checkpoint(before).step) == (2, 1)


def test_a_damaged_one_is_named_and_the_one_before_is_read_when_asked_for(tmp_path: Path, checkpoint: Make) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / CHECKPOINT, checkpoint(step=step), tmp_path / PREVIOUS)
    assert load_saved(tmp_path).step == 2
    assert load_saved(tmp_path, previous=True).step == 1
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(
        DataError, match=r"checkpoint\.pt: .*damaged.*previous\.pt, which is whole and of step 1: --res"
    ):
        load_saved(tmp_path)
    assert load_saved(tmp_path, previous=True).step == 1
    (tmp_path / PREVIOUS).write_bytes(content)
    with pytest.raises(DataError, match=r"checkpoint\.pt: .*start the run anew$"):
        load_saved(tmp_path)
    with pytest.raises(DataError, match=r"previous\.pt: .*damaged"):
        load_saved(tmp_path, previous=True)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT)


def test_keys_of_a_vendors_own_stay_with_their_vendor(
    tmp_path: Path, checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "vendor.py").touch()
    keys = "from ssd.config import COMPUTE, VendorKeys, key\n"
    (tmp_path / "acme" / "keys.py").write_text(keys + "class Keys(VendorKeys):\n    speed: int = key(9, COMPUTE, '')\n")
    monkeypatch.setenv("SSD_VENDOR_PATH", str(tmp_path))
    saved = checkpoint(config=resolve(["--name", "acme", "--acme.speed", "11"]).config.model_dump_json())
    assert getattr(saved.run_config(), "acme.speed") == 11
    assert getattr(saved.run_config(**{"acme.speed": 12}), "acme.speed") == 12
    assert type(saved.run_config(name="cpu")) is Config
    monkeypatch.setenv("SSD_VENDOR_PATH", "")
    with pytest.raises(DataError, match=r"has acme\.speed, which this version does not know: .* vendor's folder"):
        saved.run_config()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"\0" * 100])
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable checkpoint"):
        load_checkpoint(path)


def test_no_damaged_file_is_loaded(tmp_path: Path, checkpoint: Make) -> None:
    """1,000 flipped bits and 1,000 cut lengths, anywhere: tensors, names, the zip's own bytes, the hash itself."""
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, checkpoint(model={"w": torch.randn(200), "b": torch.randn(7)}))
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    accepted = []
    for place, bit in zip(rng.integers(0, len(whole), 1000), rng.integers(0, 8, 1000), strict=True):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a readable checkpoint"):
            accepted.append(load_checkpoint(path))
    for length in rng.integers(0, len(whole), 1000):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a readable checkpoint"):
            accepted.append(load_checkpoint(path))
    assert accepted == []
    path.write_bytes(whole)
    assert load_checkpoint(path).step == 1


def test_both_hashes_of_a_damaged_file_are_named(tmp_path: Path, checkpoint: Make) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, checkpoint())
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    found, written = hashlib.sha256(content[:-73]).hexdigest(), bytes(content[-65:-1]).decode()
    with pytest.raises(DataError, match=f"{found}.*{written}"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"step": -1}, "step: .*greater than or equal to 0"),
        ({"step": "1"}, "step: .*integer"),
        ({"step": True}, "step: .*integer"),
        ({"seed": 2**32}, "seed"),
        ({"evaluations": [(1, 0.1, 2)]}, r"evaluations\.0"),
        ({"evaluations": [(1, float("nan"))]}, r"evaluations\.0\.1"),
        ({"seconds": {"run": float("inf")}}, r"seconds\.run"),
        ({"optimizer": {}}, "optimizer: .*empty"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "optimizer: .*empty"),
        ({"model": {"w": 1}}, r"model\.w: .*Tensor"),
        ({"rng": None}, "rng"),
        ({"surprise": 1}, "surprise"),
        ({"format": 1}, "format 2"),
        ({1: 2}, "keywords must be strings"),
    ],
)
def test_keys_and_types_are_checked(tmp_path: Path, checkpoint: Make, values: dict[Any, Any], words: str) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(sealed({**raw(checkpoint()), **values}))
    with pytest.raises(DataError, match=f"not a checkpoint of this version.*{words}"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["step", "model", "logs", "config"])
def test_a_missing_key_is_named(tmp_path: Path, checkpoint: Make, name: str) -> None:
    state = raw(checkpoint())
    del state[name]
    path = tmp_path / CHECKPOINT
    path.write_bytes(sealed(state))
    with pytest.raises(DataError, match=f"{name}: Field required"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], "text", torch.zeros(3), {"conv1.weight": torch.zeros(1)}])
def test_a_sealed_file_of_something_else(tmp_path: Path, content: Any) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(sealed(content))
    with pytest.raises(DataError, match="not a checkpoint of this version"):
        load_checkpoint(path)


@pytest.mark.parametrize("error", [AssertionError, IndexError, TypeError, OverflowError, MemoryError])
def test_whatever_torch_raises_is_the_file_s_fault(
    tmp_path: Path, checkpoint: Make, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def load(*arguments: Any, **values: Any) -> None:
        raise error("deep inside")

    save_checkpoint(tmp_path / CHECKPOINT, checkpoint())
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(DataError, match=f"not a readable checkpoint: it is damaged .*{error.__name__}"):
        load_checkpoint(tmp_path / CHECKPOINT)


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
    path.write_bytes(sealed({"format": 2, "x": Evil()}))
    with pytest.raises(DataError, match="not a readable checkpoint: it holds Python objects"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_other_programs_can_read_it(tmp_path: Path, checkpoint: Make) -> None:
    save_checkpoint(tmp_path / CHECKPOINT, checkpoint(step=3))
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 3


def test_its_config_comes_back_with_other_keys_in_it(checkpoint: Make) -> None:
    made = checkpoint(config=Config(width=0.5, pretrained=False, device="cpu").model_dump_json())
    assert made.run_config() == Config(width=0.5, pretrained=False, device="cpu")
    assert made.run_config(nhwc=True).nhwc
    with pytest.raises(ConfigError, match=r"width 1"):
        made.run_config(pretrained=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"key_of_tomorrow": 1}, "key_of_tomorrow"), ({"epochs": -3}, "epochs"), ({"precision": "fp4"}, "precision")],
)
def test_a_config_of_another_version(checkpoint: Make, change: dict[str, Any], words: str) -> None:
    values = json.loads(Config().model_dump_json())
    with pytest.raises(DataError, match=words):
        checkpoint(config=json.dumps({**values, **change})).run_config()


@pytest.mark.parametrize("text", ["", "[1]", "3", "{"])
def test_a_config_that_is_none(checkpoint: Make, text: str) -> None:
    with pytest.raises(DataError, match="config"):
        checkpoint(config=text).run_config()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which stands for a full disk")
def test_a_full_disk_is_named_and_leaves_the_last_one(tmp_path: Path, checkpoint: Make) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, checkpoint(step=1))
    path.with_name(path.name + ".part").symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"checkpoint\.pt cannot be written: No space left on device"):
        save_checkpoint(path, checkpoint(step=2, model={"w": torch.zeros(100_000)}))
    assert load_checkpoint(path).step == 1
    assert [one.name for one in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_folder_that_was_removed_is_not_to_be_resumed_from(tmp_path: Path, checkpoint: Make) -> None:
    with pytest.raises(MachineError, match=r"the folder was removed during the run.*start anew") as caught:
        save_checkpoint(tmp_path / "gone" / CHECKPOINT, checkpoint())
    assert "--resume" not in str(caught.value)


def test_what_torch_s_writer_hides_is_found(tmp_path: Path, checkpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(state: object, file: object) -> None:  # as torch.save does when the disk fills up half-way
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 73280 vs 73176")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(MachineError, match="No space left on device"):
        save_checkpoint(tmp_path / CHECKPOINT, checkpoint(step=1))
    assert not any(tmp_path.iterdir())
