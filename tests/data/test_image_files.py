"""Image files looked at without decoding: each way one can be unfit, in words that name it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ssd.data import image_files
from ssd.data.image_files import MISSING, image_fault, image_faults
from ssd.errors import DataError

SIZE = (160, 120)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    Image.new("RGB", SIZE, "red").save(path)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"icc_profile": b"x" * 70_000}]
)
def test_a_sound_file_has_no_fault(image: Path, options: dict) -> None:
    Image.new("RGB", SIZE).save(image, **options)
    assert image_fault(image, SIZE) == ""


def test_a_size_turned_by_exif_is_named_as_such(image: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", SIZE).save(image, exif=turned.tobytes())
    assert image_fault(image, SIZE) == "", "pixels are as they are stored"
    assert (
        "has 160x120 pixels, its annotation file says 120x160: it is turned by its EXIF orientation 6"
        in image_fault(image, SIZE[::-1])
    )


def test_other_sizes(image: Path) -> None:
    assert image_fault(image, (120, 160)).endswith("120x160: width and height are exchanged")
    assert image_fault(image, (640, 480)) == "has 160x120 pixels, its annotation file says 640x480"


def test_other_kinds_of_file(image: Path) -> None:
    Image.new("RGB", SIZE).save(image, format="PNG")
    assert image_fault(image, SIZE) == "a PNG file, not JPEG: convert it"
    for content in (b"", b"<html>", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xc0\x00\x11"):
        image.write_bytes(content)
        assert image_fault(image, SIZE) == "not a JPEG file"


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nothing")
    names = ["gone.jpg", "x" * 300 + ".jpg", "link.jpg", "."]
    faults = image_faults(tmp_path, names, [SIZE] * 4, num_workers=2)
    assert faults == [MISSING, MISSING, "a link that leads to nothing", MISSING]


def test_a_cut_file_is_decoded_to_be_sure(image: Path) -> None:
    whole = image.read_bytes()
    image.write_bytes(whole + b"\n\0camera's own data")
    assert image_fault(image, SIZE) == ""
    image.write_bytes(whole[:-200])
    assert "not a whole JPEG file" in image_fault(image, SIZE)


def test_a_file_that_claims_gigabytes_is_named_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    Image.new("RGB", (40, 30)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = b"\xff\xdc\xff\xdc"
    path.write_bytes(content)
    said = "claims 65500 x 65500 pixels, and at most 89,478,485 are decoded"
    assert image_fault(path, (65500, 65500)) == said
    assert image_fault(path, (65500, 65500), decode_all=True) == said


def test_a_header_behind_a_long_one_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30)).save(path, comment=b"x" * 65_000, exif=b"Exif\0\0" + bytes(60_000))
    assert image_fault(path, (40, 30)) == ""


def test_a_whole_file_is_decoded_only_where_that_is_asked_for(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(path: Path, name: str, size: tuple[int, int]) -> None:
        raise DataError(f"{name} was decoded")

    monkeypatch.setattr(image_files, "decode", decode)
    assert image_fault(image, SIZE) == ""
    assert image_fault(image, SIZE, decode_all=True) == "a.jpg was decoded"
    assert image_faults(image.parent, ["a.jpg"], [SIZE], 1) == [""]
    assert image_faults(image.parent, ["a.jpg"], [SIZE], 1, decode_all=True) == ["a.jpg was decoded"]


def test_a_file_that_may_not_be_read_is_named(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert image_fault(image, SIZE) == "cannot be read (Permission denied)"
