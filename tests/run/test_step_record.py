"""What a run keeps of its steps: to the bit, however a step is cut, and of exactly what was drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssd.compute.device import Abilities
from ssd.compute.ranks import Ranks
from ssd.data import TrainBatch
from ssd.run.progress import Metrics
from ssd.run.step_record import StepRecord, hash_of_draws

IDS = [f"image {number}" for number in range(20)]


def batch_of(rows: tuple[int, ...], most_boxes: int = 3) -> TrainBatch:
    """A batch whose samples depend on their row alone, padded to `most_boxes`."""
    size = len(rows)
    boxes, labels = torch.zeros(size, most_boxes, 4), torch.zeros(size, most_boxes, dtype=torch.int64)
    factors, order, flip = torch.zeros(size, 4), torch.zeros(size, 4, dtype=torch.int64), torch.zeros(size).bool()
    for place, row in enumerate(rows):
        rng = np.random.default_rng(row)
        count = 1 + row % 2
        boxes[place, :count] = torch.from_numpy(rng.random((count, 4), np.float32))
        labels[place, :count] = torch.from_numpy(rng.integers(1, 80, count))
        factors[place], order[place] = torch.from_numpy(rng.random(4, np.float32)), torch.from_numpy(rng.permutation(4))
        flip[place] = bool(row % 3)
    return TrainBatch(torch.zeros(size, 300, 300, 3, dtype=torch.uint8), boxes, labels, flip, factors, order, rows)


def loss_of(rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([1 / (3 + row) for row in rows])


def recorded(folder: Path, cut: list[list[tuple[int, ...]]], boxes: int = 3, norms: bool = False) -> dict:
    """The record of one step whose images are cut as `cut`: of each rank, the rows of its micro-batches."""
    path = folder / "metrics.jsonl"
    path.unlink(missing_ok=True)
    gathered: list = []
    for rank in reversed(range(len(cut))):  # rank 0 last: it writes what the others have handed in
        ranks = SimpleNamespace(
            rank=rank,
            world_size=len(cut),
            is_rank_0=rank == 0,
            gather=lambda value, rank=rank: gathered.insert(0, value) or (gathered if rank == 0 else []),
        )
        with Metrics(path if rank == 0 else None) as metrics:
            kept = [("weight", torch.nn.Parameter(torch.tensor([3.0, 4.0])))] if norms else []
            record = StepRecord(Abilities(torch.device("cpu")), ranks, metrics, IDS, kept)  # type: ignore[arg-type]
            for micro_batch, rows in enumerate(cut[rank]):
                record.add(7, 2, micro_batch, batch_of(rows, boxes), loss_of(rows))
            record.put(7)
            record.write()
    (line,) = path.read_text().splitlines()
    return {key: value for key, value in json.loads(line).items() if key != "time"}


WHOLE = [[(1, 2, 3, 4, 5, 6, 7, 8)]]


def test_a_record_says_the_step_its_loss_and_two_hashes(tmp_path: Path) -> None:
    record = recorded(tmp_path, WHOLE)
    assert (record["kind"], record["epoch"], record["first_step"]) == ("steps", 2, 7)
    assert record["loss"] == [math.fsum(loss_of(WHOLE[0][0]).tolist()) / 8]
    for name in ("ids", "draws"):
        (text,) = record[name]
        assert len(text) == 16
        assert int(text, 16) > 2**32
    assert "norms" not in record


@pytest.mark.parametrize(
    "cut",
    [
        [[(1, 2, 3, 4), (5, 6, 7, 8)]],  # two micro-batches
        [[(1, 2, 3, 4)], [(5, 6, 7, 8)]],  # two processes
        [[(1, 2), (5, 6)], [(3, 4), (7, 8)]],  # both
    ],
)
@pytest.mark.parametrize("boxes", [3, 9])
def test_no_cut_and_no_padding_changes_a_bit(tmp_path: Path, cut: list[list[tuple[int, ...]]], boxes: int) -> None:
    assert recorded(tmp_path, cut, boxes) == recorded(tmp_path, WHOLE)


@pytest.mark.parametrize("rows", [(2, 1, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4, 5, 6, 7, 9), (1, 2, 3, 4, 5, 6, 7, 7)])
def test_other_images_and_another_order_are_seen(tmp_path: Path, rows: tuple[int, ...]) -> None:
    one, other = recorded(tmp_path, WHOLE), recorded(tmp_path, [[rows]])
    assert one["ids"] != other["ids"]
    assert one["draws"] != other["draws"]


def up(tensor: torch.Tensor, *place: int) -> torch.Tensor:
    """The tensor with one float the next one up, or one integer or bool another."""
    changed = tensor.clone()
    value = changed[place]
    changed[place] = torch.nextafter(value, torch.tensor(9.0)) if tensor.is_floating_point() else 1 - value.int()
    return changed


CHANGES: dict[str, Callable[[TrainBatch], TrainBatch]] = {
    "box": lambda batch: replace(batch, boxes=up(batch.boxes, 2, 0, 3)),
    "label": lambda batch: replace(batch, labels=up(batch.labels, 2, 0)),
    "flip": lambda batch: replace(batch, flip=up(batch.flip, 2)),
    "factor": lambda batch: replace(batch, factors=up(batch.factors, 2, 1)),
    "order": lambda batch: replace(batch, order=batch.order[:, [1, 0, 2, 3]]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_bit_of_any_draw_changes_the_hash_of_its_sample(change: str) -> None:
    batch = batch_of((1, 2, 3, 4))
    before, after = hash_of_draws(batch), hash_of_draws(CHANGES[change](batch))
    assert before[2] != after[2]
    assert change == "order" or before[[0, 1, 3]].tolist() == after[[0, 1, 3]].tolist()


def test_norms_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    assert recorded(tmp_path, WHOLE, norms=True)["norms"] == {"7": {"weight": 5.0}}


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with Metrics(tmp_path / "metrics.jsonl") as metrics:
        parameter = torch.nn.Parameter(torch.tensor([math.inf]))
        record = StepRecord(Abilities(torch.device("cpu")), Ranks(), metrics, IDS, [("weight", parameter)])
        for step, losses in enumerate(([math.inf, -math.inf], [math.nan, 1.0], [1.0, 3.0]), 1):
            record.add(step, 1, 0, batch_of((1, 2)), torch.tensor(losses))
        record.put(3)
        record.write()
    content = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert content["loss"] == [None, None, 2.0]
    assert content["norms"] == {"3": {"weight": None}}


def test_steps_are_written_once_and_an_empty_epoch_writes_nothing(tmp_path: Path) -> None:
    with Metrics(tmp_path / "metrics.jsonl") as metrics:
        record = StepRecord(Abilities(torch.device("cpu")), Ranks(), metrics, IDS)
        for step in (1, 2, 3):
            record.add(step, 1 + step // 3, 0, batch_of((step,)), torch.ones(1))
            record.put(step)
            if step > 1:
                record.write()
        record.write()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(one["first_step"], len(one["loss"])) for one in records] == [(1, 2), (3, 1)]


def test_only_the_end_of_a_part_waits_for_the_device(tmp_path: Path) -> None:
    asked: list[str] = []
    with Metrics(tmp_path / "metrics.jsonl") as metrics:
        record = StepRecord(Abilities(torch.device("cpu")), Ranks(), metrics, IDS)
        reader = SimpleNamespace(drain=lambda: asked.append("drain") or [], read=lambda: asked.append("read") or [])
        record._reader = reader  # type: ignore[assignment]
        record.write()
        record.write(wait=False)
        record.write(wait=True)
    assert asked == ["drain", "read", "drain"]


def test_hashes_are_those_of_other_machines_and_versions(tmp_path: Path) -> None:
    """Numbers that were kept once: a run of today is compared with one of next year."""
    record = recorded(tmp_path, WHOLE)
    assert (record["ids"], record["draws"]) == (["5b27383d21303e02"], ["d066d4fb194f367d"])
