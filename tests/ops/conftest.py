"""What the tests of the ops share: default boxes, and ground truth drawn from a seed."""

import pytest
import torch

from ssd.boxes import DefaultBoxes, default_boxes


@pytest.fixture(scope="session")
def defaults() -> DefaultBoxes:
    return default_boxes()


@pytest.fixture(scope="session")
def draw_ground_truth():
    """(seed, batch, count) -> boxes (B, N, 4) ltrb inside the image, labels (B, N) in 1..80."""

    def draw(seed: int, batch: int, count: int, largest: float = 0.6):
        g = torch.Generator().manual_seed(seed)
        size = 0.02 + (largest - 0.02) * torch.rand(batch, count, 2, generator=g)
        corner = torch.rand(batch, count, 2, generator=g) * (1 - size)
        return torch.cat((corner, corner + size), dim=2), torch.randint(1, 81, (batch, count), generator=g)

    return draw
