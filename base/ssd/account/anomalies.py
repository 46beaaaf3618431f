"""What is unusual in the course of a run, named in words. Pure functions over Facts, one a kind of trouble.

A limit stands beside each function with its reason. They are wide on purpose: a clean run is never named, so a name is
worth a look. Limits in seconds keep runs of seconds, in which everything jitters, out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from ssd.account.books import lead_times
from ssd.account.facts import Epoch, Facts
from ssd.account.spread import busy, grown, is_rising, shift, spikes, two_groups
from ssd.text import counted

__all__ = ["Finding", "find_anomalies"]


@dataclass(frozen=True)
class Finding:
    """name: the kind of trouble, a few words. words: what was seen, in numbers, and where to look."""

    name: str
    words: str


def find_anomalies(facts: Facts) -> list[Finding]:
    """Everything unusual, in the order of the functions below."""
    return [found for look in LOOKS for found in look(facts)]


LONG, LONG_S = 1.5, 1.0
"""An epoch is long from half as long again as the median one, and a second more: operating systems cost less."""


def _first_epoch(facts: Facts) -> Iterator[Finding]:
    if len(facts.epochs) < 3:
        return
    first, usual = facts.epochs[0], _usual(facts.epochs[1:])
    expected = usual * first.steps
    if first.seconds > LONG * expected and first.seconds > expected + LONG_S:
        yield Finding(
            "first epoch long",
            f"Epoch {first.number} took {first.seconds:.1f} s, where the median of the others is {expected:.1f} s: "
            f"{first.seconds - expected:.1f} s were lost. Look for compiling, cold files, or kernels being chosen.",
        )


def _usual(epochs: Sequence[Epoch]) -> float:
    """The median time of a step, in seconds."""
    return median(one.seconds / one.steps for one in epochs)


def _long_epochs(facts: Facts) -> Iterator[Finding]:
    """A few stalled epochs. Where many are long, the rate has two groups or drifts."""
    if len(facts.epochs) < 4:
        return
    usual = _usual(facts.epochs[1:])
    long = [
        one
        for one in facts.epochs[1:]
        if one.seconds > LONG * usual * one.steps and one.seconds > usual * one.steps + LONG_S
    ]
    if long and len(long) <= len(facts.epochs) // 4:
        worst = max(long, key=lambda one: one.seconds / one.steps)
        yield Finding(
            "epoch stalled",
            f"Epoch {worst.number} took {worst.seconds:.1f} s, where the median is {usual * worst.steps:.1f} s"
            + (f"; {len(long)} epochs did so." if len(long) > 1 else ".")
            + " Look for another program on the machine, or a file system that paused.",
        )


OUT_OF_STEP = 0.15
"""A rank is out of step when the others wait for it for 15% of their epochs: less is the usual spread of images."""


def _rank_out_of_step(facts: Facts) -> Iterator[Finding]:
    epochs = [one for one in facts.epochs[1:] or facts.epochs if len(one.ranks) > 1]
    waits: dict[int, list[float]] = {}
    for epoch in epochs:
        times = lead_times(epoch)
        slowest = max(range(len(times)), key=times.__getitem__)
        others = median(seconds for rank, seconds in enumerate(times) if rank != slowest)
        if times[slowest] - others > OUT_OF_STEP * epoch.seconds:
            waits.setdefault(slowest, []).append((times[slowest] - others) / epoch.seconds)
    for rank, shares in waits.items():
        if 2 * len(shares) > len(epochs):
            yield Finding(
                "rank out of step",
                f"Rank {rank} was the slowest in {len(shares)} of {len(epochs)} epochs; the other ranks waited for it "
                f"for {median(shares):.0%} of their time. Look at its host: cores, disk, clock.",
            )


DATA_BOUND = 0.25
"""A run is data-bound when a quarter of its training waits for batches. A loader that keeps up waits 0 to 5%."""


def _data_bound(facts: Facts) -> Iterator[Finding]:
    epochs = [one for one in facts.epochs[1:] or facts.epochs if one.data_wait is not None]
    trained = sum(one.seconds for one in epochs)
    waited = sum(one.data_wait or 0.0 for one in epochs)
    if trained >= LONG_S and waited > DATA_BOUND * trained:
        yield Finding(
            "data-bound",
            f"Training waited for batches for {waited / trained:.0%} of its time ({waited:.1f} of {trained:.1f} s). "
            "Raise num_workers, take a faster data_backend (docs/loaders.md), or look at the disk.",
        )


THROTTLED, THROTTLED_SHARE = 0.85, 0.1
"""A clock is throttled below 85% of what it reached itself, in a tenth of the busy readings: boost varies by 10%."""


def _throttled_clock(facts: Facts) -> Iterator[Finding]:
    for device, readings in busy(facts.telemetry, "clock_mhz").items():
        top = sorted(readings)[int(0.95 * (len(readings) - 1))]
        low = [clock for clock in readings if clock < THROTTLED * top]
        if len(readings) >= 10 and len(low) > THROTTLED_SHARE * len(readings):
            yield Finding(
                "clock throttled",
                f"Device {device} ran at {median(low):.0f} MHz in {len(low)} of {len(readings)} readings, where it "
                f"reached {top:.0f} MHz. Look at its temperature and power limit.",
            )


HOT_C, HOT_SHARE = 90.0, 0.1
"""Accelerators lower their clock between 83 and 95 degrees; 90 for a tenth of the run leaves no margin."""


def _hot(facts: Facts) -> Iterator[Finding]:
    for device, readings in busy(facts.telemetry, "temperature_c").items():
        hot = [value for value in readings if value >= HOT_C]
        if len(readings) >= 10 and len(hot) > HOT_SHARE * len(readings):
            yield Finding(
                "device hot",
                f"Device {device} was at {max(hot):.0f} degrees Celsius at most, and at {HOT_C:.0f} or more in "
                f"{len(hot)} of {len(readings)} readings. Look at its cooling.",
            )


def _evaluation_grew(facts: Facts) -> Iterator[Finding]:
    """The first one is left out: it opens the images."""
    times = [one.seconds for one in facts.evaluations]
    if (place := grown(times, LONG, LONG_S)) is not None:
        yield Finding(
            "evaluation grew",
            f"The evaluation after epoch {facts.evaluations[place].epoch} took {times[place]:.1f} s, where those "
            f"before it took {median(times[:place]):.1f} s. Look at its parts in the account.",
        )


METRIC_SHARE = 0.1
"""The metric is slow when it takes a tenth of the run and more than the network: COCO's takes seconds of minutes."""


