"""What metrics.jsonl is told of a run's epochs, evaluations and time, by every rank of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd.account.parts import evaluation_parts
from ssd.account.timeline import rounded
from ssd.compute.device import Abilities
from ssd.run.live import Run
from ssd.run.progress import DelayedRead
from ssd.run.sampling import read_laps

__all__ = ["EpochNotes", "record_account", "record_evaluation"]


class EpochNotes:
    """Notes whole epochs in metrics.jsonl, each when the device has passed its end, so that nothing waits for it.

    `put` keeps what is true at the end of an epoch. `write` writes the epochs whose end has been passed: without `wait`
    all but the newest where the device has timed events, else all. Every rank must call `write` at the same steps. A
    process that is killed leaves at most one epoch unwritten.
    Owner: the main thread.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reader = DelayedRead(run.abilities)

    def put(self, epoch: int, spent: Mapping[str, float]) -> None:
        """Epoch `epoch` has ended. spent: this rank's seconds of it, by part. It does not wait for the device."""
        run = self._run
        known, more = run.scaler.skipped_later()
        about = {
            "time": round(time.time(), 3),
            "epoch": epoch,
            "step": run.position.step,
            "seconds": dict(run.clock.seconds),
            "skipped_steps": known,
            "skipped_images": len(run.loader.skipped),
            "laps": run.sampling.take(),
            "mine": {
                **{name: round(spent.get(name, 0.0), 6) for name in ("data_wait", "step")},
                "memory_mib": _resident_mib(),
                "device_memory_mib": _device_mib(run.abilities),
            },
        }
        self._reader.put(more, about)

    def write(self, wait: bool = True) -> None:
        """Write the epochs whose end the device has passed. wait: all that were put; this waits for the device."""
        for one in self._reader.drain() if wait else self._reader.read():
            self._write(one.about, int(one.value))

    def _write(self, about: dict[str, Any], skipped: int) -> None:
        run, mine = self._run, about.pop("mine")
        sampled = read_laps(*about.pop("laps"))
        mine["forward"] = round(sampled["seconds"].get("forward", 0.0) / max(len(sampled["steps"]), 1), 6)
        ranks = run.ranks.gather((mine, about["skipped_images"]))
        run.records.metrics.write(
            "epoch",
            **{
                **about,
                "skipped_steps": about["skipped_steps"] + skipped,
                "skipped_images": sum(images for _, images in ranks),
                "sampled": {**sampled, "clock": "device" if run.abilities.timed_events else "host"},
                "ranks": [told for told, _ in ranks],
            },
        )


def record_evaluation(
    run: Run,
    epoch: int,
    step: int,
    spent: Mapping[str, float],
    statistics: Mapping[str, float | None],
    **more: float,
) -> None:
    """Note an evaluation after `step` in metrics.jsonl: its twelve numbers, and seconds by part, of every rank.

    more: fields of an evaluation that was scored beside the next steps.
    """
    mine = rounded({name: seconds for name, seconds in spent.items() if name in evaluation_parts()})
    ranks = run.ranks.gather(mine)
    run.records.metrics.write("evaluation", epoch=epoch, step=step, **statistics, seconds=mine, ranks=ranks, **more)


def record_account(run: Run) -> None:
    """Note the parts of this process's time until now in metrics.jsonl; the summary has them until its own writing."""
    timeline = run.clock.timeline
    parts = rounded(timeline.totals())
    run.records.metrics.write("account", wall_s=round(timeline.wall(), 6), parts=parts)


def _resident_mib(status: Path = Path("/proc/self/status")) -> float | None:
    """Memory of this process on the host, in MiB; None where the system does not say."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS:")), None)


def _device_mib(abilities: Abilities) -> float | None:
    """Memory that torch holds on the device, in MiB; None on a CPU, and where its backend does not say."""
    held = abilities.held_bytes
    return None if held is None else round(held / 2**20, 1)
