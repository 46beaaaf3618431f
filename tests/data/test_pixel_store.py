"""Pixels on the device: crops resized as torch resizes them, whole bytes, colour at half resolution."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.data.decode import decode, resize
from ssd.data.pixel_store import PixelStore, image_bytes

CPU = torch.device("cpu")


def filled(images, storage="rgb"):
    store = PixelStore(np.array([(image.shape[2], image.shape[1]) for image in images], np.int64), storage, CPU)
    for slot, image in enumerate(images):
        store.put(slot, image)
    return store


def expected(image, rectangle):
    """What the threads make of a rectangle, by torch's uint8 resize."""
    left, top, right, bottom = rectangle
    out = torch.empty(300, 300, 3, dtype=torch.uint8)
    resize(np.ascontiguousarray(image.permute(1, 2, 0).numpy()[top:bottom, left:right]), out)
    return out


def noise(width, height, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def difference(ours, theirs):
    return (ours.int() - theirs.int()).abs()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=3), st.data())
def test_noise_is_resized_as_torch_resizes_it(sizes, data):
    """Noise is the worst case: one grey level is the rounding between torch's two passes."""
    images = [noise(*size, seed) for seed, size in enumerate(sizes)]
    slots, rectangles = [], []
    for slot, (width, height) in enumerate(sizes):
        left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
        slots.append(slot)
        rectangles.append((left, top, right, bottom))
    ours = filled(images).crops(np.array(slots), np.array(rectangles, np.int64))
    assert (ours.shape, ours.dtype) == ((len(slots), 300, 300, 3), torch.uint8)
    for row, slot in enumerate(slots):
        assert difference(ours[row], expected(images[slot], rectangles[row])).max() <= 1


def test_images_of_all_sizes_share_a_batch():
    """Each is padded to the largest, and none may read its padding: at the far edges it would show."""
    sizes = [(640, 480), (427, 640), (601, 333), (310, 302), (120, 90)]
    images = [noise(*size, seed) for seed, size in enumerate(sizes)]
    rectangles = [(0, 0, *size) for size in sizes]
    ours = filled(images).crops(np.arange(5), np.array(rectangles, np.int64))
    for row, image in enumerate(images):
        assert difference(ours[row], expected(image, rectangles[row])).max() <= 1


def test_a_batch_in_chunks_is_the_batch(monkeypatch):
    images = [noise(90 + 7 * k, 140 - 9 * k, k) for k in range(5)]
    slots = np.array([4, 0, 0, 2, 1, 3])
    rectangles = np.array([(k, 2 * k, 60 + k, 50 + 3 * k) for k in range(6)], np.int64)
    whole = filled(images).crops(slots, rectangles)
    monkeypatch.setattr(importlib.import_module("ssd.ops.crop"), "CHUNK_PIXELS", 1)
    assert torch.equal(filled(images).crops(slots, rectangles), whole)


def test_bytes_are_those_of_the_buffers():
    sizes = np.array([(640, 480), (7, 5), (1, 1)], np.int64)
    assert image_bytes(sizes, "rgb").tolist() == [921600, 105, 3]
    assert image_bytes(sizes, "yuv420").tolist() == [460800, 35 + 2 * 12, 3]
    for storage in ("rgb", "yuv420"):
        held = sum(plane.stored.pixels.numel() for plane in PixelStore(sizes, storage, CPU).planes)
        assert held == image_bytes(sizes, storage).sum()


def test_colours_survive_yuv420():
    """Flat images: no resolution to lose, so only the rounding of YCbCr is left."""
    colours = torch.tensor([(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (12, 130, 201)])
    images = [colour.to(torch.uint8)[:, None, None].expand(3, 33, 47) for colour in colours]
    ours = filled(images, "yuv420").crops(np.arange(6), np.tile(np.array([(3, 5, 46, 32)], np.int64), (6, 1)))
    assert difference(ours, colours[:, None, None].expand_as(ours)).max() <= 2


@pytest.mark.parametrize("rectangle", [(0, 0, 32, 48), (1, 1, 32, 48), (1, 3, 20, 20), (0, 0, 31, 47)])
def test_chroma_lies_where_luma_lies(rectangle):
    """A steep ramp of colour: half a pixel's shift of the chroma plane, odd edges or not, moves every value by 3."""
    ramp = (20 + 7.0 * torch.arange(32)).expand(48, 32)
    image = torch.stack([ramp, torch.full((48, 32), 90.0), 250 - ramp]).round().to(torch.uint8)
    rgb, yuv = (filled([image], s).crops(np.array([0]), np.array([rectangle], np.int64)) for s in ("rgb", "yuv420"))
    inner = (slice(None), slice(15, -15), slice(15, -15))
    assert difference(rgb[inner], yuv[inner]).max() <= 2
    assert (rgb[inner].float() - yuv[inner].float()).mean((0, 1, 2)).abs().max() < 0.5


def test_yuv420_of_real_images_is_close(tiny_coco):
    """These 4:4:4 files are the worst case: all of their colour is there to lose."""
    paths = sorted((tiny_coco / "train2017").glob("*.jpg"))[:12]
    images = [decode(path, 1) for path in paths]
    whole = np.array([(0, 0, image.shape[2], image.shape[1]) for image in images], np.int64)
    rgb, yuv = (filled(images, storage).crops(np.arange(12), whole) for storage in ("rgb", "yuv420"))
    assert 0.1 < difference(rgb, yuv).float().mean() < 2
