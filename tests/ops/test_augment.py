"""Augmentation: equal to torchvision's operations applied one by one; layouts, precisions, padding, mirror."""

import itertools
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from ssd.ops import augment
from ssd.ops.augment import MEAN, STD, ColourDraws

ADJUST = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
ORDERS = torch.tensor(list(itertools.permutations(range(4))))


def some_images(seed, batch, size=24):
    """Noise, and in each a flat grey, a black, a white and a primary patch: hue has nothing to measure there."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, size, size, 3), generator=g, dtype=torch.uint8)
    for patch, colour in enumerate(([128] * 3, [0] * 3, [255] * 3, [255, 0, 0], [0, 90, 90])):
        images[:, 4 * patch : 4 * patch + 4, :5] = torch.tensor(colour, dtype=torch.uint8)
    return images


def some_draws(seed, batch, strength=1.0):
    g = torch.Generator().manual_seed(seed)
    spread = torch.tensor([0.125, 0.5, 0.5, 0.05]) * strength
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]) + spread * (2 * torch.rand(batch, 4, generator=g) - 1)
    order = ORDERS[torch.randint(0, 24, (batch,), generator=g)]
    return ColourDraws(torch.rand(batch, generator=g) < 0.5, factors, order)


def normalised(images):
    return (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


def one_by_one(images, draws):
    """torchvision's float operations, image by image, in each image's order."""
    result = []
    for b, image in enumerate(images.permute(0, 3, 1, 2).float() / 255):
        image = tv.horizontal_flip(image) if draws.flip[b] else image
        for operation in draws.order[b].tolist():
            image = ADJUST[operation](image, draws.factors[b, operation].item())
        result.append(normalised(image))
    return torch.stack(result)


def test_every_order_equals_torchvisions_operations():
    images, draws = some_images(0, 24), some_draws(1, 24)
    draws = ColourDraws(draws.flip, draws.factors, ORDERS)
    torch.testing.assert_close(augment(images, draws), one_by_one(images, draws), rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, {"dtype": torch.bfloat16, "channels": 4, "channels_last": True}])
def test_one_image_at_a_time_gives_the_same_bits_as_a_batch(monkeypatch, threads, batch, options):
    """A CPU goes image by image, a device does not. 300 x 300 pixels are enough for torch to use more threads."""
    images, draws = some_images(7, batch, size=300), some_draws(8, batch)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = [augment(images, drawn, **options) for drawn in (draws, None)]
        monkeypatch.setattr(sys.modules["ssd.ops.augment"], "ONE_BY_ONE", ())
        device = [augment(images, drawn, **options) for drawn in (draws, None)]
    finally:
        torch.set_num_threads(before)
    for one, other in zip(ours, device, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0, 2), st.randoms(use_true_random=False))
def test_any_draws_equal_torchvisions_and_the_order_of_images_does_not_matter(seed, batch, strength, r):
    images, draws = some_images(seed, batch), some_draws(seed, batch, strength)
    draws.factors[:, 3] *= 5  # up to half a turn
    result = augment(images, draws)
    torch.testing.assert_close(result, one_by_one(images, draws), rtol=0, atol=2e-5)
    order = r.sample(range(batch), batch)
    shuffled = ColourDraws(draws.flip[order], draws.factors[order], draws.order[order])
    torch.testing.assert_close(augment(images[order], shuffled), result[order], rtol=0, atol=1e-6)


def test_the_benchmarks_image_size():
    images, draws = some_images(2, 3, size=300), some_draws(3, 3)
    torch.testing.assert_close(augment(images, draws), one_by_one(images, draws), rtol=0, atol=1e-5)


def test_without_draws_it_only_normalises():
    images = some_images(4, 3)
    expected = normalised(images.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(augment(images, None), expected, rtol=1e-6, atol=1e-6)


def test_neutral_draws_change_nothing():
    images = some_images(5, 24)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(24, 4)
    draws = ColourDraws(torch.zeros(24, dtype=torch.bool), neutral, ORDERS)
    torch.testing.assert_close(augment(images, draws), augment(images, None), rtol=0, atol=1e-5)


def test_mirrored_twice_is_the_image():
    images, draws = some_images(6, 4), some_draws(6, 4)
    flip = torch.tensor([True, False, True, True])
    mirrored = images.clone()
    mirrored[flip] = mirrored[flip].flip(2)
    plain = ColourDraws(torch.zeros_like(flip), draws.factors, draws.order)
    once = augment(mirrored, plain)
    twice = augment(mirrored, ColourDraws(flip, draws.factors, draws.order))
    torch.testing.assert_close(twice, augment(images, plain), rtol=0, atol=1e-5)
    assert not torch.equal(once, twice)


@pytest.mark.parametrize("with_draws", [True, False])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_layout_precision_and_padding(dtype, tolerance, channels_last, channels, with_draws):
    images, draws = some_images(7, 3), some_draws(7, 3) if with_draws else None
    expected = augment(images, draws)
    result = augment(images, draws, dtype=dtype, channels=channels, channels_last=channels_last)
    assert result.dtype == dtype
    assert result.shape == (3, channels, 24, 24)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert result.is_contiguous(memory_format=layout)
    torch.testing.assert_close(result[:, :3].float(), expected, rtol=tolerance, atol=0)
    # Trap of the original: the fourth channel was one thing in training and another in evaluation.
    assert result[:, 3:].abs().sum() == 0


def test_inputs_are_left_alone_and_may_be_strided():
    images, draws = some_images(8, 3), some_draws(8, 3)
    kept = images.clone(), draws.factors.clone(), draws.order.clone()
    expected = augment(images, draws)
    for now, before in zip((images, draws.factors, draws.order), kept, strict=True):
        assert torch.equal(now, before)
    planar = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not planar.is_contiguous()
    assert torch.equal(augment(planar, draws), expected)


def test_autocast_does_not_lower_its_precision():
    images, draws = some_images(9, 2), some_draws(9, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = augment(images, draws)
    assert torch.equal(result, augment(images, draws))
