"""Files of arrays: what was written comes back, mapped and read-only, and a changed byte is found wherever it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.data.mapped import DAMAGED, MAGIC, checksum_of, map_arrays, write_arrays

ARRAYS = {
    "counts": np.array([1, -(2**60), 3]),
    "boxes": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::-1],
    "flags": np.array([True, False]),
    "none": np.zeros((0, 4)),
    "bytes": np.frombuffer("é\n".encode(), np.uint8),
}


def read(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        checksum_of(file)
        return map_arrays(file)


def test_arrays_come_back_mapped(tmp_path: Path) -> None:
    checksum = write_arrays(tmp_path / "new" / "a", ARRAYS)
    with (tmp_path / "new" / "a").open("rb") as file:
        assert checksum_of(file) == checksum
    found = read(tmp_path / "new" / "a")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        with pytest.raises(ValueError, match="read-only"):
            found[name][...] = 0
        assert found[name].ctypes.data % 64 == 0 or not array.size
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a"]


def test_arrays_stay_when_their_file_goes(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", ARRAYS)
    found = read(tmp_path / "a")
    write_arrays(tmp_path / "a", {"counts": np.zeros(3, np.int64)})
    assert found["counts"].tolist() == [1, -(2**60), 3]
    assert read(tmp_path / "a")["counts"].tolist() == [0, 0, 0]


@settings(deadline=None, max_examples=60)
@given(place=st.floats(0, 0.9999), flip=st.integers(0, 255))
def test_damage_anywhere_is_found(tmp_path_factory: pytest.TempPathFactory, place: float, flip: int) -> None:
    """flip: the bits that are changed in one byte; 0 cuts the file there."""
    path = tmp_path_factory.mktemp("damage") / "a"
    write_arrays(path, ARRAYS)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if flip:
        content[at] ^= flip
    path.write_bytes(content if flip else content[:at])
    with pytest.raises(DAMAGED):
        read(path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", ARRAYS)
    with pytest.raises(TypeError):
        write_arrays(tmp_path / "a", {"objects": np.array([object()])})
    assert read(tmp_path / "a")["flags"].tolist() == [True, False]
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"format": "ssd arrays 2", "arrays": {}}, "it has another format"),
        ({"format": MAGIC, "arrays": {"a": ["|O", [1], 0]}}, "it holds objects"),
    ],
)
def test_another_format_and_objects_are_refused(head: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(json.dumps(head).encode() + b"\n" + bytes(64))
    with (tmp_path / "a").open("rb") as file, pytest.raises(ValueError, match=message):
        map_arrays(file)
