"""A file is written whole: a reader sees the old content or the new one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from ssd.files import keep_as, sync_folder, whole_file, write_whole


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


def test_a_block_that_raises_leaves_the_old_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")
    with pytest.raises(TypeError), whole_file(path) as file:
        file.writelines([b"half", "no bytes"])
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.json", "old")]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_the_first_error_is_the_one_that_is_raised(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that breaks, what was begun cannot be removed either."""

    def refuse(path: Path, *others: object, **named: object) -> None:
        raise OSError(errno.EBUSY, "cannot be removed")

    def fail(handle: int) -> None:
        raise OSError(number, "broken")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        write_whole(tmp_path / "a.json", "new")


def test_content_and_then_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced with all of its content while it has another name, and the folder once it has its own."""
    synced = []

    def sync(handle: int) -> None:
        status = os.fstat(handle)
        names = sorted(one.name for one in tmp_path.iterdir())
        synced.append((stat.S_ISDIR(status.st_mode), status.st_size if stat.S_ISREG(status.st_mode) else 0, names))

    monkeypatch.setattr(os, "fsync", sync)
    before = os.listdir("/proc/self/fd")
    write_whole(tmp_path / "a.json", "new")
    assert synced == [(False, 3, ["a.json.part"]), (True, 0, ["a.json"])]
    assert os.listdir("/proc/self/fd") == before, "no file is left open"
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "a.json")


def test_an_error_of_a_second_name_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "link", fail)
    write_whole(tmp_path / "new", "1")
    write_whole(tmp_path / "old", "0")
    with pytest.raises(OSError, match="broken"):
        keep_as(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "0"


def test_nothing_is_removed_after_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no error of a removal can end a run whose file is written."""
    monkeypatch.setattr(Path, "unlink", None)
    write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"


@pytest.mark.parametrize(("number", "raises"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced(
    number: int, raises: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no such thing. Any other error is one."""
    fsync = os.fsync

    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, "no")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    if raises:
        with pytest.raises(OSError, match="no"):
            write_whole(tmp_path / "a.json", "new")
    else:
        write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_kept_under_a_second_name(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a file can have two names here or not; and again where a killed process has left one on the way."""
    path, other = tmp_path / "new", tmp_path / "old"
    keep_as(path, other)
    assert not any(tmp_path.iterdir())
    if not links:

        def refuse(source: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "no second names here")

        monkeypatch.setattr(os, "link", refuse)
    for text in ("1", "2"):
        write_whole(path, text)
        (tmp_path / "old.part").write_text("left by a killed process")
        keep_as(path, other)
        keep_as(path, other)
        assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"new": text, "old": text}
    write_whole(path, "3")
    assert other.read_text() == "2"
