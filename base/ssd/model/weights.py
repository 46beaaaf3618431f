"""The backbone's pretrained weights: reads a torchvision ResNet-34 file, and refuses any other file with a message.

The file is read once, so the hash is that of the weights that are loaded. This module downloads nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssd.errors import ConfigError, DataError
from ssd.model.resnet import ResNet34Trunk, make_stage
from ssd.model.ssd300 import SSD300
from ssd.tensor_file import read_tensors

__all__ = ["BACKBONE_SHA256", "load_backbone", "write_random_backbone"]

BACKBONE_SHA256 = "333f7ec4c6338da2cbed37f1fc0445f9624f1355633fa1d7eab79a91084c6cef"
"""SHA-256 of resnet34-333f7ec4.pth, the benchmark's reference. MLPerf's closed division accepts no other file. Its open
division accepts any."""

UNUSED = ("layer4.", "fc.")
"""Prefixes of the names that a torchvision ResNet-34 has and the backbone does not have."""
REMEDY = "give torchvision's resnet34-333f7ec4.pth (87,306,240 bytes; `prepare` fetches it), or set pretrained = false"


def load_backbone(model: SSD300, path: Path) -> str:
    """Fill `model.trunk` from a torchvision ResNet-34 state dict. Returns the file's SHA-256, 64 hex digits.

    A fourth input channel gets zero weights. Raises ConfigError for a model of another width than 1. Raises DataError
    for a file that is missing, is damaged, holds Python objects, or holds something else than a ResNet-34. After an
    error the model is unchanged.
    """
    if model.width != 1:
        raise ConfigError(
            f"pretrained weights fit width 1 only, and width is {model.width:g}: set pretrained = false or width = 1"
        )
    content = _read(path)
    weights = _as_state_dict(read_tensors(content, f"backbone {path}", REMEDY), path)
    model.trunk.load_state_dict(_fitted(weights, model.trunk, path))
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"backbone {path} cannot be read ({error.strerror}): {REMEDY}") from error


def _as_state_dict(found: Any, path: Path) -> Mapping[str, Tensor]:
    """`found`, if it maps names to tensors. Raises DataError for anything else, a run's checkpoint included."""
    if not isinstance(found, Mapping):
        raise DataError(f"backbone {path} holds a {type(found).__name__}, not a state dict: {REMEDY}")
    names = [str(name) for name in found]
    if "model" in names or any(name.startswith(("trunk.", "class_heads.")) for name in names):
        raise DataError(
            f"backbone {path} is a checkpoint of a whole SSD ({_some(names)}), not a ResNet-34:"
            f" --resume continues a run; for a new one {REMEDY}"
        )
    if not all(isinstance(value, Tensor) and _is_plain(value) for value in found.values()):
        raise DataError(f"backbone {path} holds other things than dense tensors of real numbers: {REMEDY}")
    return found


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor's numbers can be copied into a parameter."""
    dense = value.layout == torch.strided and value.device.type == "cpu"
    return dense and not value.is_quantized and not value.is_complex()


def _fitted(weights: Mapping[str, Tensor], backbone: ResNet34Trunk, path: Path) -> dict[str, Tensor]:
    """The backbone's state dict with the file's values.

    Raises DataError, which names tensors that are missing, have a wrong shape, or do not belong to a ResNet-34.
    """
    state = backbone.state_dict()
    # The reference file was written by a torch whose batch norm had no num_batches_tracked yet.
    missing = [name for name in state if name not in weights and not name.endswith("num_batches_tracked")]
    foreign = [name for name in weights if name not in state and not name.startswith(UNUSED)]
    wrong = []
    for name in state.keys() & weights.keys():
        value = weights[name]
        if name == "conv1.weight" and value.shape == (64, 3, 7, 7):
            value = torch.cat((value, torch.zeros_like(state[name][:, 3:])), dim=1)
        if value.shape != state[name].shape:
            wrong.append(f"{name} {tuple(value.shape)} instead of {tuple(state[name].shape)}")
        state[name] = value
    problems = {"missing": missing, "of wrong shape": sorted(wrong), "not part of a ResNet-34": foreign}
    said = [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
    if said:
        raise DataError(f"backbone {path} is not a torchvision ResNet-34 ({'; '.join(said)}): {REMEDY}")
    return state


def _some(names: list[str], at_most: int = 3) -> str:
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "")


def write_random_backbone(path: Path, seed: int = 0) -> str:
    """Write random weights in the format of torchvision's ResNet-34 file. Returns the file's SHA-256, 64 hex digits.

    The file takes the pretrained file's place in tests and trial runs. Nothing reads conv5_x and the classifier, so the
    file stores one zero for each of their tensors. It has 33 MB instead of 87 MB.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        weights = ResNet34Trunk().state_dict()
    with torch.device("meta"):
        unused = nn.ModuleDict({"layer4": make_stage(256, 512, blocks=3, stride=2), "fc": nn.Linear(512, 1000)})
    for name, value in unused.state_dict().items():
        weights[name] = torch.zeros((1,) * value.dim(), dtype=value.dtype).expand(value.shape)
    torch.save(weights, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
