"""`python -m ssd check`: everything that can be checked before a run, as a table, and how much work the run is.

Every row is checked even where an earlier row failed. The exit code is that of the first failed row. No image is
decoded. An accelerator computes one narrow step and evaluation batch, which are compared with the CPU's.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from ssd.config import Config, Resolved, require_run_keys
from ssd.config.folders import ROOT
from ssd.conformance import device_checks
from ssd.console import console
from ssd.counts import evaluation_epochs, last_step, steps_per_epoch
from ssd.data.annotations import sha256_of
from ssd.data.decoded_cache import planned
from ssd.data.folder import SPLITS, TRAIN, VAL, annotation_file
from ssd.data.index import Index, check_categories, clipped_words
from ssd.data.index_cache import load_index
from ssd.data.loader import eval_rows
from ssd.errors import EXIT_BAD_DATA, EXIT_MACHINE, EXIT_REACHED, DataError, SsdError, as_ssd_error
from ssd.mlperf.limits import TRAIN_SAMPLES, forbidden_in_closed
from ssd.model import build_model
from ssd.model.weights import BACKBONE_SHA256
from ssd.plan.how_long import how_long, source_here
from ssd.prepare.coco_folder import check_split, shared_images, shared_words
from ssd.run.evaluation import input_channels
from ssd.run.facts import run_facts
from ssd.run.schedule import applied_learning_rate
from ssd.text import counted, visible
from ssd.vendor import Check, Vendor, load_vendor, require_own_sizes, select_ops
from ssd.verbs.perfect import perfect_detector

__all__ = ["preflight", "rows"]

LOG_BYTES = 2**30
"""The free space that a run's folder needs besides its checkpoints: logs, pictures, pages."""


@dataclass(frozen=True)
class Row:
    """A check, and the exit code of a run that would fail it."""

    check: Check
    exit_code: int = EXIT_REACHED


def preflight(resolved: Resolved, as_json: bool = False) -> int:
    """Print the table, or the rows as a flat list of JSON; the exit code of the first failed row, 0 without one."""
    found = list(rows(resolved))
    code = next((row.exit_code for row in found if not row.check.ok), EXIT_REACHED)
    if as_json:
        listed = [{**asdict(row.check), "exit_code": EXIT_REACHED if row.check.ok else row.exit_code} for row in found]
        sys.stdout.write(json.dumps(listed, indent=1) + "\n")
        return code
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("", "checked", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for row in found:
        mark = "[green]ok[/green]" if row.check.ok else "[red]FAILED[/red]"
        remedy = "" if row.check.ok else row.check.remedy
        table.add_row(mark, *(escape(visible(text)) for text in (row.check.what, row.check.found, remedy)))
    console().print(table)
    return code


def rows(resolved: Resolved) -> Iterator[Row]:
    """Every check of a run, in the order in which a run would fail."""
    config = resolved.config
    yield from _guarded("keys of a run", lambda: _keys(resolved))
    vendor = load_vendor(config.name)
    yield from _guarded("sizes on another device", lambda: _sizes(vendor, resolved))
    yield from _guarded("the machine", lambda: vendor.checks(config), EXIT_MACHINE)
    yield from _guarded("kernels", lambda: _kernels(vendor, config))
    yield from _guarded("the device", lambda: device_checks(vendor, config), EXIT_MACHINE)
    yield from _guarded("library versions", lambda: [_libraries(ROOT / "requirements.txt")], EXIT_MACHINE)
    yield from _guarded("disk", lambda: [_disk(config)], EXIT_MACHINE)
    if config.pretrained and config.backbone_path is not None:
        yield from _guarded("backbone", lambda: [_backbone(config)])
    if vendor.device_of(config) == "cpu":
        yield Row(_processes(config, len(os.sched_getaffinity(0))))
    samples = config.synthetic_samples if config.data_backend == "synthetic" else None
    if config.data_backend != "synthetic" and config.data_dir is not None:
        indexes: dict[str, Index] = {}
        yield from _guarded("data", lambda: _data(config, indexes))
        if VAL in indexes:
            yield from _guarded("metric", lambda: [perfect_detector(config, indexes[VAL])])
        if TRAIN not in indexes:
            return
        samples = len(indexes[TRAIN].with_boxes())
        if config.decoded_cache is not None:
            yield from _guarded("decoded images", lambda: [_decoded(config, indexes[TRAIN])], EXIT_MACHINE)
        if config.division == "closed" and VAL in indexes:
            yield from _guarded("closed division", lambda: [_closed(config, indexes[TRAIN], indexes[VAL])])
    if samples != 0:
        yield Row(_amount(config, samples))
        yield from _guarded("how long", lambda: [_how_long(config, samples)])


def _guarded(what: str, look: Callable[[], Iterable[Check]], exit_code: int = EXIT_BAD_DATA) -> Iterator[Row]:
    """The rows of the checks that `look` returns, or one failed row where `look` raises an error.

    exit_code: that of a failed check. An error of the file system becomes a failed row too, so that the next rows are
    checked all the same.
    """
    try:
        yield from [Row(check, exit_code) for check in look()]
    except (SsdError, OSError) as error:
        known = as_ssd_error(error)
        if known is None:
            yield Row(Check(what, False, f"{type(error).__name__}: {error}", "mend or name another file"), exit_code)
        else:
            yield Row(Check(what, False, str(known)), known.exit_code)


def _keys(resolved: Resolved) -> list[Check]:
    require_run_keys(resolved.config)
    config = resolved.config
    given = sum(origin != "default" for origin in resolved.provenance.values())
    found = f"{config.name} {config.config}: {given} of {len(resolved.provenance)} keys differ from the defaults"
    return [Check("keys of a run", True, found)]


def _sizes(vendor: Vendor, resolved: Resolved) -> list[Check]:
    """Raise ConfigError where a run on another device than the vendor's lacks sizes of its own. There is no row."""
    require_own_sizes(vendor, resolved)
    return []


def _kernels(vendor: Vendor, config: Config) -> list[Check]:
    lines = select_ops(vendor, config)[1]
    return [Check("kernels", True, "; ".join(lines) or "the reference for all")]


def _libraries(requirements: Path) -> Check:
    """Compare the installed versions with the ranges of requirements.txt."""
    wrong, count = [], 0
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        count += 1
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is not installed, {wanted.specifier} is asked for")
            continue
        # A vendor's build is a local or pre-release version (2.4.1+corex, 0.19.1a0) and counts as its release.
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} is {version}, {wanted.specifier} is asked for")
    found = "; ".join(wrong) or f"{counted(count, 'library', 'libraries')} in range, torch {torch.__version__}"
    return Check("library versions", not wrong, found, f"pip install -r {requirements}")


