"""Records of epochs, evaluations and time: each field from a run that is played, as metrics.jsonl gets it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssd.compute.device import Abilities
from ssd.run import notes
from ssd.run.notes import EpochNotes, record_account, record_evaluation


class Ranks:
    """Two ranks, of which the other says the same of 10 skipped images."""

    def gather(self, mine: Any) -> list[Any]:
        return [mine, (mine[0], 10)] if isinstance(mine, tuple) else [mine, {"eval_metric": 0.0}]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(notes.time, "time", lambda: 1234.56789)
    monkeypatch.setattr(notes, "_resident_mib", lambda: 512.5)
    monkeypatch.setattr(notes, "_device_mib", lambda abilities: None)
    monkeypatch.setattr(notes, "read_laps", lambda steps, seconds: {"steps": steps, "seconds": seconds})
    written: list[tuple[str, dict]] = []
    return SimpleNamespace(
        abilities=Abilities(torch.device("cpu")),
        scaler=SimpleNamespace(skipped_later=lambda: (2, torch.tensor(3))),
        position=SimpleNamespace(step=40),
        clock=SimpleNamespace(
            seconds={"data": 1.5},
            timeline=SimpleNamespace(totals=lambda: {"step": 1.23456789}, wall=lambda: 9.87654321),
        ),
        loader=SimpleNamespace(skipped=[1, 2]),
        sampling=SimpleNamespace(take=lambda: ([7, 9], {"forward": 0.5, "backward": 1.0})),
        ranks=Ranks(),
        records=SimpleNamespace(metrics=SimpleNamespace(write=lambda kind, **fields: written.append((kind, fields)))),
        written=written,
    )


def test_an_epoch(run: SimpleNamespace) -> None:
    made = EpochNotes(run)
    made.put(4, {"data_wait": 0.12345678, "between": 5.0})
    assert run.written == []
    run.clock.seconds["data"] = 99.0
    made.write()
    mine = {"data_wait": 0.123457, "step": 0.0, "memory_mib": 512.5, "device_memory_mib": None, "forward": 0.25}
    expected = {
        "time": 1234.568,
        "epoch": 4,
        "step": 40,
        "seconds": {"data": 1.5},
        "skipped_steps": 5,
        "skipped_images": 12,
        "sampled": {"steps": [7, 9], "seconds": {"forward": 0.5, "backward": 1.0}, "clock": "host"},
        "ranks": [mine, mine],
    }
    assert run.written == [("epoch", expected)]


def test_an_epoch_without_a_sampled_step(run: SimpleNamespace) -> None:
    run.sampling.take = lambda: ([], {})
    made = EpochNotes(run)
    made.put(1, {"step": 2.0})
    made.write(wait=False)
    [(_, fields)] = run.written
    assert (fields["ranks"][0]["forward"], fields["ranks"][0]["step"]) == (0.0, 2.0)


def test_an_epoch_is_written_when_the_device_has_passed_its_end(
    run: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with timed events has passed the end of all epochs but the newest, until it is waited for."""
    monkeypatch.setattr(
        run, "abilities", SimpleNamespace(
            timed_events=True, pinned_memory=False, event=lambda: SimpleNamespace(synchronize=lambda: None),
            seconds_between=lambda first, second: 1.0,
        )
    )  # fmt: skip
    made = EpochNotes(run)
    for epoch in (1, 2):
        made.put(epoch, {})
        made.write(wait=False)
    assert [fields["epoch"] for _, fields in run.written] == [1]
    made.write()
    assert [fields["epoch"] for _, fields in run.written] == [1, 2]
    assert run.written[0][1]["sampled"]["clock"] == "device"


def test_an_evaluation_has_the_seconds_of_its_own_parts(run: SimpleNamespace) -> None:
    spent = {"eval_images": 1.23456789, "step": 5.0}
    record_evaluation(run, 5, 40, spent, {"AP": 0.1, "AP_small": None}, beside_s=1.5)
    expected = {"epoch": 5, "step": 40, "AP": 0.1, "AP_small": None, "seconds": {"eval_images": 1.234568}}
    expected |= {"ranks": [{"eval_images": 1.234568}, {"eval_metric": 0.0}], "beside_s": 1.5}
    assert run.written == [("evaluation", expected)]


def test_the_account(run: SimpleNamespace) -> None:
    record_account(run)
    assert run.written == [("account", {"wall_s": 9.876543, "parts": {"step": 1.234568}})]


def test_memory_of_the_process_and_of_the_device(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t  3000 kB\nVmHWM: 9 kB\n")
    assert notes._resident_mib(tmp_path / "status") == 2.9
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert notes._resident_mib(tmp_path / "status") is None
    assert notes._resident_mib(tmp_path / "absent") is None
    assert notes._device_mib(SimpleNamespace(held_bytes=None)) is None
    assert notes._device_mib(SimpleNamespace(held_bytes=3 * 2**19)) == 1.5
