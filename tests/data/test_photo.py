"""Pictures of users: every depth comes out as the grey it is, and each file that cannot is named."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd.data import photo
from ssd.data.jpeg import MAX_PIXELS
from ssd.data.photo import read_photo
from ssd.errors import DataError

RAMP = np.linspace(0, 65535, 160 * 120).astype(np.uint16).reshape(120, 160)
"""Grey of 16 bits from black to white."""
GREY = np.rint(RAMP / 257).astype(int)
"""The same in 8 bits."""


def red(path: Path) -> np.ndarray:
    """The red of a picture, whose green and blue must be the same."""
    pixels = np.asarray(read_photo(path)).astype(int)
    assert np.ptp(pixels, axis=2).max() == 0
    return pixels[..., 0]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_16_bits_is_scaled(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(RAMP).save(path)
    assert np.abs(red(path) - GREY).max() <= 1


def test_grey_of_16_bits_and_the_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.frombytes("I;16B", (160, 120), RAMP.astype(">u2").tobytes()).save(path)
    assert np.abs(red(path) - GREY).max() <= 1


def test_a_tiff_whose_0_is_white_is_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RAMP).save(path, tiffinfo={photo.PHOTOMETRIC: 0})
    assert np.abs(red(path) - (255 - GREY)).max() <= 1


def test_a_pgm_of_12_bits_is_scaled_by_the_most_it_states(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 2 4095\n" + np.array([0, 1024, 2048, 4095], ">u2").tobytes())
    assert red(path).tolist() == [[0, 64], [128, 255]]


def test_grey_of_16_bits_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[photo.ORIENTATION] = 6
    Image.fromarray(RAMP).save(path, exif=exif)
    assert np.abs(red(path) - np.rot90(GREY, -1)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_8_bits_is_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (30, 20), "white").convert(mode).save(path)
    picture = read_photo(path)
    assert (picture.mode, picture.size) == ("RGB", (30, 20))
    assert np.asarray(picture).min() >= 250


@pytest.mark.parametrize(("kind", "said"), [(np.float32, "floating point"), (np.int32, "32 bits")])
def test_numbers_whose_range_no_one_states_are_refused(tmp_path: Path, kind: type, said: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.linspace(0, 1, 600).reshape(20, 30).astype(kind)).save(path)
    with pytest.raises(DataError, match=rf"a\.tif: .*{said}, and the file does not state their range: save it with 8"):
        read_photo(path)


@pytest.mark.parametrize("size", [(20_000, 10_000), (11_000, 9_000)])
def test_too_many_pixels_are_refused_with_the_limit(tmp_path: Path, size: tuple[int, int]) -> None:
    """Pillow raises an error of its own for the first, and only warns of the second."""
    path = tmp_path / "bomb.png"
    Image.new("1", size).save(path)
    with pytest.raises(DataError, match=rf"bomb\.png: .*at most {MAX_PIXELS:,} are decoded"):
        read_photo(path)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG", progressive=True)
    return file.getvalue()


def test_a_jpeg_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    content = jpeg()
    place = content.index(b"\xff\xc2") + 5
    path.write_bytes(content[:place] + b"\xff\xdc\xff\xdc" + content[place + 4 :])
    with pytest.raises(DataError, match=r"a\.jpg: claims 65500 x 65500 pixels"):
        read_photo(path)
    scan, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    path.write_bytes(content[:end] + content[scan:end] * 100 + content[end:])
    with pytest.raises(DataError, match=r"a\.jpg: has more than 100 scans"):
        read_photo(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an image that can be read"),
        (b"text", "not an image that can be read"),
        (jpeg()[:200], "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image that can be read"),
        (b"\0\5\x16\7\0\2\0\0" + b"Mac OS X".ljust(16) + bytes(60), "not an image that can be read"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jpg: {said}"):
        read_photo(path)


@pytest.mark.parametrize("error", [OSError(5, "broken"), ValueError("a\x1b[2J\nb"), SyntaxError("x"), MemoryError()])
def test_whatever_pillow_raises_is_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(photo.Image, "open", fail)
    with pytest.raises(DataError, match=r"a\.png: not an image that can be read \(.+\)$") as caught:
        read_photo(tmp_path / "a.png")
    assert "\x1b" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, said in (("pipe.png", "not a file"), (".", "not a file"), ("absent.png", "no such file")):
        with pytest.raises(DataError, match=said):
            read_photo(tmp_path / name)
    with pytest.raises(DataError, match=r"no such file|too long"):
        read_photo(tmp_path / ("a" * 300 + ".png"))


def test_a_file_that_is_no_picture_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"not an image that can be read \(cannot identify image file"):
        read_photo(tmp_path / "a.jpg")


def test_a_picture_of_several_frames_by_a_phone(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.size == (40, 30)
    assert photo.getpixel((5, 5))[0] > 200
