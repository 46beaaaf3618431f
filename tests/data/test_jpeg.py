"""Headers of JPEG files against PIL, and files that claim too much."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ssd.data.decode
from ssd.data.decode import decode
from ssd.data.jpeg import MAX_SCANS, Frame, read_frame, why_too_much
from ssd.errors import DataError


def jpeg(width: int = 80, height: int = 90, **options: object) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def claims(content: bytes, width: int, height: int) -> bytes:
    """The file with another size in its frame header."""
    place = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return content[: place + 5] + size + content[place + 9 :]


def with_scans(content: bytes, more: int) -> bytes:
    """A progressive file whose last scan is there `more` times more."""
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:end] + content[start:end] * more + content[end:]


@pytest.mark.parametrize(("options", "scans"), [({}, 1), ({"progressive": True}, 10)])
def test_size_and_scans_are_read(options: dict, scans: int) -> None:
    assert read_frame(jpeg(80, 90, **options)) == Frame(80, 90, scans)


def test_a_file_of_one_pass_is_read_up_to_its_scan(tmp_path: Path) -> None:
    """libjpeg refuses a second scan of a sequential frame whose first has all components. So none costs time."""
    content = jpeg(80, 90)
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    repeated = content[:end] + content[start:end] * (MAX_SCANS + 50) + content[end:]
    assert read_frame(content[: start + 5]) == read_frame(memoryview(repeated)) == Frame(80, 90, 1)
    (tmp_path / "often.jpg").write_bytes(repeated)
    with pytest.raises(DataError, match="not a whole JPEG file"):
        decode(tmp_path / "often.jpg", 7)


def test_a_scan_for_each_component_is_counted() -> None:
    """Such a file needs as many passes as it has scans."""
    content = jpeg(80, 90)
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    assert content[start + 4] == 3
    one = content[:start] + content[start : start + 4] + b"\x01" + content[start + 5 : end]
    assert read_frame(one + content[end:]) == Frame(80, 90, 1)
    assert read_frame(one + one[start:] * MAX_SCANS + content[end:]) == Frame(80, 90, MAX_SCANS + 1)


def test_a_thumbnail_and_a_comment_are_stepped_over() -> None:
    """Both may hold a whole JPEG file, with sizes and scans of its own."""
    content = jpeg(80, 90, exif=b"Exif\0\0" + jpeg(16, 8), comment=jpeg(7, 5))
    assert read_frame(content) == Frame(80, 90, 1)


def test_what_follows_the_end_is_not_read() -> None:
    """Phones append previews and films."""
    for length in (b"", b"\x00\x02"):
        assert read_frame(jpeg(80, 90) + length + b"\xff\xda\x00\x02" * 1000) == Frame(80, 90, 1)


def test_padding_and_rubbish_before_a_marker_are_stepped_over() -> None:
    content = jpeg(80, 90)
    place = content.index(b"\xff\xdb")
    assert read_frame(content[:place] + b"\x00\x01\xff\xff\xff" + content[place:]) == Frame(80, 90, 1)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", jpeg()[:160], b"GIF89a"])
def test_no_header_is_none(content: bytes) -> None:
    assert read_frame(content) is None


@given(st.binary(max_size=200), st.integers(0, 700))
@settings(deadline=None)
def test_any_bytes_are_read_without_an_error(noise: bytes, place: int) -> None:
    content = jpeg()
    read_frame(content[:place] + noise + content[place + len(noise) :])


def test_headers_of_real_images_are_pils(tiny_coco: Path) -> None:
    paths = sorted((tiny_coco / "val2017").iterdir())[:20]
    assert paths
    for path in paths:
        frame = read_frame(path.read_bytes())
        with Image.open(path) as image:
            assert frame is not None
            assert (frame.width, frame.height) == image.size
            assert why_too_much(frame) == ""


@pytest.mark.parametrize("size", [None, (65500, 65500), (80, 90)])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_small_file_that_claims_gigabytes_is_refused_before_it_takes_them(
    tmp_path: Path, size: tuple[int, int] | None, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.jpg"
    path.write_bytes(claims(jpeg(progressive=progressive), 65500, 65500))
    said = (
        "its annotation file says 80x90" if size == (80, 90) else "claims 65500 x 65500 pixels, and at most 89,478,485"
    )
    monkeypatch.setattr(ssd.data.decode, "decoder", None)  # not reached
    with pytest.raises(DataError, match=rf"huge\.jpg \(image 7\): .*{said}"):
        decode(path, 7, size)


def test_a_file_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slow.jpg"
    content = jpeg(progressive=True)
    path.write_bytes(with_scans(content, MAX_SCANS - 10))
    assert decode(path, 7).shape == (3, 90, 80)
    path.write_bytes(with_scans(content, MAX_SCANS - 9))
    with pytest.raises(DataError, match="has more than 100 scans"):
        decode(path, 7)
