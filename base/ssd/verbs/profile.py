"""The verb `profile`: a few steps of a config under torch's profiler, as a trace and as a short table in words.

One process trains, so communication is not in it. With --nvtx the steps are only marked with NVTX ranges, one for each
part and operation, for a vendor's own profiler to record.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import profile, record_function, supported_activities

from ssd.compute.ranks import Ranks
from ssd.compute.step import TrainStep
from ssd.config import Resolved
from ssd.config.help import console
from ssd.data import TrainBatch
from ssd.errors import EXIT_REACHED, MachineError
from ssd.measure.one_process import alone, open_run
from ssd.measure.steps import Steps
from ssd.report.profiled import PREFIX, Profile, read_trace
from ssd.run.live import Run, Work
from ssd.run.start import own_folder
from ssd.run.usage import ACTIVITIES
from ssd.text import counted

__all__ = ["profile_command"]

TRACE, PROFILE = "trace.json", "profile.json"
WARM_UP = 2

Function = TypeVar("Function", bound=Callable[..., Any])


def profile_command(resolved: Resolved, *, steps: int, nvtx: bool = False, as_json: bool = False) -> int:
    """Profile `steps` optimizer steps in the folder `output`, and print what was found; exit code 0.

    Raises what a run raises which cannot start, and MachineError for NVTX where torch has none.
    """
    one = alone(resolved)
    config = one.config
    if nvtx and not torch.cuda.is_available():
        raise MachineError("--nvtx needs an accelerator with CUDA's API, and torch sees none here: leave it out")
    with own_folder(config, Ranks()) as folder:
        run = open_run(one, folder)
        train = Steps(run, _part, _in_parts(run.work))
        train.take(WARM_UP)
        if nvtx:
            with torch.autograd.profiler.emit_nvtx():
                train.take(steps)
            sys.stdout.write(f"marked with NVTX ranges: {counted(steps, 'step')}\n")
            return EXIT_REACHED
        with profile(activities=list(supported_activities() & ACTIVITIES), profile_memory=True) as profiler:
            train.take(steps)
        profiler.export_chrome_trace(str(folder / TRACE))
        events = json.loads((folder / TRACE).read_text(encoding="utf-8"))["traceEvents"]
        found = read_trace(events, _waits)
        about = {"name": config.name, "config": config.config, "device": run.device.type, "trace": str(folder / TRACE)}
        text = found.as_json(**about, images_a_step=config.global_batch)
        (folder / PROFILE).write_text(text, encoding="utf-8")
        if as_json:
            sys.stdout.write(text)
        else:
            _show(found, run, folder)
    return EXIT_REACHED


@contextmanager
def _part(name: str) -> Iterator[None]:
    with record_function(PREFIX + name):
        yield


def _named(name: str, function: Function) -> Function:
    """A function that runs in a range."""

    @wraps(function)
    def call(*arguments: Any, **values: Any) -> Any:
        with _part(name):
            return function(*arguments, **values)

    return call  # type: ignore[return-value]


class _Forward(nn.Module):
    """A model whose call runs in the range `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        with _part("forward"):
            return self.model(images)


def _in_parts(work: Work) -> Callable[[TrainBatch, bool], Tensor]:
    """An eager step with a range for each of its parts. A captured one is replayed whole: its range is `replay`."""
    step = work.step
    if work.whole is not None or not isinstance(step, TrainStep):
        return _named("replay", work.micro_batch)
    ops = replace(
        step.ops,
        augment=_named("augment", step.ops.augment),
        encode=_named("encode", step.ops.encode),
        loss=_named("loss", step.ops.loss),
    )
    parts = replace(step, ops=ops, model=_Forward(step.model), backward=_named("backward", step.backward))
    return lambda batch, last: parts(batch)


def _waits(name: str) -> bool:
    """Whether an operation of torch reads a value back to the host, or has a shape that depends on values."""
    space, _, word = name.partition("::")
    packet = getattr(torch.ops.aten, word, None) if space == "aten" and word.isidentifier() else None
    if packet is None or word == "item":  # it calls _local_scalar_dense, which is counted
        return False
    tags = {tag for overload in packet.overloads() for tag in getattr(packet, overload).tags}
    return bool(tags & {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


def _show(found: Profile, run: Run, folder: Path) -> None:
    config, out = run.config, console()
    out.print(
        escape(
            f"{config.name} / {config.config} on {run.device.type}, one process: {counted(found.steps, 'step')} of "
            f"{counted(config.global_batch, 'image')}, {found.step_ms:.1f} ms each"
        )
    )
    on_device = found.device_ms is not None
    parts = Table(title="A step by part", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "ms", "share", *(["ms on the device"] if on_device else []), "peak MiB above the start"):
        parts.add_column(heading, justify="left" if heading == "part" else "right")
    for part in found.parts:
        memory = "" if part.memory_mib is None else f"{part.memory_mib:,.1f}"
        device = [f"{part.device_ms:.2f}"] if part.device_ms is not None else []
        parts.add_row(part.name, f"{part.ms:.2f}", f"{part.ms / found.step_ms:.0%}", *device, memory)
    out.print(parts)
    ops = Table(title="By operation, its own time", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("operation", "ms a step", "times a step"):
        ops.add_column(heading, justify="left" if heading == "operation" else "right", overflow="fold")
    for name, ms, times in found.ops:
        ops.add_row(escape(name), f"{ms:.2f}", f"{times:g}")
    out.print(ops)
    waits = ", ".join(f"{name} {times:g}" for name, times in found.synchronisations.items())
    kind = "launches a step" if on_device else "operations a step, each of which an accelerator would launch"
    out.print(escape(f"host synchronisations a step: {waits or 'none'}"))
    out.print(f"{kind}: {found.launches:g}")
    out.print(escape(f"first to fix: {found.first_to_fix}"), soft_wrap=True)
    out.print(escape(f"trace (Perfetto, chrome://tracing): {folder / TRACE}"), soft_wrap=True)
