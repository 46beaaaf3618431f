"""The account of true runs: it adds up to the wall clock, changes no number, and names what is put in.

What is put in is large beside what a loaded machine adds by itself; that nothing else is named is tried on records
(tests/account), where no machine can disturb.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssd.data.synthetic import SyntheticLoader
from ssd.errors import NotFiniteError
from ssd.run import evaluation, live

Run = Callable[..., tuple[int, Path]]


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def unusual(folder: Path) -> set[str]:
    return {one["name"] for one in read(folder, "summary.json")["anomalies"]}


LAGGARD = """
import os
import time

import ssd.vendor


class Vendor(ssd.vendor.Vendor):
    device_type = "cpu"
    backend = "gloo"

    def convert_model(self, model, config, device):
        if os.environ["RANK"] == "1":
            clock, lost = time.perf_counter, []
            time.perf_counter = lambda: clock() + 1000.0 * len(lost)
            model.register_forward_pre_hook(lambda *_: lost.append(None))
        return super().convert_model(model, config, device)
"""
"""A vendor on whose rank 1 each forward pass takes 1000 s by its clock. The other rank's clock is right."""


@pytest.mark.slow
def test_the_account_of_a_launched_run_adds_up_to_its_wall_clock_and_names_a_slow_rank(
    command: Callable, tmp_path: Path, small: list
) -> None:
    (tmp_path / "laggard").mkdir()
    (tmp_path / "laggard" / "vendor.py").write_text(LAGGARD)
    folder = tmp_path / "run"
    before = time.perf_counter()
    flags = [*small, "--epochs", "3", "--eval_epochs", "1", "3", "--nproc_per_node", "2", "--output", str(folder)]
    ended = command("run_training.sh", "--name", "laggard", *flags, SSD_VENDOR_PATH=str(tmp_path))
    outside = time.perf_counter() - before
    assert ended.returncode == 4, ended.stderr
    assert f"{folder / 'report.html'}\n" in ended.stdout
    account = read(folder, "summary.json")["account"]
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], rel=1e-3)
    assert 0 < account["wall_s"] <= outside + 0.02
    assert account["parts"].keys() >= {"launcher", "imports", "process_group", "index", "model", "step", "data_wait"}
    assert account["parts"].keys() >= {"eval_forward", "eval_detect", "eval_metric", "checkpoint", "between", "end"}
    assert account["sampled"]["share"].keys() == {"forward", "backward", "optimizer"}
    assert sum(account["sampled"]["share"].values()) == pytest.approx(1, abs=1e-3)
    assert len(account["ranks"]["seconds"]) == 2
    assert account["ranks"]["slowest"] == 1
    (found,) = [one for one in read(folder, "summary.json")["anomalies"] if one["name"] == "rank out of step"]
    assert found["words"].startswith("Rank 1 was the slowest in 2 of 2 epochs; the other ranks waited for it")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"report.html", "trace.json", "evaluation.json"}
    tracks = {one["tid"] for one in read(folder, "trace.json")["traceEvents"] if one["ph"] == "X"}
    assert tracks == {0, 1}


@pytest.mark.slow
def test_what_is_put_into_a_true_run_is_named(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four faults in one run: a slow decoder, a first epoch that stalls, a slow metric, a slow disk.

    Nobody waits for them: the process's clock is put forward, by minutes, beside which a machine's own jitter is small.
    """
    clock, lost = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + lost[0])
    plain, metric, save = SyntheticLoader.epoch, evaluation.bbox_statistics, live.save_checkpoint

    def slow_epoch(self: SyntheticLoader, epoch: int, first_step: int = 0) -> Iterator:
        for batch in plain(self, epoch, first_step):
            lost[0] += 9000.0 if epoch == 1 else 3000.0
            yield batch

    def slow_metric(*arguments: Any) -> Any:
        lost[0] += 12_000.0
        return metric(*arguments)

    def slow_save(*arguments: Any) -> None:
        save(*arguments)
        lost[0] += 600.0

    monkeypatch.setattr(SyntheticLoader, "epoch", slow_epoch)
    monkeypatch.setattr(evaluation, "bbox_statistics", slow_metric)
    monkeypatch.setattr(live, "save_checkpoint", slow_save)
    _, folder = small_run("--epochs", "3", "--eval_epochs", "3", "--train_batch_size", "4")
    assert unusual(folder) >= {"first epoch long", "data-bound", "metric slow", "disk slow"}
    parts = read(folder, "summary.json")["account"]["parts"]
    assert parts["eval_metric"] > 12_000
    assert parts["checkpoint"] > 600
    assert parts["first_epoch_excess"] > 10_000
    assert sum(parts.values()) == pytest.approx(read(folder, "summary.json")["account"]["wall_s"], rel=1e-3)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "first epoch long" in page


@pytest.mark.slow
def test_a_run_that_diverged_leaves_its_report(small_run: Run, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError):
        small_run("--base_learning_rate", "1e20", "--warmup", "0", "--epochs", "1", "--log_freq", "1")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "the loss became infinite" in page
    account = read(tmp_path / "run", "summary.json")["account"]
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], rel=1e-3)


@pytest.mark.slow
def test_sampling_steps_changes_no_number(
    small_run: Run, records: Callable[[Path, str], list], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sampled = small_run("--epochs", "1", "--log_freq", "1", folder="sampled")
    monkeypatch.setattr("ssd.run.sampling.STEPS_PER_EPOCH", 0)
    _, plain = small_run("--epochs", "1", "--log_freq", "1", folder="plain")
    assert [one["loss"] for one in records(sampled, "train")] == [one["loss"] for one in records(plain, "train")]
    assert records(sampled, "epoch")[0]["sampled"]["steps"] == [2, 3, 4]
    assert records(plain, "epoch")[0]["sampled"]["steps"] == []
