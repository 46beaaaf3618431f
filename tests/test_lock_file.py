"""requirements.lock: the versions that CI tests, within the ranges, and a hash of every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENTRY = re.compile(r"^(\S+)==(\S+)((?: ; .*?)?) \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)


@pytest.fixture(scope="module")
def locked(root: Path) -> dict[str, str]:
    """The locked version of each package. The file has nothing but such entries."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    assert ENTRY.sub("", text) == ""
    return {canonicalize_name(entry[1]): entry[2] for entry in ENTRY.finditer(text)}


def requirements(path: Path) -> list[Requirement]:
    """The requirements of a file for Python 3.11."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line]
    here = {"python_version": "3.11", "python_full_version": "3.11.0", "platform_machine": "x86_64"}
    return [one for one in found if one.marker is None or one.marker.evaluate(here)]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_what_is_asked_for_is_locked_within_its_range(root: Path, locked: dict[str, str], name: str) -> None:
    found = requirements(root / name)
    assert len(found) > 5
    wrong = [one for one in found if not one.specifier.contains(locked.get(canonicalize_name(one.name), "0"))]
    assert wrong == []


def test_it_locks_the_versions_that_ci_tests(root: Path, locked: dict[str, str]) -> None:
    pinned = {canonicalize_name(one.name): one for one in requirements(root / "constraints.txt")}
    differ = [str(pinned[name]) for name in pinned.keys() & locked.keys() if locked[name] not in pinned[name].specifier]
    assert differ == []
    assert {"torch", "torchvision", "numpy", "pytest"} <= pinned.keys() & locked.keys()


def test_every_file_has_a_sha256(root: Path) -> None:
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    hashes = re.findall(r"--hash=(\S+)", text)
    assert len(hashes) > len(ENTRY.findall(text)) > 50
    assert [one for one in hashes if not re.fullmatch("sha256:[0-9a-f]{64}", one)] == []
