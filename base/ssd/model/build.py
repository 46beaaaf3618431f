"""Makes a model: its weights are drawn from a seed, and those of the backbone are read from a file if one is given."""

from __future__ import annotations

from pathlib import Path

import torch

from ssd.model.ssd300 import SSD300
from ssd.model.weights import load_backbone

__all__ = ["build_model"]


def build_model(
    *,
    seed: int,
    num_classes: int = 81,
    width: float = 1.0,
    in_channels: int = 3,
    backbone_path: Path | None = None,
) -> tuple[SSD300, str | None]:
    """A model on the CPU whose weights depend on `seed` alone, and the SHA-256 of the backbone file it starts from.

    Where backbone_path is None, the backbone is drawn too, and the hash is None. torch's global generator is left as it
    was. Raises what `load_backbone` raises.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SSD300(num_classes, width, in_channels)
    return model, None if backbone_path is None else load_backbone(model, backbone_path)