def _disk(config: Config) -> Check:
    """The free space on the disk of the run's folder."""
    folder = config.output or Path.cwd()
    while not folder.exists():
        folder = folder.parent
    free, kept = shutil.disk_usage(folder).free, 4 if config.keep_best else 3  # one of them is being written
    one = _checkpoint_bytes(config)
    asked = kept * one + LOG_BYTES
    found = (
        f"{free / 2**30:.1f} GiB free, {asked / 2**30:.1f} GiB asked for: {kept} checkpoints of {one / 2**20:.0f} MiB "
        "while one is written, logs, pictures"
    )
    return Check(f"disk of {folder}", free >= asked, found, "free some, or name another --output")


def _checkpoint_bytes(config: Config) -> int:
    """The bytes of a checkpoint: a float32 weight and its momentum for each parameter."""
    model, _ = build_model(
        seed=0, num_classes=config.num_classes, width=config.width, in_channels=input_channels(config)
    )
    return 2 * 4 * sum(one.numel() for one in model.parameters())


def _backbone(config: Config) -> Check:
    """Whether the file fits the backbone, and is the benchmark's own file where the division requires that."""
    assert config.backbone_path is not None
    digest = build_model(seed=0, backbone_path=config.backbone_path)[1]
    same = digest == BACKBONE_SHA256
    found = f"{config.backbone_path}: sha256 {str(digest)[:8]}..., {'the' if same else 'not the'} benchmark's reference"
    remedy = "a closed result needs resnet34-333f7ec4.pth: prepare fetches it; or set division = open"
    return Check("backbone", same or config.division == "open", found, remedy)


