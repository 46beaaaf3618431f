"""What `bench` found, for people: a table, what limits a run, cores to feed an accelerator, and a config to paste."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ssd.console import console
from ssd.measure.disk import DiskRead
from ssd.measure.limits import FULL, Figures, cores_for, host_rates, workers_for
from ssd.measure.settings import Trial
from ssd.text import counted

__all__ = ["Found", "as_json", "config_lines", "show"]

FASTER = (500, 1000, 2500, 5000)
"""Images/s of accelerators for which the cores are said besides this one."""


@dataclass(frozen=True)
class Found:
    """Everything that one `bench` found. num_workers: of the config. device: as torch names its type.

    trials, chosen: see `ssd.measure.settings.search`. row: as it is kept, in the file `kept`. before: the row that it
    is compared with, None where there is none; behind: the parts that are behind it (`ssd.measure.limits.fallen`).
    """

    device: str
    num_workers: int
    figures: Figures
    disk: DiskRead
    trials: Sequence[Trial]
    chosen: Mapping[str, Any]
    row: Mapping[str, Any]
    before: Mapping[str, Any] | None
    behind: Sequence[tuple[str, float]]
    kept: Path


def as_json(found: Found) -> str:
    """The row with what it means: limits, num_workers, trials, settings, and the comparison."""
    content = {
        **found.row,
        "images_per_s_of_host": host_rates(found.figures),
        "cores": found.figures.cores,
        "all_reduce_s": found.figures.all_reduce_s,
        "read_from_memory": found.disk.in_memory,
        "trials": [asdict(one) for one in found.trials],
        "set": {**found.chosen, "num_workers": workers_for(found.figures)},
        "reference": found.before and {key: found.before[key] for key in ("date", "commit", "load", "figures")},
        "behind": dict(found.behind),
    }
    return json.dumps(content, indent=1) + "\n"


def show(found: Found) -> None:
    """Print it to standard output."""
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "measured", "how", "beside the reference"):
        table.add_column(heading, overflow="fold")
    before = found.before["figures"] if found.before else {}
    for name, (title, words, how) in _parts(found).items():
        now, then = found.figures.parts()[name], before.get(name)
        beside = f"{now / then:.0%}{' (behind)' if now < FULL * then else ''}" if now and then else ""
        table.add_row(*map(escape, (title, words, how, beside)))
    out.print(table)
    for line in _lines(found):
        out.print(escape(line), soft_wrap=True)
    for line in config_lines(found):
        out.print(escape(line), soft_wrap=True)


def _parts(found: Found) -> dict[str, tuple[str, str, str]]:
    """Each part by its name in a row: its title, its figure in words, and how it was measured."""
    one, disk = found.figures, found.disk
    memory = "" if disk.in_memory is None else f"; {disk.in_memory:.0%} were in memory"
    unknown = "; whether they were in memory is unknown" if disk.in_memory is None else ""
    copied = "the device is the host" if one.copy is None else f"{one.copy / 1e9:.2f} GB/s"
    averaged = "n/a"
    alone = "one process: --nproc_per_node N measures it"
    if one.all_reduce is not None and one.all_reduce_s is not None:
        averaged = f"{one.all_reduce / 1e9:.2f} GB/s, {one.all_reduce_s * 1000:.1f} ms"
        alone = f"{one.devices} processes, all gradients, nothing beside it"
    images = str(found.row["images"])
    pictures = "made pictures of COCO's size" if images == "made" else "training images of data_dir"
    return {
        "decode_core": ("decoding, one core", f"{one.decode_core:.1f} images/s", f"{pictures}; its CPU time"),
        "decode_all": ("decoding, all cores", f"{one.decode_all:.1f} images/s", counted(one.cores, "thread")),
        "read": (
            "reading files",
            f"{disk.bytes_per_s / 1e6:.0f} MB/s, {one.read:.0f} images/s",
            f"{counted(disk.files, 'file')} by {counted(found.num_workers, 'thread')}{memory}{unknown}",
        ),
        "copy": ("copy to the device", copied, "batches of uint8"),
        "step": ("steps without loader", f"{one.step:.2f} images/s", f"one device, {one.batch} images a step"),
        "data_step": ("steps with loader", f"{one.data_step:.2f} images/s", "the same, on the images"),
        "evaluation": ("evaluation", f"{one.evaluation:.2f} images/s", "one device: forward, detect, metric"),
        "all_reduce": ("all-reduce", averaged, alone),
    }


def _lines(found: Found) -> Iterator[str]:
    """What the figures mean, one sentence a line."""
    figures = found.figures
    rates = host_rates(figures)
    (least, rate), *others = rates.items()
    yield ""
    host = f"this host and its {counted(figures.devices, 'device')}" if not figures.shares_cores else "this host"
    yield f"{least} limit {host}: {rate:.1f} images/s; then {', '.join(f'{name} {one:.0f}' for name, one in others)}."
    cores = cores_for(figures.step, figures.decode_core)
    yield f"One device takes {counted(cores, 'core')} for decoding; this host has {figures.cores}."
    faster = ", ".join(f"{one} images/s: {cores_for(one, figures.decode_core)}" for one in FASTER)
    yield f"Cores like these for an accelerator of {faster}."
    for trial in found.trials:
        said = trial.why if trial.images_per_s is None else f"{trial.images_per_s:.2f} images/s"
        yield f"tried {trial.key} = {_toml(trial.value)}: {said}{', kept' if trial.kept else ''}"
    if found.before is None:
        yield f"No earlier row of such a machine with these keys: this one is kept in {found.kept}."
        return
    when = f"the row of {found.before['date']} (load {found.before['load']})"
    if found.behind:
        parts = ", ".join(f"{_parts(found)[name][0]} ({share:.0%})" for name, share in found.behind)
        yield f"Below {FULL:.0%} of {when}: {parts}."
    else:
        yield f"Every part has at least {FULL:.0%} of {when}."


def config_lines(found: Found) -> Iterator[str]:
    """A config file to paste: what was chosen here, and the number of decoding threads."""
    row = found.row
    yield ""
    yield f"# config/mine.toml of the vendor {row['keys']['name']}, measured on {row['date']}"
    yield f'extends = "{row["keys"]["config"]}"'
    for key, value in {**found.chosen, "num_workers": workers_for(found.figures)}.items():
        yield f"{key} = {_toml(value)}"
        if key == "train_batch_size":
            yield "# Another batch is another run: its learning rate and warm-up must fit (base/config/batch-*.toml)."


def _toml(value: Any) -> str:
    return json.dumps(value)
