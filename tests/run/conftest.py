"""A checkpoint for tests that need one, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssd.config import Config
from ssd.run.checkpoint import Checkpoint


@pytest.fixture
def checkpoint() -> Callable[..., Checkpoint]:
    """A checkpoint of a run that has trained a step, with some values of the test's own."""

    def make(**values: Any) -> Checkpoint:
        state: dict[str, Any] = {
            "config": Config().model_dump_json(),
            "seed": 1,
            "step": 1,
            "steps_per_epoch": 4,
            "evaluations": [],
            "seconds": {"run": 1.0},
            "written": 1e9,
            "categories": [(1, "cat")],
            "inputs": {},
            "logs": {},
            "model": {"w": torch.zeros(1)},
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
            "scaler": {},
            "rng": torch.get_rng_state(),
        }
        return Checkpoint(**{**state, **values})

    return make
