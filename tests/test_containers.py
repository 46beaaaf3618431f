"""Dockerfiles without an engine: linted, pinned, and every command in them is one that this project has."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.config import resolve
from ssd.config.verb import read
from ssd.verbs.table import VERBS

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = sorted(ROOT.glob("*/Dockerfile"))
each = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


def joined(path: Path) -> str:
    """The file's text, comments included, with continued lines joined."""
    return re.sub(r"\\\n#?", " ", path.read_text())


def commands(path: Path) -> list[tuple[str, list[str]]]:
    """(verb, its words) of each command of ours, in instructions and in comments."""
    lines = re.sub(r"^CMD \[(.*)\]$", lambda m: m[1].replace('", "', " ").strip('"'), joined(path), flags=re.M)
    found = re.findall(r"(prepare\.py|run_training\.sh|-m ssd \w+)((?: +[^\s&]+)*)", lines)
    verbs = {"prepare.py": "prepare", "run_training.sh": "launch"}
    return [(verbs.get(command, command.split()[-1]), shlex.split(words)) for command, words in found]


def test_each_vendor_has_one() -> None:
    assert [path.parent.name for path in DOCKERFILES] == sorted(path.parent.name for path in ROOT.glob("*/vendor.py"))


@each
def test_the_linter_agrees(path: Path) -> None:
    linter = shutil.which("hadolint") or shutil.which(str(Path(sys.executable).with_name("hadolint")))
    if linter is None:
        pytest.skip("hadolint is not installed (requirements-dev.txt; it has a wheel for x86_64 only)")
    linted = subprocess.run([linter, str(path)], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


@each
def test_the_base_image_is_an_argument_and_pinned(path: Path) -> None:
    (image,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", path.read_text(), flags=re.M)
    name, _, tag = image.partition(":")
    assert name
    assert re.search(r"\d+\.\d+", tag), "a tag without a version changes under our feet"
    assert re.findall(r"^FROM (.*)$", path.read_text(), flags=re.M) == ["${BASE_IMAGE}"]


@each
def test_what_is_copied_exists(path: Path) -> None:
    copied = re.findall(r"^COPY (.*) \S+$", path.read_text(), flags=re.M)
    assert copied[-1] == "."
    assert all((ROOT / name).exists() for line in copied for name in line.split())


@each
def test_its_commands_are_ours(path: Path) -> None:
    """Each verb exists and takes its flags, and the config that is named resolves."""
    found = commands(path)
    assert len(found) >= 2
    for verb, words in found:
        keys, _ = read(VERBS[verb], words)
        assert resolve(keys, {}).config.name == path.parent.name
