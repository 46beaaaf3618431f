"""A skip that CI does not expect fails CI; an expected one, and any skip elsewhere, stays a skip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SKIPS = {
    "tests/vendor/csrc/test_host.py": "@pytest.mark.skipif(True, reason='no nvcc: not compiled')\ndef test_a(): ...",
    "tests/data/test_other.py": "@pytest.mark.skipif(True, reason='no nvcc: not compiled')\ndef test_a(): ...",
    "tests/vendor/triton/test_kernels.py": "def test_a(): pytest.skip('no Triton')",
    "tests/test_whole_file.py": "pytest.skip('no such library', allow_module_level=True)",
    "tests/test_expected_failure.py": "@pytest.mark.xfail(strict=True)\ndef test_a(): assert False",
}


@pytest.fixture
def run(tmp_path: Path, root: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run tests that skip, in a project of their own that has this project's conftest."""
    for name, body in SKIPS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import pytest\n{body}\n")

    def run(ci: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "conftest", "--rootdir", str(tmp_path), str(tmp_path)]
        command += ["--continue-on-collection-errors"]
        environ = {**os.environ, "CI": ci, "PYTHONPATH": str(root / "tests")}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_ci_fails_on_what_it_does_not_expect(run: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    said = run("true").stdout
    for test, reason in (
        ("test_other", "no nvcc"),
        ("test_kernels", "no Triton"),
        ("test_whole", "no such lib"),
    ):
        assert f"CI expects no such skip: Skipped: {reason}" in said, test
    assert "1 failed, 1 skipped, 1 xfailed, 2 errors" in said, said
    ended = run("")
    assert (ended.returncode, "4 skipped, 1 xfailed" in ended.stdout) == (0, True), ended.stdout


def test_every_expected_skip_names_files_a_reason_and_why(root: Path) -> None:
    lines = [line for line in (root / "tests" / "expected_skips.txt").read_text().splitlines() if line[:1] != "#"]
    files = [str(path.relative_to(root)) for path in (root / "tests").rglob("test_*.py")]
    assert lines
    for line in lines:
        test, reason, why = line.split(" | ")
        named = [name for name in files if re.match(test, name)]
        assert named, f"no such test file: {test}"
        assert any(reason in (root / name).read_text() for name in [*named, "tests/conftest.py"]), reason
        assert why
