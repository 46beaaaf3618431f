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
def test_the_page_is_followed_to_the_letter(root: Path, tmp_path: Path, warm_python: str) -> None:
    state = tmp_path / "state"
    state.touch()
    environ = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{Path(warm_python).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": warm_python,
        "PYTHONPATH": "",
        "SSD_CACHE_DIR": str(tmp_path / "cache"),
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
