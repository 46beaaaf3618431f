"""Paths as users give them: expanded, absolute, and refused where no file can have the name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd import cli
from ssd.config import Config, resolve
from ssd.config.paths import absolute_path, usable_path
from ssd.errors import EXIT_BAD_CONFIG, ConfigError


@contextlib.contextmanager
def removed_folder(tmp_path: Path) -> Iterator[None]:
    """The current folder is there no more. pytest itself needs one, so it comes back before the test ends."""
    (tmp_path / "gone").mkdir()
    before = Path.cwd()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        yield
    finally:
        os.chdir(before)


def test_home_and_the_current_folder_are_put_in_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute_path(Path("a/../b")) == tmp_path / "b"
    assert absolute_path(Path("~/b")) == Path("/home/somebody/b")
    assert usable_path(Path("a")) == Path("a")


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "a b\tc", "-", "日本"])
def test_names_that_a_file_can_have_are_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert usable_path(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-of-this-name/x", "no home folder is known for ~nobody-of-this-name: write the path without ~"),
        ("a\0b", "a path cannot hold the character NUL"),
        ("/runs/" + "x" * 256, "a name in a path has at most 255 bytes"),
        ("/runs/" + "ü" * 128, "a name in a path has at most 255 bytes"),
        ("/x" * 1921, "a path has at most 3840 bytes"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused_in_words(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        usable_path(Path(path))
    assert usable_path(Path("/x" * 1920)) == Path("/x" * 1920)


def test_a_removed_folder_is_said_where_it_matters(tmp_path: Path) -> None:
    with removed_folder(tmp_path):
        assert resolve(["--no-pretrained", "--output", "/x"], {}).config.output == Path("/x")
        with pytest.raises(ConfigError, match=r"output = .*has been removed: go to another"):
            resolve(["--no-pretrained", "--output", "x"], {})


def test_a_run_without_a_name_in_a_removed_folder_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with removed_folder(tmp_path):
        assert cli.main(["check", "--config", "smoke"]) == EXIT_BAD_CONFIG
    assert "has been removed" in capsys.readouterr().err


def test_the_longest_path_leaves_room_for_a_runs_files() -> None:
    longest = "/" + "/".join(["x" * 239] * 16)
    assert len(os.fsencode(longest)) == 3840
    assert Config(output=longest).output == Path(longest)
    with pytest.raises(ValueError, match="at most 3840 bytes"):
        Config(output=longest + "x")
