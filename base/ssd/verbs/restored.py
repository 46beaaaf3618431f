"""Loads a checkpoint after its run, by its path or by the folder of its run, and puts its model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssd.compute.device import device_count
from ssd.config import Config
from ssd.errors import ConfigError, MachineError
from ssd.model import build_model
from ssd.run.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint
from ssd.run.evaluation import input_channels
from ssd.vendor import Vendor, load_vendor, require_device

__all__ = ["open_checkpoint", "restore", "saved_config"]


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. path: its file, or the folder of its run. Raises DataError as `load_checkpoint` does."""
    return load_checkpoint(path / CHECKPOINT if path.is_dir() else path)


def saved_config(saved: Checkpoint, given: dict[str, Any]) -> Config:
    """The config of the checkpoint's run, with the `given` keys in place of its own. Raises as `run_config` does."""
    # No step is taken here, captured or not, and nothing is cropped. On a CPU, or with another loader, some of these
    # keys would be refused.
    unused = {"cuda_graph": False, "graph_scope": "gradients", "crop_op": "reference"}
    return saved.run_config(**{**unused, **given})


def restore(saved: Checkpoint, config: Config) -> tuple[nn.Module, Vendor, torch.device]:
    """The model with the checkpoint's weights, on the device of the config and its vendor.

    Raises MachineError where this machine has no such device, and ConfigError where the weights do not fit the config.
    """
    model, _ = build_model(
        seed=0,
        num_classes=config.num_classes,
        width=config.width,
        in_channels=input_channels(config),
        head_layout=config.head_layout,
    )
    try:
        model.load_state_dict(saved.model)
    except RuntimeError as error:
        raise ConfigError(
            f"the checkpoint's weights do not fit width {config.width:g} and num_classes {config.num_classes}: "
            "leave out the flags that change the model"
        ) from error
    vendor = load_vendor(config.name)
    kind = vendor.device_of(config)
    # Checked here for one device: the vendor's own checks are those of a run, with all its processes and their memory.
    if kind != "cpu" and not device_count(kind):
        raise MachineError(f"torch {torch.__version__} sees no device of type {kind} here: give --device cpu")
    device = vendor.set_up(config, 0)
    alone = config.model_copy(update={"nproc_per_node": 1, "nodes": 1})  # the run had others, and this process has none
    require_device(vendor, alone, device)
    return vendor.convert_model(model, config, device), vendor, device