def _data(config: Config, indexes: dict[str, Index]) -> list[Check]:
    """Whether annotations parse and list the same categories, and each image is there and complete.

    indexes: filled with the index of each split that parses. Everything is checked, and one error names all problems.
    """
    assert config.data_dir is not None
    problems: list[SsdError] = []
    for split in SPLITS:
        try:
            indexes[split] = load_index(annotation_file(config.data_dir, split), config.cache_dir)
        except SsdError as error:
            problems.append(error)
    if len(indexes) == len(SPLITS):
        try:
            check_categories(indexes[TRAIN], indexes[VAL], config.num_classes)
        except SsdError as error:
            problems.append(error)
    remarks = []
    for split, index in indexes.items():
        report = check_split(config.data_dir, split, index, num_workers=config.num_workers)
        problems += [DataError(f"{line}; restore or mend these files") for line in report.faults()]
        if report.clipped:
            remarks.append(f"{split}: {clipped_words(report.clipped, report.annotations)}")
        if not report.with_boxes and split == TRAIN:
            problems.append(DataError(f"{index.source}: no image has a box with a size; there is nothing to train on"))
    if problems:
        raise type(problems[0])("; ".join(map(str, problems)))
    train, val = indexes[TRAIN], indexes[VAL]
    counts = f"{len(train.with_boxes()):,} of {len(train):,} training images have a box"
    shared = shared_words(shared_images(config.data_dir, train, val, config.num_workers))
    evaluated = f"{len(eval_rows(val, config.eval_images)):,} of {len(val):,} validation images are evaluated"
    return [Check("data", True, "; ".join([counts, evaluated, *remarks, *([shared] if shared else [])]))]


def _decoded(config: Config, train: Index) -> Check:
    """The size of the decoded images, and the room for them."""
    assert config.decoded_cache is not None
    assert config.data_dir is not None
    found = planned(config.decoded_cache, train, train.with_boxes(), config.data_dir / TRAIN)
    return Check("decoded images", True, found)


def _closed(config: Config, train: Index, val: Index) -> Check:
    """What the closed division forbids, by the same rules by which a campaign and a package are checked."""
    counts = len(train.with_boxes()), len(eval_rows(val, config.eval_images))
    digest = sha256_of(config.backbone_path) if config.pretrained and config.backbone_path else None
    forbidden = forbidden_in_closed(run_facts(config, config.seed or 0, *counts, digest), config.ruleset)
    if config.seed is not None:
        forbidden.append(f"seed = {config.seed}: every run of a result draws a seed of its own; leave the key out")
    found = "; ".join(forbidden) or f"ruleset {config.ruleset} forbids none of the hyper-parameters"
    return Check("closed division", not forbidden, found, "change these keys, or set division = open")


def _processes(config: Config, cores: int) -> Check:
    """How a run is spread over the cores of a CPU, and the way that bench/processes.py found to be the faster one."""
    processes = config.nproc_per_node
    threads = max(1, cores // processes)
    found = f"{counted(processes, 'process', 'processes')} of {counted(threads, 'thread')}, {counted(cores, 'core')}"
    if threads > 1:
        found += (
            f"; --nproc_per_node {cores} with a train_batch_size of 1/{threads} is as much a step. On two cores that "
            "made 1.1 to 1.25 times the images/s (docs/performance.md); more cores have not been tried"
        )
    return Check("processes", True, found)


def _amount(config: Config, samples: int | None) -> Check:
    """The most work that the run can be, since it stops at the target. samples: None where no data is named."""
    unknown = samples is None
    samples = TRAIN_SAMPLES[0] if samples is None else samples
    steps = steps_per_epoch(samples, config.global_batch)
    last = last_step(config.epochs, steps, config.max_steps)
    due = evaluation_epochs(config.epochs, config.eval_epochs, config.eval_interval)
    evaluations = sum(epoch * steps <= last for epoch in due)
    found = (
        f"{counted(samples, 'image')}, {config.global_batch:,} a step, {counted(steps, 'step')} an epoch; at most "
        f"{counted(last, 'step')} and {counted(evaluations, 'evaluation')}; learning rate "
        f"{applied_learning_rate(config):g} after {counted(config.warmup, 'step')}"
    )
    if unknown:
        found = f"unknown without data_dir; on COCO 2017 it is {found}"
    return Check("the run", True, found)


def _how_long(config: Config, samples: int | None) -> Check:
    """What the run takes, by the numbers of `plan`. samples: None where no data is named: those of COCO 2017."""
    source = source_here(config, TRAIN_SAMPLES[0] if samples is None else samples)
    return Check("how long", True, how_long(config, source))
