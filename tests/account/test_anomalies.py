"""Stalls and faults put into the records of a clean run: each is named, alone, and a clean run is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd.account.anomalies import LOOKS, Finding, find_anomalies
from ssd.account.facts import Epoch, Evaluation, Facts, facts_of, read_metrics

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


def test_the_seconds_that_a_first_epoch_lost() -> None:
    (found,) = find_anomalies(Facts(epochs=[Epoch(1, 15.5), Epoch(2, 10.0), Epoch(3, 10.0)]))
    assert found.words.startswith(
        "Epoch 1 took 15.5 s, where the median of the others is 10.0 s: 5.5 s were lost. Look for"
    )


def epochs(*seconds: float, ranks: tuple[float, ...] = (), wait: float | None = None) -> Facts:
    """Epochs of one step. ranks: how long each rank waited for data; wait: how long rank 0 is said to have waited."""
    told = [{"data_wait": one} for one in ranks]
    return Facts(epochs=[Epoch(number, one, 1, wait, told) for number, one in enumerate(seconds, 1)])


def ranks(*waits: tuple[float, float]) -> Facts:
    """Epochs of 20 seconds, in which two ranks waited so long for data."""
    told = [[{"data_wait": one}, {"data_wait": other}] for one, other in waits]
    return Facts(epochs=[Epoch(number, 20.0, 1, None, one) for number, one in enumerate(told, 1)])


def readings(name: str, *values: float) -> Facts:
    return Facts(telemetry=[{name: [value]} for value in values])


def evaluated(metric: float, forward: float, detect: float, trained: float) -> Facts:
    """An evaluation of four seconds after an epoch of `trained` seconds."""
    parts = {"eval_metric": metric, "eval_forward": forward, "eval_detect": detect}
    return Facts(epochs=[Epoch(1, trained)], evaluations=[Evaluation(1, 4.0, parts)])


def saved(*checkpoints: tuple[float, float]) -> Facts:
    return Facts(checkpoints=list(checkpoints))


def rates(*values: float) -> Facts:
    """Rates at steps 10, 20 and so on, after a first epoch of ten steps."""
    return Facts(epochs=[Epoch(1, 10.0, 10)], rates=[(10 * at, value) for at, value in enumerate(values, 1)])


def skipped(steps: int) -> Facts:
    return Facts(epochs=[Epoch(1, 0.0, 1, None, [], steps)], last_step=100)


def memory(*held: float) -> Facts:
    """What the host's memory of one rank held after each epoch; the first two epochs are not judged."""
    return Facts(epochs=[Epoch(1, 1.0, 1, None, [{"data_wait": 0.0, "memory_mib": one}]) for one in (9, 9, *held)])


