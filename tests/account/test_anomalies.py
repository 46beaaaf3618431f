"""Stalls and faults put into the records of a clean run: each is named, alone, and a clean run is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd.account.anomalies import LOOKS, find_anomalies
from ssd.account.facts import Facts, facts_of, read_metrics

Records = Callable[..., list[dict[str, Any]]]


def names(records: list[dict[str, Any]]) -> list[str]:
    return [found.name for found in find_anomalies(facts_of(records))]


def test_nothing_is_named_in_a_clean_run(records: Records) -> None:
    assert names(records()) == []


def test_nothing_is_named_in_a_true_run_of_the_demo() -> None:
    """Kept from a machine that other programs kept busy: two cores, four epochs, to mAP 0.27."""
    records = read_metrics(Path(__file__).with_name("demo_metrics.jsonl"))
    assert len(facts_of(records).epochs) == 4
    assert names(records) == []


def test_nothing_is_named_in_a_run_that_has_hardly_begun(records: Records) -> None:
    assert find_anomalies(Facts()) == []
    for length in range(len(records())):
        assert names(records()[:length]) == []


def stretch(record: dict[str, Any], factor: float, *, of: str = "step") -> None:
    for rank in record["ranks"]:
        rank[of] *= factor


def first_epoch(record: dict[str, Any], number: int) -> None:
    """Kernels compile in the first epoch."""
    if number == 1:
        stretch(record, 2.3)


def stall(record: dict[str, Any], number: int) -> None:
    """The file system pauses once."""
    if number == 7:
        stretch(record, 1.8)


def slow_decoder(record: dict[str, Any], number: int) -> None:
    """Decoding takes longer than training."""
    for rank in record["ranks"]:
        rank["data_wait"], rank["step"] = 25.0, rank["step"] - 25.0


def slow_rank(record: dict[str, Any], number: int) -> None:
    """Rank 1 computes slowly: its forward passes take half as long again, and rank 0 waits in its own backward."""
    record["ranks"][1]["forward"] = 0.8


def slow_rank_data(record: dict[str, Any], number: int) -> None:
    """Rank 0's disk is slow; rank 1 waits for it in the step."""
    record["ranks"][0]["data_wait"] = 14.0
    record["ranks"][0]["step"] -= 13.0


def slow_metric(record: dict[str, Any], number: int) -> None:
    record["seconds"]["eval_metric"] = 60.0


def growing_evaluation(record: dict[str, Any], number: int) -> None:
    if number == 3:
        record["seconds"]["eval_detect"] += 9.0


def growing_checkpoint(record: dict[str, Any], number: int) -> None:
    if number == 3:
        record["seconds"] = 2.6


def slow_disk(record: dict[str, Any], number: int) -> None:
    record["seconds"] = 12.0 + 0.1 * number


def throttled(record: dict[str, Any], number: int) -> None:
    if number % 4 == 0:
        record["clock_mhz"][1] = 900.0


def hot(record: dict[str, Any], number: int) -> None:
    record["temperature_c"][0] = 93.0


def drift(record: dict[str, Any], number: int) -> None:
    record["images_per_s"] *= 1 - 0.006 * number


def two_speeds(record: dict[str, Any], number: int) -> None:
    if number % 5 in (0, 1):
        record["images_per_s"] *= 0.7


def spike(record: dict[str, Any], number: int) -> None:
    if number == 30:
        record["loss"] *= 4


def overflows(record: dict[str, Any], number: int) -> None:
    record["skipped_steps"] = 5 * number


def bad_images(record: dict[str, Any], number: int) -> None:
    record["skipped_images"] = 3


def leak(record: dict[str, Any], number: int) -> None:
    record["ranks"][1]["memory_mib"] += 60.0 * number


def device_leak(record: dict[str, Any], number: int) -> None:
    record["ranks"][0]["device_memory_mib"] = 20_000 + 300.0 * number


INJECTED = [
    ("epoch", first_epoch, "first epoch long", "Epoch 1 took "),
    ("epoch", stall, "epoch stalled", "Epoch 7 took "),
    ("epoch", slow_decoder, "data-bound", "42% of its time"),
    ("epoch", slow_rank, "rank out of step", "Rank 1 was the slowest in 11 of 11 epochs"),
    ("epoch", slow_rank_data, "rank out of step", "Rank 0 was the slowest in 11 of 11 epochs"),
    ("evaluation", slow_metric, "metric slow", "COCO's metric took 180.0 s in 3 evaluations"),
    ("evaluation", growing_evaluation, "evaluation grew", "after epoch 12 took 18.5 s, where those before it took 9.5"),
    ("checkpoint", growing_checkpoint, "checkpoint grew", "Checkpoint 3 took 2.6 s"),
    ("checkpoint", slow_disk, "disk slow", "13.0 MB/s"),
    ("telemetry", throttled, "clock throttled", "Device 1 ran at 900 MHz in 12 of 48 readings"),
    ("telemetry", hot, "device hot", "Device 0 was at 93 degrees"),
    ("train", drift, "throughput drifting", "Throughput fell from "),
    ("train", two_speeds, "throughput in two groups", "the slow group is "),
    ("train", spike, "loss spike", "at step 300"),
    ("epoch", overflows, "steps skipped", "60 of 480 steps were skipped"),
    ("epoch", bad_images, "images skipped", "3 images"),
    ("epoch", leak, "memory growing", "The host memory of rank 1 grew from "),
    ("epoch", device_leak, "memory growing", "The device memory of rank 0 grew from 20900 to 23600 MiB"),
]


@pytest.mark.parametrize(
    ("kind", "fault", "name", "words"), INJECTED, ids=[fault.__name__ for _, fault, _, _ in INJECTED]
)
def test_what_is_put_in_is_named_and_nothing_else(
    records: Records, kind: str, fault: Callable, name: str, words: str
) -> None:
    found = find_anomalies(facts_of(records(kind, fault)))
    assert [one.name for one in found] == [name]
    assert words in found[0].words


def test_every_kind_of_trouble_is_tried() -> None:
    assert len({name for _, _, name, _ in INJECTED}) == len(LOOKS)


def test_a_resumed_run_is_judged_by_its_last_process(records: Records) -> None:
    """A stall of the part before the resume is that part's, and the first epoch after it is a first epoch."""
    before, after = records("epoch", first_epoch), records("epoch", first_epoch)
    whole = [*before, {"kind": "resumed", "step": 0}, *after]
    assert names(whole) == names(after) == ["first epoch long"]


@pytest.mark.parametrize("limit", [0.98, 1.02])
def test_the_limits_are_what_the_words_say(records: Records, limit: float) -> None:
    """An epoch is long from 1.5 times the median on."""

    def change(record: dict[str, Any], number: int) -> None:
        for rank in record["ranks"]:
            rank["data_wait"], rank["step"] = 0.0, 90.0 * limit if number == 1 else 60.0
            rank["forward"] = 0.0

    assert names(records("epoch", change)) == (["first epoch long"] if limit > 1 else [])
