"""Decoding against PIL, for every kind of JPEG COCO holds, and how files that cannot be decoded are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import ssd.data.decode
import ssd.data.jpeg
from ssd.counts import IMAGE_SIZE
from ssd.data.annotations import parse_annotations
from ssd.data.crop import draw_crop
from ssd.data.decode import decode, load_image
from ssd.errors import DataError


def loaded(path, rectangle=None):
    out = torch.zeros(IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    with Image.open(path) as image:
        size = image.size
    load_image(path, 1, size, out, rectangle)
    return out.numpy().astype(int)


def by_pil(path, rectangle=None):
    with Image.open(path) as image:
        whole = image.convert("RGB")
    part = whole.crop(rectangle) if rectangle else whole
    return np.asarray(part.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)).astype(int)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(640, 427), (427, 640), (200, 150), (300, 300)])
@pytest.mark.parametrize("rectangle", [None, (11, 7, 131, 149)])
def test_pixels_are_pils(tmp_path, mode, size, rectangle):
    rng = np.random.default_rng(2)
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    shape = (*size[::-1], channels) if channels > 1 else size[::-1]
    image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode=mode)
    image.save(tmp_path / "a.jpg", quality=90)
    difference = np.abs(loaded(tmp_path / "a.jpg", rectangle) - by_pil(tmp_path / "a.jpg", rectangle))
    assert difference.max() <= 2
    assert difference.mean() < 0.3


def test_pixels_of_real_images_are_pils(tiny_coco):
    index = parse_annotations(tiny_coco / "annotations/instances_val2017.json")
    rng = np.random.default_rng(0)
    for row in index.with_boxes()[:10]:
        path = tiny_coco / "val2017" / str(index.file_names[row])
        rectangle = draw_crop(rng, *index.image_boxes(row)).pixels(*index.sizes[row].tolist())
        difference = np.abs(loaded(path, rectangle) - by_pil(path, rectangle))
        assert difference.mean() < 0.3
        assert difference.max() <= 3


def test_exif_orientation_is_ignored(tmp_path):
    """COCO's boxes are drawn on the stored pixels, so a camera's orientation tag must not turn the image."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode(tmp_path / "turned.jpg", 1).shape == (3, 40, 80)


def jpeg(tmp_path):
    path = tmp_path / "000000000042.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)).save(path)
    return path


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    path = jpeg(tmp_path)
    monkeypatch.setattr(ssd.data.jpeg, "MAX_PIXELS", 90 * 80)
    assert decode(path, 42).shape == (3, 90, 80)
    monkeypatch.setattr(ssd.data.jpeg, "MAX_PIXELS", 90 * 80 - 1)
    with pytest.raises(DataError) as refusal:
        decode(path, 42)
    said = "claims 80 x 90 pixels, and at most 7,199 are decoded; fetch it again"
    assert str(refusal.value) == f"{path} (image 42): {said}"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "not a whole JPEG"),
        (lambda path: path.write_bytes(path.read_bytes()[:3]), "not a whole JPEG"),
        (lambda path: path.write_bytes(b"<html>404</html>" * 99), "not a whole JPEG"),
        (lambda path: Image.new("RGB", (80, 90)).save(path, format="PNG"), "not a whole JPEG"),
        (lambda path: Image.new("RGB", (90, 80)).save(path), "has 90x80 pixels, its annotation file says 80x90"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, damage, message):
    path = jpeg(tmp_path)
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        load_image(path, 42, (80, 90), torch.empty(IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8))
    assert "000000000042.jpg (image 42)" in str(caught.value)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), ValueError(), MemoryError("no room"), AssertionError("odd")])
def test_whatever_the_decoder_raises_is_the_files_fault(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    path = jpeg(tmp_path)
    monkeypatch.setattr(ssd.data.decode, "decoder", lambda: fail)
    said = str(error).split("\n")[0] or "ValueError"
    with pytest.raises(DataError, match=rf"\(image 42\): not a whole JPEG file \({said}\)"):
        decode(path, 42)


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "a\0b.jpg", "."])
def test_what_the_file_system_refuses_is_named(tmp_path, name):
    with pytest.raises(DataError, match=r"\(image 42\): cannot be read"):
        decode(tmp_path / name, 42)
