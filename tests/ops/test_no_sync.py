"""The ops of a training step read nothing back to the host, and their shapes do not depend on values.

Tensors on the meta device have no values: whatever asks for one, or for a shape that depends on one, raises.
"""

import pytest
import torch

from ssd.boxes import default_boxes
from ssd.ops import augment, crop, encode, loss
from ssd.ops.augment import ColourDraws
from ssd.ops.crop import Plane


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_the_meta_device_notices():
    with pytest.raises(NotImplementedError):
        meta(3).nonzero()
    with pytest.raises(RuntimeError):
        meta(1).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_without_values(dtype):
    draws = ColourDraws(meta(3, dtype=torch.bool), meta(3, 4), meta(3, 4, dtype=torch.int64))
    for given in (draws, None):
        images = augment(meta(3, 300, 300, 3, dtype=torch.uint8), given, dtype=dtype, channels=4, channels_last=True)
        assert images.shape == (3, 4, 300, 300)
    offsets, targets = encode(meta(3, 5, 4), meta(3, 5, dtype=torch.int64), default_boxes().to("meta"))
    assert offsets.shape == (3, 4, 8732)
    locations, logits = meta(3, 4, 8732, dtype=dtype), meta(3, 81, 8732, dtype=dtype)
    value = loss(locations.requires_grad_(), logits.requires_grad_(), offsets, targets)
    assert value.shape == (3,)
    value.sum().backward()
    assert logits.grad.shape == (3, 81, 8732)


@pytest.mark.parametrize("channels", [(3,), (1, 2)])
def test_crops_without_values(channels):
    table, where = meta(7, dtype=torch.int64), meta(2, 4, dtype=torch.int64)
    planes = tuple(Plane(meta(900, c, dtype=torch.uint8), table, table, step) for step, c in enumerate(channels, 1))
    assert crop(table[:2], where, planes, height=40, width=50).shape == (2, 300, 300, 3)
