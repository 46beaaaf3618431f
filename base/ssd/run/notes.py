"""What metrics.jsonl is told of a run's epochs, evaluations and time, by every rank of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssd.account.parts import evaluation_parts
from ssd.account.timeline import rounded
from ssd.compute.device import Abilities
from ssd.run.setup import Run

__all__ = ["record_account", "record_epoch", "record_evaluation"]


def record_epoch(run: Run, epoch: int, spent: Mapping[str, float]) -> None:
    """Note a whole epoch in metrics.jsonl, with what each rank says of it. spent: this rank's seconds, by part."""
    sampled = run.sampling.take()
    mine = {
        **{name: round(spent.get(name, 0.0), 6) for name in ("data_wait", "step")},
        "forward": round(sampled["seconds"].get("forward", 0.0) / max(len(sampled["steps"]), 1), 6),
        "memory_mib": _resident_mib(),
        "device_memory_mib": _device_mib(run.abilities),
    }
    ranks = run.ranks.gather((mine, len(run.loader.skipped)))
    run.records.metrics.write(
        "epoch",
        epoch=epoch,
        step=run.position.step,
        skipped_steps=run.scaler.skipped(),
        skipped_images=sum(skipped for _, skipped in ranks),
        seconds=dict(run.clock.seconds),
        sampled={**sampled, "clock": "device" if run.abilities.timed_events else "host"},
        ranks=[told for told, _ in ranks],
    )


def record_evaluation(run: Run, epoch: int, spent: Mapping[str, float], statistics: Mapping[str, float | None]) -> None:
    """Note an evaluation in metrics.jsonl: its twelve numbers, and seconds by part, of rank 0 and of every rank."""
    mine = rounded({name: seconds for name, seconds in spent.items() if name in evaluation_parts()})
    ranks = run.ranks.gather(mine)
    run.records.metrics.write(
        "evaluation", epoch=epoch, step=run.position.step, **statistics, seconds=mine, ranks=ranks
    )


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
