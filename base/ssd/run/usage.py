"""What a run took of its machine: memory of the devices, cores of the hosts, compiling, and launches of a step.

It is asked once, after run_stop. What a device or a library cannot say is None.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function, supported_activities

from ssd.compute.step import blank_batch
from ssd.report.profiled import PREFIX, STEP, read_trace
from ssd.run.live import Run

__all__ = ["ACTIVITIES", "usage"]

log = logging.getLogger(__name__)

ACTIVITIES = {ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU, ProfilerActivity.PrivateUse1}
"""What torch's profiler is to record, where it can."""
FEW_BOXES = 8


def usage(run: Run, *, ended: bool = True) -> dict[str, Any]:
    """The fields of summary.json that ssd.report.summary.RunSummary explains. Every rank must call it.

    ended: the run came to its end, so that its weights may be spoiled: rank 0 takes one more step, to count launches.
    """
    peak = run.abilities.peak_bytes
    ranks = run.ranks.gather((peak, run.clock.cores()))
    peaks = [one for one, _ in ranks if one is not None]
    compiles = run.config.compile or run.config.cuda_graph
    compiled = round(run.clock.timeline.totals().get("compile", 0.0), 3) if compiles else None
    return {
        "max_memory_allocated_mib": round(max(peaks) / 2**20, 1) if peaks else None,
        "compile_s": compiled,
        "host_cores": round(sum(cores for _, cores in ranks) / len(ranks), 3) if ranks else None,
        "launches_per_step": _launches(run) if ended and run.ranks.is_rank_0 else None,
    }


def _launches(run: Run) -> float | None:
    """Launches of one more optimizer step on a blank batch, as torch's profiler counts them; None where it cannot.

    Rank 0 takes the step alone, so communication is not in it. Where a step cannot do without the other ranks, and on
    the CPU, which launches nothing, there is no number.
    """
    config = run.config
    exchanges = config.bn_group > 1 or config.ddp != "torch" or run.work.whole is not None
    alone = run.ranks.world_size == 1 or not exchanges
    if run.abilities.is_host or not alone:
        return None
    try:
        _take_step(run)  # what is done once, such as allocating momentum, is not counted
        with profile(activities=list(supported_activities() & ACTIVITIES)) as profiler, record_function(PREFIX + STEP):
            _take_step(run)
            run.abilities.synchronize()
        found = read_trace(_events(profiler), lambda name: False)
    except Exception as error:  # another program profiles, or the maker's library cannot: the run has ended well
        log.debug("launches of a step are not known: %s: %s", type(error).__name__, error)
        return None
    return None if found.device_ms is None else found.launches


def _take_step(run: Run) -> None:
    work, count = run.work, run.config.gradient_accumulation_steps
    for micro in range(count):
        batch = blank_batch(run.config.train_batch_size, FEW_BOXES)
        if work.whole is not None and micro + 1 == count:
            work.whole(batch)
            return
        with work.no_sync():
            work.step(batch)
    work.update(alone=True)


def _events(profiler: Any) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return events
