"""`python -m ssd check`: everything that can be known before a run, as a table, and how much the run will do.

Each row is looked at even where an earlier one failed; the exit code is that of the first failed row. Nothing is
trained, and no image is decoded.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from ssd.config import Config, Resolved, require_run_keys
from ssd.config.folders import ROOT
from ssd.config.help import console
from ssd.counts import evaluation_epochs, last_step, steps_per_epoch
from ssd.data import EvalBatch
from ssd.data.index import Index, check_categories, ground_truth
from ssd.data.index_cache import load_index
from ssd.data.loader import eval_rows
from ssd.errors import EXIT_BAD_DATA, EXIT_MACHINE, EXIT_REACHED, SsdError
from ssd.model import build_model
from ssd.model.weights import BACKBONE_SHA256
from ssd.ops import Detections
from ssd.prepare.coco_folder import SPLITS, annotation_file, check_folder
from ssd.run.evaluation import detection_rows, score
from ssd.run.schedule import applied_learning_rate
from ssd.run.sources import EvalSource
from ssd.vendor import Check, Vendor, load_vendor, require_own_sizes, select_ops

__all__ = ["preflight", "rows"]

DISK_BYTES = 2 * 2**30
"""Free space a run's folder should have: two checkpoints of 240 MB while one replaces the other, logs and pictures."""
PERFECT = 0.999
"""Least AP of the ground truth fed back: a box that sticks out of its image is clipped, and loses part of a pixel."""


@dataclass(frozen=True)
class Row:
    """A check, and the exit code of a run that fails it."""

    check: Check
    exit_code: int = EXIT_REACHED