def _metric_slow(facts: Facts) -> Iterator[Finding]:
    metric = sum(one.parts.get("eval_metric", 0.0) for one in facts.evaluations)
    network = sum(one.parts.get("eval_forward", 0.0) + one.parts.get("eval_detect", 0.0) for one in facts.evaluations)
    whole = sum(one.seconds for one in facts.evaluations) + sum(one.seconds for one in facts.epochs)
    if metric >= LONG_S and metric > network and metric > METRIC_SHARE * whole:
        yield Finding(
            "metric slow",
            f"COCO's metric took {metric:.1f} s in {counted(len(facts.evaluations), 'evaluation')}, the network "
            f"{network:.1f} s. Every rank waits. Set coco_metric = hotcoco, or see what else runs on rank 0's host.",
        )


def _checkpoint_grew(facts: Facts) -> Iterator[Finding]:
    times = [seconds for seconds, _ in facts.checkpoints]
    if (place := grown(times, 2.0, LONG_S)) is not None:
        yield Finding(
            "checkpoint grew",
            f"Checkpoint {place + 1} took {times[place]:.1f} s, where those before it took {median(times[:place]):.1f} "
            "s. Look at the disk of the run's folder.",
        )


SLOW_DISK, SLOW_DISK_S = 30e6, 2.0
"""30 MB/s: a quarter of one spinning disk. A checkpoint has 160 MB, so less than 2 s say nothing."""


def _disk_slow(facts: Facts) -> Iterator[Finding]:
    slow = [(size / seconds, seconds) for seconds, size in facts.checkpoints if seconds >= SLOW_DISK_S]
    slow = [one for one in slow if one[0] < SLOW_DISK]
    if slow:
        rate, seconds = min(slow)
        yield Finding(
            "disk slow",
            f"A checkpoint reached the disk at {rate / 1e6:.1f} MB/s ({seconds:.1f} s). Put the run's folder on a "
            "faster disk, or raise checkpoint_interval.",
        )


