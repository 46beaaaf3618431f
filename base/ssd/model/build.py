"""Makes a model: its weights are drawn from a seed, and those of the backbone are read from a file if one is given."""

from __future__ import annotations

from pathlib import Path

import torch

from ssd.model.ssd300 import SSD300, HeadLayout
from ssd.model.weights import load_backbone

__all__ = ["build_model"]


def build_model(
    *,
    seed: int,
    num_classes: int = 81,
    width: float = 1.0,
    in_channels: int = 3,
    head_layout: HeadLayout = "separate",
    backbone_path: Path | None = None,
) -> tuple[SSD300, str | None]:
    """Make a model on the CPU. Returns it, and the SHA-256 of its backbone file as 64 hex digits.

    The weights are drawn from `seed` alone; those of the backbone are then read from `backbone_path`. Where that is
    None, the backbone keeps its drawn weights and the hash is None. The state of torch's global generator does not
    change. num_classes, width, in_channels, head_layout: see `SSD300`. Raises what `load_backbone` raises.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SSD300(num_classes, width, in_channels, head_layout)
    return model, None if backbone_path is None else load_backbone(model, backbone_path)
