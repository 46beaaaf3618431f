"""`compare A B --assert-equal` on real runs: equal ones pass, and one bit of a constant in the loss is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssd import cli
from ssd.config import resolve
from ssd.errors import EXIT_BAD_CONFIG, EXIT_BAD_DATA, EXIT_DIFFERENT, NotFiniteError
from ssd.ops import loss as loss_op
from ssd.prepare.drawn import draw_set
from ssd.report.equality import read_kept
from ssd.run.checkpoint import load_checkpoint, save_checkpoint
from ssd.train import train

pytestmark = pytest.mark.slow

Say = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_set(folder, train=8, val=2, seed=1)
    return folder


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Callable[..., Path]:
    """Train 3 steps of the small run on image files, once for each set of flags; its folder."""
    folders: dict[tuple[str, ...], Path] = {}
    words = ["--data_backend", "threads", "--data_dir", str(files), "--cache_dir", str(files / "cache")]
    words += ["--record_norms", "--telemetry_interval", "0", "--max_steps", "3"]

    def trained(*flags: str) -> Path:
        if flags not in folders:
            folders[flags] = tmp_path_factory.mktemp("runs") / "run"
            assert train(resolve([*small, *words, *flags, "--output", str(folders[flags])], {})) == 5
        return folders[flags]

    return trained


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run `compare`; its exit code and what it printed."""

    def call(*words: object) -> tuple[int, str]:
        capsys.readouterr()  # what the runs said
        code = cli.main(["compare", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_workers_do_not_change_a_bit(run: Callable[..., Path], say: Say) -> None:
    code, text = say(run("--num_workers", "1"), run("--num_workers", "4"), "--assert-equal")
    assert code == 0, text
    assert "A and B are the same to the bit: the ids of 3 steps' images; the draws of 3 steps' batches; " in text
    assert "the norms of parameters after 3 steps" in text
    assert "Their configs differ in num_workers: 1 and 4." in text


def test_one_bit_of_a_constant_of_the_loss_is_found(
    run: Callable[..., Path], say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where smooth L1 turns from a square into a line: 1.0 in float32, and its last bit."""
    sharp = loss_op.__globals__["F"].smooth_l1_loss

    def changed(locations: Tensor, offsets: Tensor, reduction: str) -> Tensor:
        return sharp(locations, offsets, reduction=reduction, beta=float(np.nextafter(np.float32(1), np.float32(2))))

    before = run("--num_workers", "1")
    monkeypatch.setattr("torch.nn.functional.smooth_l1_loss", changed)
    code, text = say(before, run("--num_workers", "1", "--prefetch", "1"), "--assert-equal", "--json")
    assert code == EXIT_DIFFERENT, text
    found = json.loads(text)
    assert found["equal"] is False
    assert found["first"]["step"] <= 2, "the rate of step 1 is 0, and its losses may round the bit away"
    assert found["first"]["what"] in ("loss", "norm")
    assert 0 < found["first"]["relative"] < 1e-5
    assert found["compared"]["ids"] == 3
    assert "ids" not in found["different"]


def test_another_seed_parts_at_the_first_batch(run: Callable[..., Path], say: Say) -> None:
    code, text = say(run("--num_workers", "1"), run("--seed", "6"), "--assert-equal")
    assert code == EXIT_DIFFERENT
    assert "A and B part at step 1 (epoch 1): the ids of the batch's images differ" in text
    assert "differ in seed" not in text, "a seed is a place: said by the ids"


def test_two_loaders_have_the_same_batches(run: Callable[..., Path], say: Say) -> None:
    _, text = say(run("--num_workers", "1"), run("--data_backend", "resident"), "--assert-equal", "--json")
    found = json.loads(text)
    assert {"ids", "draws"}.isdisjoint(found["different"]), text
    assert found["compared"]["draws"] == 3
    assert found["config"]["data_backend"] == ["threads", "resident"]


def test_dali_is_held_to_ids_and_draws_alone(run: Callable[..., Path], say: Say, tmp_path: Path) -> None:
    """A run that says it was DALI's, whose losses are another run's."""
    one, other = run("--num_workers", "1"), tmp_path / "dali"
    shutil.copytree(one, other)
    records = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.update({"loss": [1.0] * 3} if record["kind"] == "steps" else {})
    (other / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert say(one, other, "--assert-equal")[0] == EXIT_DIFFERENT
    config = json.loads((other / "config.json").read_text())
    config["data_backend"]["value"] = "dali"
    (other / "config.json").write_text(json.dumps(config))
    code, text = say(one, other, "--assert-equal")
    assert code == 0
    assert "With data_backend dali the ids and draws of the batches are compared, and nothing else" in text
    assert "losses of" not in text


def test_checkpoints_are_all_that_an_older_commit_left(run: Callable[..., Path], say: Say, tmp_path: Path) -> None:
    one, other = run("--num_workers", "1"), tmp_path / "old"
    shutil.copytree(one, other)
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(line for line in lines if '"kind": "steps"' not in line))
    code, text = say(one, other, "--assert-equal")
    assert code == 0
    assert "kept no record of its steps" in text
    assert "tensors of the last checkpoints" in text
    saved = load_checkpoint(other / "checkpoint.pt")
    name = next(name for name, tensor in saved.model.items() if tensor.dim() == 4)
    changed = saved.model[name].clone()
    changed[0, 0, 0, 0] = torch.nextafter(changed[0, 0, 0, 0], torch.tensor(9.0))
    save_checkpoint(other / "checkpoint.pt", saved.model_copy(update={"model": {**saved.model, name: changed}}))
    code, text = say(one, other, "--assert-equal")
    assert code == EXIT_DIFFERENT
    assert f"part at step 3 (epoch 1): {name} of the last checkpoint differs" in text
    assert say(one, other, "--assert-equal", "--tolerance", "1e-6")[0] == 0
    (other / "checkpoint.pt").unlink()
    (other / "metrics.jsonl").write_text('{"kind": "start"}\n')
    code, text = say(one, other, "--assert-equal")
    assert code == EXIT_BAD_DATA
    assert "nothing in common that can be compared" in text


def test_a_run_that_diverged_keeps_its_steps(small: list[str], tmp_path: Path) -> None:
    """The comparison that is wanted most: where did it part from the one that did not?"""
    flags = ["--base_learning_rate", "1e30", "--warmup", "0", "--epochs", "1", "--output", str(tmp_path / "run")]
    with pytest.raises(NotFiniteError):
        train(resolve([*small, *flags], {}))
    losses = [one[""] for one in read_kept(tmp_path / "run").values["loss"].values()]
    assert losses[0] > 0
    assert losses[1] is None


def test_what_cannot_be_held(say: Say, tmp_path: Path) -> None:
    code, text = say(tmp_path, "--assert-equal")
    assert code == EXIT_BAD_CONFIG
    assert "--assert-equal takes two runs, and got 1" in text
    assert say(tmp_path, tmp_path, "--assert-equal")[0] == EXIT_BAD_DATA