def preflight(resolved: Resolved) -> int:
    """Print the table; the exit code of the first failed row, 0 where there is none."""
    found = list(rows(resolved))
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("", "checked", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for row in found:
        mark = "[green]ok[/green]" if row.check.ok else "[red]FAILED[/red]"
        remedy = "" if row.check.ok else row.check.remedy
        table.add_row(mark, escape(row.check.what), escape(row.check.found), escape(remedy))
    console().print(table)
    return next((row.exit_code for row in found if not row.check.ok), EXIT_REACHED)


def rows(resolved: Resolved) -> Iterator[Row]:
    """Every check of a run, in the order a run would fail."""
    config = resolved.config
    yield from _guarded("keys of a run", lambda: _keys(resolved))
    vendor = load_vendor(config.name)
    yield from _guarded("sizes on another device", lambda: _sizes(vendor, resolved))
    yield from (Row(check, EXIT_MACHINE) for check in vendor.checks(config))
    yield from _guarded("kernels", lambda: _kernels(vendor, config))
    yield Row(_libraries(ROOT / "requirements.txt"), EXIT_MACHINE)
    yield Row(_disk(config), EXIT_MACHINE)
    if config.pretrained and config.backbone_path is not None:
        yield from _guarded("backbone", lambda: [_backbone(config)])
    samples = config.synthetic_samples
    if config.data_backend != "synthetic" and config.data_dir is not None:
        indexes: list[Index] = []
        yield from _guarded("data", lambda: _data(config, indexes))
        if not indexes:
            return
        yield from _guarded("metric", lambda: [_perfect_detector(config, indexes[1])])
        samples = len(indexes[0].with_boxes())
    yield Row(_amount(config, samples))


def _guarded(what: str, look: Callable[[], list[Check]]) -> Iterator[Row]:
    """Rows of `look`, which all hold; or one failed row for the error it raises. Its message holds the remedy."""
    try:
        yield from [Row(check, EXIT_BAD_DATA) for check in look()]
    except SsdError as error:
        yield Row(Check(what, False, str(error)), error.exit_code)


def _keys(resolved: Resolved) -> list[Check]:
    require_run_keys(resolved.config)
    config = resolved.config
    given = sum(origin != "default" for origin in resolved.provenance.values())
    found = f"{config.name} {config.config}: {given} of {len(resolved.provenance)} keys differ from the defaults"
    return [Check("keys of a run", True, found)]


def _sizes(vendor: Vendor, resolved: Resolved) -> list[Check]:
    """No row where all is well: only a run on another device than the vendor's has sizes to give."""
    require_own_sizes(vendor, resolved)
    return []


def _kernels(vendor: Vendor, config: Config) -> list[Check]:
    lines = select_ops(vendor, config)[1]
    return [Check("kernels", True, "; ".join(lines) or "the reference for all four")]


def _libraries(requirements: Path) -> Check:
    """Installed versions against the ranges of requirements.txt."""
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
    found = "; ".join(wrong) or f"{count} libraries in range, torch {torch.__version__}"
    return Check("library versions", not wrong, found, f"pip install -r {requirements}")


def _disk(config: Config) -> Check:
    """Free space where the run's folder will be."""
    folder = config.output or Path.cwd()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free, {DISK_BYTES / 2**30:.0f} GiB asked for"
    return Check(f"disk of {folder}", free >= DISK_BYTES, found, "free some, or name another --output")


def _backbone(config: Config) -> Check:
    """The file fits the trunk, and is the benchmark's own where the division asks for it."""
    assert config.backbone_path is not None
    digest = build_model(seed=0, backbone_path=config.backbone_path)[1]
    same = digest == BACKBONE_SHA256
    found = f"{config.backbone_path}: sha256 {str(digest)[:8]}..., {'the' if same else 'not the'} benchmark's reference"
    remedy = "a closed result needs resnet34-333f7ec4.pth: prepare fetches it; or set division = open"
    return Check("backbone", same or config.division == "open", found, remedy)


def _data(config: Config, indexes: list[Index]) -> list[Check]:
    """Annotations parse and list the same categories, each image is whole; `indexes` gets train and val."""
    assert config.data_dir is not None
    check_folder(config.data_dir, config.cache_dir, num_workers=config.num_workers).require()
    both = [load_index(annotation_file(config.data_dir, split), config.cache_dir) for split in SPLITS]
    check_categories(both[0], both[1], config.num_classes)
    indexes.extend(both)
    counts = f"{len(both[0].with_boxes()):,} of {len(both[0]):,} training images have a box"
    evaluated = len(eval_rows(both[1], config.eval_images))
    return [Check("data", True, f"{counts}; {evaluated:,} of {len(both[1]):,} validation images are evaluated")]


def _perfect_detector(config: Config, index: Index) -> Check:
    """The ground truth as detections, by the path of real ones, scores AP 1: ids, scales and metric are right."""
    chosen = eval_rows(index, config.eval_images)
    found = np.concatenate([_truth_as_rows(index, part) for part in np.array_split(chosen, max(1, len(chosen) // 64))])
    statistics = score(EvalSource((), index, chosen, ground_truth(index, chosen)), found, config.coco_metric)
    text = f"ground truth fed back as predictions scores AP {statistics[0]:.4f}"
    remedy = "the annotation file is inconsistent, or the library coco_metric is broken: try the other one"
    return Check("metric", bool(statistics[0] >= PERFECT), text, remedy)


def _truth_as_rows(index: Index, part: np.ndarray) -> np.ndarray:
    """Detections of score 1 for every usable box that is not a crowd, as rows (n, 7) of COCO results."""
    spans = [np.arange(index.offsets[row], index.offsets[row + 1]) for row in part]
    spans = [span[index.usable[span] & ~index.iscrowd[span]] for span in spans]
    widest = max((len(span) for span in spans), default=0)
    boxes, labels = np.zeros((len(part), widest, 4), np.float32), np.zeros((len(part), widest), np.int64)
    for place, span in enumerate(spans):
        boxes[place, : len(span)], labels[place, : len(span)] = index.boxes[span], index.labels[span]
    count = torch.tensor([len(span) for span in spans])
    found = Detections(torch.from_numpy(boxes), torch.ones(labels.shape), torch.from_numpy(labels), count)
    batch = EvalBatch(torch.empty(0), tuple(part.tolist()), torch.from_numpy(index.sizes[part]))
    return detection_rows(found, batch)


def _amount(config: Config, samples: int) -> Check:
    """What the run will do at most; it stops at the target."""
    steps = steps_per_epoch(samples, config.global_batch)
    last = last_step(config.epochs, steps, config.max_steps)
    due = evaluation_epochs(config.epochs, config.eval_epochs, config.eval_interval)
    evaluations = sum(epoch * steps <= last for epoch in due)
    found = (
        f"{samples:,} images, {config.global_batch:,} a step, {steps:,} steps an epoch; at most {last:,} steps and "
        f"{evaluations} evaluations; learning rate {applied_learning_rate(config):g} after {config.warmup:,} steps"
    )
    return Check("the run", True, found)
