"""Whose files are believed: by owner and mode, of the file and of every folder that leads to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssd.trust import make_folder, why_path_untrusted, why_untrusted

STRANGER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "kernels"
    make_folder(folder)
    path = folder / "a.so"
    path.write_bytes(b"x")
    path.chmod(0o644)
    return path


def test_ones_own_file_is_believed(file: Path) -> None:
    assert why_path_untrusted(file) == ""
    assert why_untrusted(file.stat()) == why_untrusted(Path("/").stat()) == ""


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_may_write_is_not(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert why_path_untrusted(file) == f"{file}: others may write to it (mode {mode:o})"


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_nor_one_whose_folder_others_may_write(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    assert why_path_untrusted(file) == f"{file.parent}: others may write to it (mode {mode:o})"


def test_nor_one_below_a_folder_that_everybody_may_write(file: Path) -> None:
    above = file.parent.parent
    above.chmod(0o777)
    assert why_path_untrusted(file) == f"{above}: everybody may write to it (mode 777)"
    above.chmod(0o1777)  # sticky, as /tmp is
    assert why_path_untrusted(file) == ""


@needs_root
def test_a_file_or_folder_of_another_owner_is_not(file: Path) -> None:
    os.chown(file, STRANGER, STRANGER)
    assert why_path_untrusted(file) == f"{file}: it belongs to user {STRANGER}"
    assert why_untrusted(file.stat()) == f"it belongs to user {STRANGER}"
    os.chown(file, 0, 0)
    os.chown(file.parent, STRANGER, STRANGER)
    assert why_path_untrusted(file) == f"{file.parent}: it belongs to user {STRANGER}"


def test_a_link_is_looked_at_from_both_ends(file: Path, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    link = open_to_all / "a.so"
    link.symlink_to(file)
    assert why_path_untrusted(link) == ""
    open_to_all.chmod(0o777)
    assert why_path_untrusted(link) == f"{open_to_all}: others may write to it (mode 777)"
    open_to_all.chmod(0o755)
    file.parent.chmod(0o777)
    assert why_path_untrusted(link) == f"{file.parent}: others may write to it (mode 777)"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        why_path_untrusted(tmp_path / "absent")


def test_made_folders_are_not_open_to_others_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]
    make_folder(tmp_path / "a" / "b")
