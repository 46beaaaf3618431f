"""Whole runs, as a user starts them: outcomes, exit codes, and what a run leaves behind."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from ssd import cli
from ssd.compute.device import Abilities
from ssd.config import resolve
from ssd.errors import EXIT_BAD_DATA, DataError, LostPeerError, MachineError, NotFiniteError
from ssd.ops import REFERENCE
from ssd.prepare.drawn import draw_set
from ssd.report.equality import hold, read_kept
from ssd.run.checkpoint import load_checkpoint
from ssd.run.live import Work
from ssd.train import train

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, Path]]
Command = Callable[..., subprocess.CompletedProcess]
Records = Callable[[Path, str], list[dict]]


def test_the_smoke_config_keeps_its_word(command: Command, tmp_path: Path, records: Records) -> None:
    """Started as a user does. Falling loss, one evaluation, exit code 4, and every file of a run's folder."""
    folder = tmp_path / "run"
    ended = command(
        "run_training.sh", "--name", "cpu", "--config", "smoke", "--output", str(folder), PYTHON=sys.executable
    )
    assert ended.returncode == 4, ended.stderr
    losses = [record["loss"] for record in records(folder, "train")]
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert [record["epoch"] for record in records(folder, "evaluation")] == [4]
    names = {path.name for path in folder.iterdir()}
    assert {"checkpoint.pt", "config.json", "detections.jpg", "metrics.jsonl", "result_0.txt", "summary.json"} <= names
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["host_cores"] > 0
    assert (summary["max_memory_allocated_mib"], summary["launches_per_step"]) == (None, None)
    assert (summary["status"], summary["exit_code"], summary["steps"]) == ("aborted", 4, 16)
    assert "trained all its epochs" in ended.stdout
    assert f"{folder}\n" in ended.stdout, "a path that can be copied"


