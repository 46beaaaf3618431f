"""docs/porting.md, followed to the letter: its files are written, its commands run, its outputs looked for.

A block whose first line is a comment with a path is that file. A line of any other `sh` block is a command, run in
base/ and expected to succeed, or to exit as its comment says (`# exits 4`). A `text` block is found in the output of
the block before it, line by line and in order; `...` stands for anything within a line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd.cli import run
from ssd.errors import ConfigError
from ssd.vendor.scaffold import make_vendor, new_command

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"# (~/\S+)\n")
EXITS = re.compile(r"# exits (\d+)$")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    yield from BLOCK.findall(page.read_text())


def shown(expected: str, output: str) -> bool:
    """Whether the lines of `expected` stand in the output, in order."""
    lines = iter(output.splitlines())
    wanted = (".*".join(re.escape(part.strip()) for part in line.split("...")) for line in expected.splitlines())
    return all(any(re.search(pattern, line) for line in lines) for pattern in wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="the page is for Linux")
def test_the_page_is_followed_to_the_letter(root: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.touch()
    environ = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": "",
        "SSD_CACHE_DIR": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    environ.pop("SSD_VENDOR_PATH", None)
    output, kinds = "", set()
    for kind, content in blocks(root / "docs" / "porting.md"):
        kinds.add(kind)
        if kind == "text":
            assert shown(content, output), f"the page promises\n{content}\nand this came\n{output}"
        elif place := PATH.match(content):
            path = tmp_path / place[1].removeprefix("~/")
            assert path.parent.is_dir(), f"{place[1]}: no step has made its folder"
            path.write_text(content)
        else:
            output = ""
            for command in content.splitlines():
                expected = int(found[1]) if (found := EXITS.search(command)) else 0
                script = f"source {state}; {command}\ncode=$?; declare -px > {state}; exit $code"
                done = subprocess.run(
                    ["bash", "-c", script],
                    cwd=root / "base",
                    env=environ,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=300,
                )
                output += done.stdout
                assert done.returncode == expected, f"{command}\n{done.stdout}"
    assert kinds == {"sh", "python", "toml", "text"}


def test_promises_of_the_page_are_looked_for_in_order() -> None:
    assert shown("a ... c\nd", "x a b c\n\ny d")
    assert not shown("d\na ... c", "x a b c\ny d")
    assert not shown("a ... c", "a\nc")
    assert not shown("a.c", "abc")


# vendors new


def test_the_files_lead_to_the_next_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSD_VENDOR_PATH", raising=False)
    assert new_command("acme", tmp_path) == 0
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "acme").rglob("*") if path.is_file()} == {"vendor.py", "X1x1x1.toml"}
    assert f"export SSD_VENDOR_PATH={tmp_path}\n" in said
    assert "python -m ssd train --name acme --config smoke\n" in said
    monkeypatch.setenv("SSD_VENDOR_PATH", str(tmp_path))
    new_command("bolt", tmp_path)
    assert "export" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Acme", "9lives", "a-b", "a b", "../x", "class", "", "a.b", "a" * 65])
def test_names_that_are_no_plain_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a vendor's name"):
        make_vendor(name, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cpu", "nvidia", "iluvatar"])
def test_a_name_that_another_vendor_has_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the name '{name}' is taken: {name} exists"):
        make_vendor(name, tmp_path, {})


def test_what_is_there_is_never_written_over(tmp_path: Path, root: Path) -> None:
    (tmp_path / "acme").mkdir()
    with pytest.raises(ConfigError, match="is taken"):
        make_vendor("acme", tmp_path, {})
    assert list((tmp_path / "acme").iterdir()) == []
    with pytest.raises(ConfigError, match="'tests' is taken: tests exists"):
        make_vendor("tests", root, {})


@pytest.mark.parametrize(
    ("argv", "words"), [([], "NAME is missing"), (["acme", "--fold", "x"], "--fold"), (["acme", "b"], "'b' belongs")]
)
def test_a_wrong_command_line_says_so(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(["vendors", "new", *argv])


def test_the_readme_shows_the_file_that_is_written(root: Path, tmp_path: Path) -> None:
    made = (make_vendor("acme", tmp_path, {}) / "vendor.py").read_text()
    assert f"```python\n{made}```" in (root / "README.md").read_text()
    lines = [line for line in made.splitlines() if line]
    assert len(lines) <= 10