@pytest.mark.parametrize(
    ("within", "beyond", "name"),
    [
        (epochs(15.0, 10.0, 10.0), epochs(15.5, 10.0, 10.0), "first epoch long"),
        (epochs(2.0, 1.0, 1.0), epochs(2.25, 1.0, 1.0), "first epoch long"),
        (epochs(30.0, 10.0), epochs(30.0, 10.0, 10.0), "first epoch long"),
        (epochs(10.0, 10.0, 10.0, 15.0), epochs(10.0, 10.0, 10.0, 15.5), "epoch stalled"),
        (epochs(1.0, 1.0, 1.0, 2.0), epochs(1.0, 1.0, 1.0, 2.25), "epoch stalled"),
        (epochs(*[10.0] * 4, 30.0, 30.0, 10.0), epochs(*[10.0] * 4, 30.0, 30.0, 10.0, 10.0), "epoch stalled"),
        (ranks(*[(3.0, 0.0)] * 2), ranks(*[(3.25, 0.0)] * 2), "rank out of step"),
        (ranks(*[(9.0, 0.0)] * 3, *[(0.0, 0.0)] * 2), ranks(*[(9.0, 0.0)] * 3, (0.0, 0.0)), "rank out of step"),
        (epochs(20.0, ranks=(9.0,)), epochs(20.0, ranks=(9.0, 0.0)), "rank out of step"),
        (epochs(4.0, wait=1.0), epochs(4.0, wait=1.125), "data-bound"),
        (epochs(0.9375, wait=0.5), epochs(1.0, wait=0.5), "data-bound"),
        (
            readings("clock_mhz", *[1000.0] * 8, 850.0, 849.0),
            readings("clock_mhz", *[1000.0] * 8, 849.0, 849.0),
            "clock throttled",
        ),
        (
            readings("clock_mhz", *[1000.0] * 7, 800.0, 800.0),
            readings("clock_mhz", *[1000.0] * 8, 800.0, 800.0),
            "clock throttled",
        ),
        (
            readings("temperature_c", *[70.0] * 8, 90.0, 89.5),
            readings("temperature_c", *[70.0] * 8, 90.0, 90.0),
            "device hot",
        ),
        (
            readings("temperature_c", *[70.0] * 7, 99.0, 99.0),
            readings("temperature_c", *[70.0] * 8, 99.0, 99.0),
            "device hot",
        ),
        (evaluated(0.9375, 0.25, 0.25, 1.0), evaluated(1.0, 0.25, 0.25, 1.0), "metric slow"),
        (evaluated(1.0, 0.25, 0.75, 1.0), evaluated(1.0, 0.25, 0.5, 1.0), "metric slow"),
        (evaluated(1.0, 0.25, 0.25, 6.0), evaluated(1.0, 0.25, 0.25, 5.75), "metric slow"),
        (saved((1.9375, 10e6)), saved((2.0, 10e6)), "disk slow"),
        (saved((2.0, 60e6)), saved((2.0, 59e6)), "disk slow"),
        (rates(*[100.0] * 7, *[90.0] * 3), rates(*[100.0] * 7, *[89.0] * 3), "throughput drifting"),
        # The rate at step 10 is the first epoch's: with it, the median of the first third would be 100.
        (
            rates(50, 100, 120, 120, *[120] * 3, *[108] * 3),
            rates(50, 100, *[120] * 5, *[105] * 3),
            "throughput drifting",
        ),
        (epochs(*[10.0] * 7, *[11.0] * 3, 0.0), epochs(*[10.0] * 7, *[11.5] * 3, 0.0), "throughput drifting"),
        (skipped(17), skipped(18), "steps skipped"),
        (memory(1000, 1020, 1040, 1064), memory(1000, 1020, 1040, 1065), "memory growing"),
        (memory(2000, 2020, 2040, 2100), memory(2000, 2020, 2040, 2101), "memory growing"),
    ],
)
def test_a_limit_is_met_and_missed(within: Facts, beyond: Facts, name: str) -> None:
    assert find_anomalies(within) == []
    assert [one.name for one in find_anomalies(beyond)] == [name]


def test_the_first_epoch_is_not_judged_with_the_others() -> None:
    waited = [Epoch(1, 10.0, 1, 9.0), Epoch(2, 10.0, 1, 0.0)]
    assert find_anomalies(Facts(epochs=waited)) == []
    assert find_anomalies(ranks((9.0, 0.0), (0.0, 0.0))) == []


def test_the_worst_of_several_is_told() -> None:
    assert find_anomalies(epochs(*[10.0] * 6, 30.0, 40.0)) == [
        Finding(
            "epoch stalled",
            "Epoch 8 took 40.0 s, where the median is 10.0 s; 2 epochs did so. Look for another program on the "
            "machine, or a file system that paused.",
        )
    ]
    assert find_anomalies(saved((2.0, 50e6), (4.0, 60e6), (1.0, 1e6))) == [
        Finding(
            "disk slow",
            "A checkpoint reached the disk at 15.0 MB/s (4.0 s). Put the run's folder on a faster disk, or raise "
            "checkpoint_interval.",
        )
    ]
    losses = [*[10.0] * 12, 20.0, *[10.0] * 12, 30.0]
    assert find_anomalies(Facts(losses=list(enumerate(losses)))) == [
        Finding(
            "loss spike",
            "The loss was 30.00 at step 25, where it had been 10.00; 2 intervals spiked. Look at the learning rate, "
            "the precision, and the images of that step.",
        )
    ]
    top = [2000.0, *[1000.0] * 7, 800.0, 700.0]  # one reading of ten does not count as reached
    assert find_anomalies(readings("clock_mhz", *top)) == [
        Finding(
            "clock throttled",
            "Device 0 ran at 750 MHz in 2 of 10 readings, where it reached 1000 MHz. Look at its temperature and power "
            "limit.",
        )
    ]
    waits = [Epoch(1, 20.0, 1, None, [{"data_wait": one} for one in (4.0, 1.0, 0.0)])]
    assert find_anomalies(Facts(epochs=waits)) == [
        Finding(
            "rank out of step",
            "Rank 0 was the slowest in 1 of 1 epochs; the other ranks waited for it for 18% of their time. Look at its "
            "host: cores, disk, clock.",
        )
    ]