def test_gradients_are_averaged_with_the_last_micro_batch_of_a_step(
    small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with none before it: processes would wait for each other in vain."""
    asked, micro_batch = [], Work.micro_batch

    def noted(work: Work, batch: Any, last: bool) -> Tensor:
        asked.append(last)
        return micro_batch(work, batch, last)

    monkeypatch.setattr(Work, "micro_batch", noted)
    small_run("--gradient_accumulation_steps", "3", "--max_steps", "2")
    assert asked == [False, False, True] * 2


def test_an_error_of_torch_is_a_lost_peer_or_is_raised_as_it_is(
    small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("connection closed by peer")

    def fail(*given: object) -> int:
        raise error

    monkeypatch.setattr("ssd.train._run", fail)
    with pytest.raises(RuntimeError) as raised:
        small_run()
    assert raised.value is error, "one process has no peers"
    monkeypatch.setattr("ssd.train.lost_peer", lambda error, ranks: LostPeerError(f"lost: {error}"))
    with pytest.raises(LostPeerError, match="lost: connection closed by peer") as lost:
        small_run(folder="other")
    assert lost.value.__cause__ is error


def test_a_cpu_that_compiles_nothing_needs_no_warm_up(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[int] = []
    monkeypatch.setattr("ssd.run.setup.warm_up", lambda *given: warmed.append(1))
    small_run("--max_steps", "1")
    assert warmed == []


def test_the_result_log_is_in_order(small_run: Run) -> None:
    _, folder = small_run("--epochs", "2", "--eval_epochs", "1", "2")
    lines = (folder / "result_0.txt").read_text().splitlines()
    assert all(line.startswith(":::MLLOG ") for line in lines)
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    keys = [event["key"] for event in events]
    for earlier, later in [("init_start", "init_stop"), ("init_stop", "run_start"), ("run_start", "epoch_start")]:
        assert keys.index(earlier) < keys.index(later)
    assert [e["metadata"]["first_epoch_num"] for e in events if e["key"] == "block_start"] == [1, 2]
    assert [e["metadata"]["epoch_num"] for e in events if e["key"] == "eval_accuracy"] == [1, 2]
    assert events[-1]["key"] == "run_stop"
    assert events[-1]["metadata"]["status"] == "aborted"
    assert [e["value"] for e in events if e["key"] == "seed"] == [5]
    assert [e["value"] for e in events if e["key"] == "opt_base_learning_rate"] == [0.01]


def test_a_loss_that_is_not_finite_ends_the_run(small_run: Run, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match=r"at step \d+, epoch 1, first for image ids \[\d+") as caught:
        small_run("--base_learning_rate", "1e20", "--warmup", "0", "--epochs", "1", "--log_freq", "1")
    assert caught.value.exit_code == 6
    log = (tmp_path / "run" / "result_0.txt").read_text().splitlines()
    assert '"status": "aborted"' in log[-1]
    assert not (tmp_path / "run" / "checkpoint.pt").exists(), "weights that are not finite are never saved"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("aborted", 6), (
        "a diverged run is a result, not an interruption"
    )
    assert summary["time_to_target_s"] is None


def test_the_applied_rate_is_the_logged_one(small_run: Run, records: Records) -> None:
    """After warm-up the original applied less than it logged."""
    code, folder = small_run("--warmup", "2", "--max_steps", "4", "--log_freq", "1")
    assert code == 5
    assert [record["learning_rate"] for record in records(folder, "train")] == [0, 0.005, 0.01, 0.01]
    applied = load_checkpoint(folder / "checkpoint.pt").optimizer["param_groups"][0]["lr"]
    assert applied == 0.01


def test_a_bad_loss_between_two_readings_is_named(small_run: Run) -> None:
    with pytest.raises(NotFiniteError, match=r"at step 2, epoch 1"):
        small_run("--base_learning_rate", "1e30", "--warmup", "0", "--epochs", "1", "--log_freq", "20")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision(small_run: Run, precision: str, records: Records) -> None:
    code, folder = small_run("--max_steps", "3", "--precision", precision, "--nhwc")
    assert code == 5
    assert all(math.isfinite(record["loss"]) for record in records(folder, "train"))


def test_reaching_the_target_is_success(small_run: Run, monkeypatch: pytest.MonkeyPatch, records: Records) -> None:
    """The smallest true path to exit 0 in seconds; the demo reaches 0.23 for real."""
    statistics = np.full(12, 0.23)
    monkeypatch.setattr("ssd.run.evaluation.bbox_statistics", lambda *arguments: statistics)
    code, folder = small_run("--epochs", "3", "--eval_epochs", "1", "2", "3")
    assert code == 0, "0.23 is met at >="
    assert [record["epoch"] for record in records(folder, "evaluation")] == [1], "the run stops at the target"
    log = (folder / "result_0.txt").read_text().splitlines()
    assert '"status": "success"' in log[-1]
    assert json.loads((folder / "summary.json").read_text())["time_to_target_s"] > 0


def test_the_best_checkpoint_is_kept_beside_the_last(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.2, 0.2, 0.15])
    monkeypatch.setattr("ssd.run.evaluation.bbox_statistics", lambda *arguments: np.full(12, next(scores)))
    code, folder = small_run("--epochs", "4", "--eval_epochs", "1", "2", "3", "4", "--keep_best")
    assert code == 4
    best, last = (load_checkpoint(folder / name) for name in ("checkpoint.best.pt", "checkpoint.pt"))
    assert [one.step // one.steps_per_epoch for one in (best, last)] == [2, 4]
    assert best.evaluations == [(1, 0.1), (2, 0.2)], "the first of two that are equal"
    log = (folder / "run.log").read_text()
    assert "epoch 2: mAP 0.2000, target 0.23" in log
    assert "trained all its epochs without reaching the target" in log


def test_just_below_the_target_is_not_success(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.run.evaluation.bbox_statistics", lambda *arguments: np.full(12, np.nextafter(0.23, 0)))
    code, _ = small_run("--epochs", "1", "--eval_epochs", "1")
    assert code == 4, "no rounding"


def test_the_same_seed_gives_the_same_run_and_no_seed_a_new_one(
    tmp_path: Path, records: Records, small: list[str]
) -> None:
    losses, seeds = [], []
    for number, flags in enumerate([["--seed", "7"], ["--seed", "7"], [], []]):
        folder = tmp_path / str(number)
        words = [word for word in small if word not in ("--seed", "5")]
        train(resolve([*words, *flags, "--max_steps", "2", "--log_freq", "1", "--output", str(folder)], {}))
        losses.append([record["loss"] for record in records(folder, "train")])
        seeds.append(records(folder, "start")[0]["seed"])
    assert losses[0] == losses[1]
    assert seeds[2] != seeds[3]
    assert losses[2] != losses[3]


def test_two_processes_train_and_evaluate_together(
    command: Command, tmp_path: Path, records: Records, small: list[str]
) -> None:
    """They share batch norm's statistics here, so that they train as one process does until rounding grows."""
    flags = [*small, "--epochs", "2", "--eval_epochs", "2", "--collective_timeout", "60"]
    two, one = tmp_path / "two", tmp_path / "one"
    ended = command("run_training.sh", *flags, "--nproc_per_node", "2", "--bn_group", "2", "--output", str(two))
    assert ended.returncode == 4, ended.stderr
    assert records(two, "train")[-1]["images"] == 16
    assert ended.stdout.count("mAP by evaluation") == 1, "rank 0 alone speaks"
    train(resolve([*flags, "--train_batch_size", "4", "--output", str(one)], {}))
    compared, apart = hold(read_kept(one), read_kept(two), 1e-5)
    assert compared["ids"] == compared["draws"] == 4
    assert [part for part in apart if part.what in ("ids", "draws") or part.step <= 2] == []


def test_a_rank_s_error_is_the_run_s(command: Command, tiny_folder: Path, tmp_path: Path, small: list[str]) -> None:
    """A corrupt image that only one of two ranks meets ends both, with its name and the code of bad data."""
    victim = sorted((tiny_folder / "train2017").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    words = [word.replace("synthetic", "threads") for word in small if word not in ("--synthetic_samples", "8")]
    flags = [*words, "--data_backend", "threads", "--num_classes", "2", "--nproc_per_node", "2", "--epochs", "1"]
    folders = [
        "--data_dir",
        str(tiny_folder),
        "--cache_dir",
        str(tmp_path / "cache"),
        "--output",
        str(tmp_path / "run"),
    ]
    ended = command("run_training.sh", *flags, *folders, "--collective_timeout", "60")
    assert ended.returncode == 3
    assert victim.name in ended.stderr
    assert '"status": "aborted"' in (tmp_path / "run" / "result_0.txt").read_text().splitlines()[-1]


def test_corrupt_images_can_be_skipped(tiny_folder: Path, tmp_path: Path, records: Records) -> None:
    victim = sorted((tiny_folder / "train2017").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    words = ["--config", "smoke", "--width", "0.125", "--train_batch_size", "2", "--data_backend", "threads"]
    words += ["--num_classes", "2", "--epochs", "1", "--data_dir", str(tiny_folder), "--cache_dir", str(tmp_path / "c")]
    words += ["--seed", "1"]  # another may draw the same image as its own stand-in
    with pytest.raises(DataError, match=victim.name):
        train(resolve([*words, "--output", str(tmp_path / "stop")], {}))
    code = train(resolve([*words, "--corrupt_images", "skip", "--output", str(tmp_path / "skip")], {}))
    assert code == 4
    assert records(tmp_path / "skip", "epoch")[-1]["skipped_images"] == 1


def test_resident_asks_what_is_free_once_training_has_its_memory_and_crops_by_the_runs_op(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, all of a device counts as free. A refusal comes before run_start, when no training image is read."""
    cropped = []

    def noted(slots: Tensor, *inputs: Any, **bounds: int) -> Tensor:
        cropped.extend(slots.tolist())
        return REFERENCE.crop(slots, *inputs, **bounds)

    monkeypatch.setattr("ssd.run.setup.select_ops", lambda vendor, config: (replace(REFERENCE, crop=noted), []))
    words = ["--config", "smoke", "--width", "0.125", "--train_batch_size", "2", "--data_backend", "resident"]
    words += ["--num_classes", "2", "--epochs", "1", "--data_dir", str(tiny_folder), "--cache_dir", str(tmp_path / "c")]
    monkeypatch.setattr("ssd.run.sources.available_bytes", lambda: None)
    for name, free, code in (("plenty", 2**30, 4), ("little", 2**29, None)):
        monkeypatch.setattr(Abilities, "free_bytes", property(lambda self, free=free: free))
        resolved = resolve([*words, "--output", str(tmp_path / name)], {})
        if code is None:
            with pytest.raises(MachineError, match=r"but 0\.5 GB are available on cpu"):
                train(resolved)
        else:
            assert train(resolved) == code
    assert sorted(cropped) == [0, 1, 2, 3, 4, 5]
    log = (tmp_path / "little" / "result_0.txt").read_text()
    assert '"init_start"' in log
    assert '"run_start"' not in log


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A COCO folder of six noise images with a box each, one category; train and val alike."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        content: dict = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "thing"}]}
        for n in range(1, 7):
            name = f"{n:012d}.jpg"
            Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / split / name)
            content["images"].append({"id": n, "file_name": name, "width": 80, "height": 60})
            box = {"id": n, "image_id": n, "category_id": 4, "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0}
            content["annotations"].append(box)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def test_evaluate_repeats_the_run_s_score(
    command: Command, small_run: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = small_run("--epochs", "1", "--eval_epochs", "1")
    said = command("evaluate", "--checkpoint", str(folder / "checkpoint.pt"), "--config", "smoke")
    assert said.returncode == 0, said.stderr
    score = records(folder, "evaluation")[-1]["AP"]
    assert f"{score:.5f}" in said.stdout
    capsys.readouterr()
    assert cli.main(["evaluate", "--checkpoint", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["AP"], found["images"]) == (score, 8)


def test_a_folder_named_to_evaluate_is_read_after_a_synthetic_run(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    _, folder = small_run("--max_steps", "1")
    draw_set(tmp_path / "mine", train=3, val=3, seed=1)
    checkpoint = str(folder / "checkpoint.pt")
    said = command("evaluate", "--checkpoint", checkpoint, "--data_dir", str(tmp_path / "mine"))
    assert said.returncode == EXIT_BAD_DATA
    assert "its categories are not those that" in said.stderr


def test_detect_draws_on_a_user_s_images(command: Command, small_run: Run, tmp_path: Path) -> None:
    _, folder = small_run("--epochs", "1", "--eval_epochs", "1")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (120, 90), "red").save(photos / "a.jpg")
    Image.new("L", (90, 200), 100).save(photos / "b.png")
    (photos / "notes.txt").write_text("not an image")
    words = [
        "--checkpoint",
        str(folder / "checkpoint.pt"),
        "--images",
        str(photos),
        "--output",
        str(tmp_path / "drawn"),
    ]
    said = command("detect", *words)
    assert said.returncode == 0, said.stderr
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "drawn").iterdir()}
    assert sizes == {"0000-a.jpg": (120, 90), "0001-b.jpg": (90, 200)}
    said = command("detect", "--checkpoint", str(folder / "checkpoint.pt"), "--images", str(photos / "notes.txt"))
    assert said.returncode == 3
    assert "notes.txt" in said.stderr


@pytest.mark.slow
@pytest.mark.parametrize("started", [["run_training.sh"], ["train"]], ids=["launched", "by hand"])
@pytest.mark.parametrize("redirection", ["1>&{gone}", "2>&{gone}", "1>/dev/full 2>/dev/full"])
def test_the_exit_code_is_the_run_s_whoever_listens(
    root: Path, tmp_path: Path, small: list[str], started: list[str], redirection: str
) -> None:
    """The reader of stdout or stderr has gone, or both are on a full disk: the run ends as it would have."""
    folder = tmp_path / "run"
    program = ["bash"] if started == ["run_training.sh"] else [sys.executable, "-m", "ssd"]
    words = shlex.join([*program, *started, *small, "--max_steps", "1", "--output", str(folder)])
    reader, gone = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        ["bash", "-c", f"{words} {redirection.format(gone=gone)}"],
        cwd=root / "base",
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": ""},
        pass_fds=[gone],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(gone)
    assert ended.returncode == 5, ended.stderr
    assert json.loads((folder / "summary.json").read_text())["exit_code"] == 5
    assert '"status": "aborted"' in (folder / "result_0.txt").read_text().splitlines()[-1]
    assert "Traceback" not in ended.stdout + ended.stderr
