"""The 119 names for which closed round 1.1 asks a `weights_initialization` event, and which of our 131 tensors each is.

The rules use the tensor names of one submitter's MXNet model:

- A stage counts its convolutions and its batch norms from 0, in the order in which its blocks are built. The shortcut
  convolution of a block comes after the two others.
- An extra block is `expand_trans_conv{i}` (1x1) and `expand_conv{i}` (3x3).
- `convpredictor{i}` is one convolution for boxes and classes together. Our model has two. So two of our tensors have
  one name there. All other names belong to one tensor each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ssd.errors import ConfigError

__all__ = ["mlperf_tensor_names"]

_NORM = {"weight": "gamma", "bias": "beta"}
_BACKBONE = "ssd0_resnetmlperf0_"


def mlperf_tensor_names(parameters: Iterable[str]) -> dict[str, str]:
    """Names of our parameters, in the model's own order -> the rules' names.

    Raises ConfigError for a name that has no place: the model was changed, so it is no longer the closed division's.
    """
    extra_convs: dict[str, list[str]] = {}  # block -> its convolutions, in order: the order tells them apart
    names = {}
    for parameter in parameters:
        module, _, kind = parameter.rpartition(".")
        if match := re.fullmatch(r"extras\.(\d+)\.(.+)", module):
            block, conv = match.groups()
            seen = extra_convs.setdefault(block, [])
            if conv not in seen:
                seen.append(conv)
            place = ("expand_trans_conv", "expand_conv")[seen.index(conv)] if len(seen) <= 2 else None
            name = place and f"ssd0_{place}{block}_{kind}"
        elif match := re.fullmatch(r"(?:location|class)_heads\.(\d+)", module):
            name = f"ssd0_convpredictor{match[1]}_conv0_{kind}"
        else:
            name = _backbone_name(module, kind)
        if name is None:
            raise ConfigError(
                f"parameter {parameter}: the rules name no such tensor of SSD-ResNet34; a changed model is for the open"
                " division, which asks for no weights_initialization"
            )
        names[parameter] = name
    return names


def _backbone_name(module: str, kind: str) -> str | None:
    """Torchvision's name of a convolution or batch norm of the backbone -> the rules' name; None for any other name."""
    if module == "trunk.conv1":
        return f"{_BACKBONE}conv0_{kind}"
    if module == "trunk.bn1":
        return f"{_BACKBONE}batchnorm0_{_NORM[kind]}"
    match = re.fullmatch(r"trunk\.layer([123])\.(\d+)\.(conv1|bn1|conv2|bn2|downsample\.0|downsample\.1)", module)
    if match is None:
        return None
    stage, block, part = match[1], int(match[2]), match[3]
    # Stages 2 and 3 have a shortcut convolution in block 0, the third to be counted; stage 1 has none.
    first = 2 * block + (1 if block and stage != "1" else 0)
    index = first + {"conv1": 0, "bn1": 0, "conv2": 1, "bn2": 1, "downsample.0": 2, "downsample.1": 2}[part]
    norm = part.startswith("bn") or part == "downsample.1"
    return f"{_BACKBONE}stage{stage}_" + (f"batchnorm{index}_{_NORM[kind]}" if norm else f"conv{index}_{kind}")
