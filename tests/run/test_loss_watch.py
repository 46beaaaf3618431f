"""The loss watch: means over intervals and micro-batches, and who is named when a loss is not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssd.compute.ranks import Ranks
from ssd.errors import NotFiniteError
from ssd.run.loss_watch import LossWatch
from ssd.run.progress import Clock, Metrics, ProgressLine

NAN = float("nan")


@pytest.fixture
def watch(tmp_path: Path) -> LossWatch:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    line = ProgressLine(9, shown=False)
    return LossWatch(
        torch.device("cpu"),
        Ranks(),
        Clock({}),
        metrics,
        line,
        image_ids=range(100, 200),
        remembered=8,
        last_step=9,
        global_batch=2,
    )


def test_the_mean_is_over_all_micro_batches_of_the_interval(watch: LossWatch, tmp_path: Path) -> None:
    watch.add(1, 1, (1, 2), torch.tensor([1.0, 3.0]))
    watch.add(2, 1, (3, 4), torch.tensor([5.0, 7.0]))
    watch.put(2, 1, 0.1)
    watch.read()
    watch.add(3, 1, (5, 6), torch.tensor([10.0, 10.0]))
    watch.put(3, 1, 0.1)
    watch.read()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert '"loss": 4.0' in text
    assert '"loss": 10.0' in text


def test_the_first_bad_image_is_named(watch: LossWatch) -> None:
    watch.add(1, 1, (11, 12), torch.tensor([1.0, 2.0]))
    watch.add(2, 1, (13, 14), torch.tensor([1.0, NAN]))
    watch.add(3, 1, (15, 16), torch.tensor([NAN, NAN]))
    watch.put(3, 1, 0.1)
    with pytest.raises(NotFiniteError, match=r"nan at step 2, epoch 1, first for image ids \[114\]"):
        watch.read()


def test_the_very_first_step_counts(watch: LossWatch) -> None:
    """The original did not look at it."""
    watch.add(1, 1, (11,), torch.tensor([float("inf")]))
    watch.put(1, 1, 0.1)
    with pytest.raises(NotFiniteError, match=r"inf at step 1"):
        watch.read()
