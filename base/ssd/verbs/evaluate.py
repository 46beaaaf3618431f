"""The verb `evaluate`: a checkpoint's score on a COCO folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ssd.boxes import default_boxes
from ssd.compute.ranks import Ranks
from ssd.config import Resolved
from ssd.console import console
from ssd.errors import DataError
from ssd.run.evaluation import as_record, detect_all, evaluate
from ssd.run.sources import open_eval_source
from ssd.text import counted
from ssd.vendor import select_ops
from ssd.verbs.restored import open_checkpoint, restore, saved_config

__all__ = ["evaluate_command"]


def evaluate_command(resolved: Resolved, checkpoint: Path, *, as_json: bool = False) -> int:
    """Print the twelve statistics of a checkpoint on the folder `data_dir`. The exit code is 0 for every score.

    checkpoint: its file, or the folder of its run. The config is that of the checkpoint. Flags and environment
    variables override it. A folder that is named by a flag is read even if the run had synthetic data. Raises DataError
    where the folder's categories are not those of the checkpoint.
    """
    saved = open_checkpoint(checkpoint)
    named = {key for key, origin in resolved.provenance.items() if origin.startswith(("command line", "environment"))}
    given = {key: getattr(resolved.config, key) for key in named}
    if resolved.provenance["data_dir"].startswith("command line"):
        given.setdefault("data_backend", "threads")
    config = saved_config(saved, given)
    model, vendor, device = restore(saved, config)
    ops, origins = select_ops(vendor, config)
    source = open_eval_source(config, Ranks(), vendor.abilities(device))
    if source.categories != saved.categories:
        raise DataError(f"{source.index.source}: its categories are not those that {checkpoint} was trained on")
    rows = detect_all(model, source.loader, ops, default_boxes().to(device), vendor.abilities(device), config)
    statistics, _ = evaluate(source, rows, Ranks(), config.coco_metric)
    if as_json:
        said = {"checkpoint": str(checkpoint), "images": len(source.rows), "annotations": source.index.source}
        sys.stdout.write(json.dumps({**said, "kernels": origins, **as_record(statistics)}, indent=1) + "\n")
        return 0
    table = Table(title=escape(f"{checkpoint}, {counted(len(source.rows), 'image')} of {source.index.source}"))
    table.add_column("statistic")
    table.add_column("value", justify="right")
    for name, value in as_record(statistics).items():
        table.add_row(name, "n/a" if value is None else f"{value:.5f}")
    out = console()
    for origin in origins:
        out.print(escape(origin))
    out.print(table)
    return 0
