"""Files of torch.save, whole and damaged: one DataError, whichever of torch, zipfile and pickle finds the damage."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd import tensor_file
from ssd.errors import DataError
from ssd.tensor_file import read_tensors

STATE = {"conv.weight": torch.arange(12.0).reshape(3, 4), "step": 7, "names": ["a", ("b", 2)]}


def saved(zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


CONTENT = {zipped: saved(zipped) for zipped in (True, False)}


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_plain_values_are_read(zipped: bool) -> None:
    found = read_tensors(CONTENT[zipped], "it", "mend it")
    assert torch.equal(found.pop("conv.weight"), STATE["conv.weight"])
    assert found == {"step": 7, "names": ["a", ("b", 2)]}


@given(st.booleans(), st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_a_changed_byte_is_a_data_error_or_harmless(zipped: bool, place: int, change: int) -> None:
    content = bytearray(CONTENT[zipped])
    content[place % len(content)] ^= change
    with suppress(DataError):  # a change that does no harm is let through, as of padding
        read_tensors(bytes(content), "it", "mend it")


@given(st.booleans(), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_file_cut_anywhere_is_a_data_error(zipped: bool, place: int) -> None:
    content = CONTENT[zipped]
    with pytest.raises(DataError, match=r"^it (is|holds) "):
        read_tensors(content[: place % (len(content) - 1)], "it", "mend it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "it is not a file written by torch.save (4 bytes): mend it"),
        (b"\x80\x02\xff.", "it is damaged or not a file written by torch.save: mend it"),
        (b"PK\x03\x04", "it is damaged or cut short (4 bytes; BadZipFile: File is not a zip file): mend it"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as refusal:
        read_tensors(content, "it", "mend it")
    assert str(refusal.value) == message


def test_a_changed_number_in_a_zip_is_found_by_its_checksum() -> None:
    content = CONTENT[True]
    number = struct.pack("<f", 11.0)
    assert content.count(number) == 1
    with pytest.raises(DataError, match=r"it is damaged or cut short .* checksum of .* is wrong\): mend it"):
        read_tensors(content.replace(number, struct.pack("<f", 12.0)), "it", "mend it")


@pytest.mark.parametrize("raised", [AssertionError, struct.error, IndexError, TypeError, MemoryError, RecursionError])
def test_whatever_a_library_raises_is_the_files_fault(monkeypatch: pytest.MonkeyPatch, raised: type[Exception]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised("second \x1b[2J\nline")

    monkeypatch.setattr(tensor_file.torch, "load", fail)
    with pytest.raises(DataError, match=rf"it is damaged .*{raised.__name__}: second \\x1b\[2J\): mend it"):
        read_tensors(CONTENT[True], "it", "mend it")


class Loud:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Loud()}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds Python objects"):
        read_tensors((tmp_path / "a.pt").read_bytes(), "it", "mend it")
    assert capsys.readouterr().out == ""
