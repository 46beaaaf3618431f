"""A file is written whole: a reader sees the old content or the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.files import write_whole


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("old", "new: ä"):
        write_whole(path, text)
        assert path.read_bytes() == text.encode("utf-8")
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_what_cannot_be_written_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")
    (tmp_path / "a.json.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(path, "new")
    assert path.read_text() == "old"
