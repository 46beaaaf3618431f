"""The model of tests/golden/README.md (model.npz): our names mapped to the original's, weights drawn by their name."""

import csv
import zlib

import numpy as np
import pytest
import torch

from ssd.model import SSD300

PARTS = {"additional_blocks.": "extras.", "loc.": "location_heads.", "conf.": "class_heads."}
OPERATION = {"0.0": "0", "0.2": "2"}


def recipe(name: str, shape: torch.Size) -> np.ndarray:
    """The value that it gives the state entry the original calls `name`."""
    x = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(tuple(shape))
    if len(shape) == 4:
        gain = 0.5 if name.startswith(("loc.", "conf.")) else np.sqrt(2)
        return x * gain / np.sqrt(np.prod(shape[1:]))
    if not name.startswith("backbone.") or name.endswith("num_batches_tracked"):
        return 0 * x if name.endswith("num_batches_tracked") else 0.02 * x
    kind = name.rsplit(".", 1)[1]
    return {
        "weight": 0.5 + 0.05 * x,
        "bias": 0.1 * x,
        "running_mean": 0.1 * x,
        "running_var": 1 + 0.25 * np.abs(x),
    }[kind]


@pytest.fixture(scope="session")
def original_names(golden) -> dict[str, str]:
    """Our state-dict names -> the original's, from model_params.csv."""
    names = {}
    with (golden / "model_params.csv").open() as file:
        for row in csv.DictReader(file):
            ours = row["name"]
            if ours.startswith("backbone."):
                ours = "trunk." + row["torchvision_resnet34_name"]
            for theirs, part in PARTS.items():
                if ours.startswith(theirs):
                    ours = part + ours.removeprefix(theirs)
            names[ours] = row["name"]
    return names


@pytest.fixture
def golden_model(original_names) -> SSD300:
    """A fresh full-width model with the recipe's weights."""
    model = SSD300()
    state = {
        name: torch.from_numpy(np.asarray(recipe(original_names[name], value.shape))).to(value.dtype)
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model
