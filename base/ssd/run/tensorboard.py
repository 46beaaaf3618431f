"""Curves for TensorBoard, by torch's own writer, where the key `tensorboard` asks for them.

The library `tensorboard` is an optional extra: pip install "ssd-benchmark[tensorboard]" or tensorboard itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "Draw", "curves"]

FOLDER = "tensorboard"
"""The folder of its files in a run's folder."""
CURVES: Mapping[str, tuple[str, ...]] = {
    "train": ("loss", "learning_rate", "images_per_s"),
    "evaluation": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    "epoch": ("skipped_steps", "skipped_images"),
}
"""Kind of record in metrics.jsonl -> its fields that are drawn, over optimizer steps."""

Draw = Callable[[str, Mapping[str, Any]], None]


@contextmanager
def curves(folder: Path | None, from_step: int = 0) -> Iterator[Draw | None]:
    """What draws a record of metrics.jsonl, given its kind and fields; None where `folder` is.

    folder: of TensorBoard's files. from_step: of a resumed run: what was drawn after that step is taken back.
    """
    if folder is None:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter  # it needs the optional library

    with SummaryWriter(str(folder), purge_step=from_step + 1 if from_step else None) as writer:

        def draw(kind: str, fields: Mapping[str, Any]) -> None:
            for name in CURVES.get(kind, ()):
                if fields.get(name) is not None:
                    writer.add_scalar(f"{kind}/{name}", fields[name], fields["step"])

        yield draw