DRIFT = 0.1
"""Throughput drifts when the last third of the run is a tenth slower than the first one."""


def _drift(facts: Facts) -> Iterator[Finding]:
    if (thirds := shift(_rates(facts))) and thirds[1] < (1 - DRIFT) * thirds[0]:
        yield Finding(
            "throughput drifting",
            f"Throughput fell from {thirds[0]:.1f} images/s in the first third of the run to {thirds[1]:.1f} in the "
            "last. Look at temperatures, memory, and other programs.",
        )


def _two_rates(facts: Facts) -> Iterator[Finding]:
    if groups := two_groups(_rates(facts)):
        low, high, share = groups
        yield Finding(
            "throughput in two groups",
            f"Throughput is {high:.1f} images/s or {low:.1f}, and little between; the slow group is {share:.0%} of the "
            "intervals. Look for what comes and goes: another job, a power limit, a data cache that is too small.",
        )


def _rates(facts: Facts) -> list[float]:
    """Images/s of each interval of the run but the first epoch's; without intervals, epochs/s of each epoch."""
    if facts.rates:
        first = facts.epochs[0].steps if facts.epochs else 0
        return [rate for step, rate in facts.rates if step > first]
    return [one.steps / one.seconds for one in facts.epochs[1:] if one.seconds > 0]


SPIKE = 1.5
"""A loss spikes at 1.5 times the median of the 12 intervals before it, where that is 8 of their usual distances off."""


def _loss_spikes(facts: Facts) -> Iterator[Finding]:
    found = spikes([loss for _, loss in facts.losses], SPIKE)
    if found:
        place, middle = max(found, key=lambda one: facts.losses[one[0]][1] / one[1])
        step, loss = facts.losses[place]
        yield Finding(
            "loss spike",
            f"The loss was {loss:.2f} at step {step}, where it had been {middle:.2f}"
            + (f"; {len(found)} intervals spiked." if len(found) > 1 else ".")
            + " Look at the learning rate, the precision, and the images of that step.",
        )


SCALE_SEARCH, SKIPPED_SHARE = 16, 0.01
"""fp16 halves its loss scale from 2^16, at most 16 times, to find it; after that about one step in 2,000 overflows."""


def _skipped_steps(facts: Facts) -> Iterator[Finding]:
    skipped = facts.epochs[-1].skipped_steps if facts.epochs else 0
    if skipped - SCALE_SEARCH > SKIPPED_SHARE * facts.last_step:
        yield Finding(
            "steps skipped",
            f"{skipped} of {facts.last_step} steps were skipped, as their fp16 gradients overflowed. Try bf16, or a "
            "lower learning rate.",
        )


def _skipped_images(facts: Facts) -> Iterator[Finding]:
    if facts.epochs and (skipped := facts.epochs[-1].skipped_images):
        yield Finding("images skipped", f"{counted(skipped, 'image')} could not be decoded. Check data_dir.")


LEAK, LEAK_MIB = 0.05, 64.0
"""Memory grows when it does in four of five epochs, by 5% and 64 MiB in all; allocators settle in the first epochs."""


def _memory(facts: Facts) -> Iterator[Finding]:
    settled = [one for one in facts.epochs[2:] if one.ranks]
    for name, where in (("memory_mib", "host"), ("device_memory_mib", "device")):
        for rank in range(min((len(one.ranks) for one in settled), default=0)):
            held = [value for one in settled if (value := one.ranks[rank].get(name)) is not None]
            if is_rising(held) and held[-1] - held[0] > max(LEAK * held[0], LEAK_MIB):
                yield Finding(
                    "memory growing",
                    f"The {where} memory of rank {rank} grew from {held[0]:.0f} to {held[-1]:.0f} MiB in {len(held)} "
                    "epochs. It will run out in a long run.",
                )


LOOKS = (
    _first_epoch,
    _long_epochs,
    _rank_out_of_step,
    _data_bound,
    _throttled_clock,
    _hot,
    _evaluation_grew,
    _metric_slow,
    _checkpoint_grew,
    _disk_slow,
    _drift,
    _two_rates,
    _loss_spikes,
    _skipped_steps,
    _skipped_images,
    _memory,
)
