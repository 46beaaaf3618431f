"""Makes the network, the optimizer and the loss scaler of a run, new or from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ssd.compute.apex import ApexScaler, amp_o2
from ssd.compute.batch_norm import convert_batch_norm
from ssd.compute.precision import LossScaler
from ssd.config import Config
from ssd.errors import DataError
from ssd.model import build_model
from ssd.run.checkpoint import Checkpoint
from ssd.run.evaluation import input_channels
from ssd.run.schedule import applied_learning_rate
from ssd.run.start import Start
from ssd.text import counted

__all__ = ["Built", "Scaler", "build", "restore"]

Scaler = LossScaler | ApexScaler


@dataclass(frozen=True)
class Built:
    """The objects that training changes.

    parameters: the names of the network's parameters as the network defines them. A vendor's conversion may rename
    them. backbone_sha256: "" for a run without pretrained weights.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Scaler
    parameters: list[str]
    backbone_sha256: str


def build(start: Start) -> Built:
    """Make model, optimizer and loss scaler on the device. Weights come from the seed, or from the backbone file."""
    config, vendor, device = start.config, start.vendor, start.device
    torch.default_generator.manual_seed(start.seed)  # nothing is drawn on a device, which may have no generator
    network, backbone_sha256 = build_model(
        seed=start.seed,
        num_classes=config.num_classes,
        width=config.width,
        in_channels=input_channels(config),
        head_layout=config.head_layout,
        backbone_path=config.backbone_path if config.pretrained else None,
    )
    parameters = [name for name, _ in network.named_parameters()]
    model = convert_batch_norm(
        network,
        config.bn_group,
        start.ranks,
        config.collective_timeout,
        start.abilities.float64,
        kernels=start.abilities.sync_batch_norm and not start.ranks.through_host,
    )
    model = vendor.convert_model(model, config, device)
    optimizer = vendor.make_optimizer(model, config, applied_learning_rate(config))
    scaler: Scaler = LossScaler(optimizer, device, config.precision)
    if config.amp == "apex_o2":
        accumulation = config.gradient_accumulation_steps
        model, optimizer, scaler = amp_o2(
            model, optimizer, gradient_accumulation_steps=accumulation, precision=config.precision
        )
    return Built(model, optimizer, scaler, parameters, backbone_sha256 or "")


def restore(built: Built, saved: Checkpoint, config: Config, path: Path) -> None:
    """Load the tensors and the random state of a checkpoint. Raises DataError where they do not fit this run."""
    try:
        built.model.load_state_dict(saved.model)
        built.optimizer.load_state_dict(saved.optimizer)
        built.scaler.load_state_dict(saved.scaler)
        torch.set_rng_state(saved.rng)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path}: its tensors do not fit this run ({error}); start a new run") from error
    if config.momentum and built.scaler.skipped() < saved.step:
        parameters = [one for group in built.optimizer.param_groups for one in group["params"]]
        for parameter in parameters:
            tensors = [one for one in built.optimizer.state[parameter].values() if isinstance(one, Tensor)]
            if not tensors or any(one.dim() and one.shape != parameter.shape for one in tensors):
                raise DataError(
                    f"{path}: its optimizer has no momentum for a parameter of shape {tuple(parameter.shape)}, though "
                    f"{counted(saved.step, 'step')} of training came before; start a new run"
                )
