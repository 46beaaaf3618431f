"""What a checkpoint's config becomes where it is used on another machine than the one that trained it."""

from __future__ import annotations

from typing import Any

import torch

from ssd.config import Config
from ssd.run.checkpoint import Checkpoint
from ssd.verbs.restored import saved_config


def checkpoint(config: str) -> Checkpoint:
    values: dict[str, Any] = {name: {} for name in ("model", "scaler", "inputs", "logs", "seconds")}
    values |= {"seed": 1, "step": 1, "steps_per_epoch": 1, "written": 0.0, "evaluations": [], "categories": []}
    return Checkpoint(
        config=config, rng=torch.zeros(1), optimizer={"state": {}, "param_groups": [{"lr": 0.1}]}, **values
    )


def test_a_checkpoint_of_recorded_steps_can_be_used_on_a_cpu() -> None:
    saved = checkpoint(config=Config(cuda_graph=True, precision="bf16", nhwc=True).model_dump_json())
    config = saved_config(saved, {"device": "cpu"})
    assert (config.device, config.precision, config.nhwc) == ("cpu", "bf16", True)


def test_a_checkpoint_of_a_run_with_a_kernel_that_crops_can_be_used_on_other_files() -> None:
    saved = checkpoint(config=Config(data_backend="resident", crop_op="triton").model_dump_json())
    config = saved_config(saved, {"data_backend": "threads"})
    assert (config.data_backend, config.crop_op) == ("threads", "reference")
