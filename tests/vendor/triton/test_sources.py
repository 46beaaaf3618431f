"""The hash of code by which a kept page is found to be old."""

from __future__ import annotations

from pathlib import Path

from ssd.ops import OP_NAMES
from ssd.vendor.triton.sources import KERNELS, code_digest


def digest_of(folder: Path, text: str) -> str:
    (folder / "one.py").write_text(text)
    return code_digest([folder / "one.py"])


def test_code_changes_it_and_words_do_not(tmp_path: Path) -> None:
    one = digest_of(tmp_path, '"""One."""\nx = 1  # a comment\ndef f():\n    """One."""\n    return x\n')
    assert one == digest_of(tmp_path, '"""Two."""\n\nx = 1\ndef f():\n    """Two."""\n\n    return x\n')
    assert one != digest_of(tmp_path, "x = 2\ndef f():\n    return x\n")
    assert len(one) == 16


def test_the_kernels_of_every_op_are_in_it() -> None:
    assert {file.stem for file in KERNELS} == {*OP_NAMES, "select"}
    assert all(file.is_file() for file in KERNELS)
