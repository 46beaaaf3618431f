"""Printing where nobody can read: no exception, and an exit code that stays what it was."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.terminal import Unfailing, settle_streams, unfailing_streams

PROGRAM = """
import sys
from ssd.terminal import unfailing_streams
with unfailing_streams():
    for stream in (sys.stdout, sys.stderr):
        print("x" * 100000, file=stream, flush=True)
    print("left in the buffer")
sys.exit(5)
"""
SSD = [sys.executable, "-m", "ssd"]


def ended(root: Path, words: list[str], stream: str, how: str) -> tuple[int, str]:
    """The exit code of a command whose standard output or error cannot be written, and what it said on the other."""
    number = {"stdout": 1, "stderr": 2}[stream]
    reader, writer = os.pipe()
    os.close(reader)
    redirection = {"reader gone": f">&{writer}", "disk full": ">/dev/full", "closed": ">&-"}[how]
    said = subprocess.run(
        ["bash", "-c", f'"$@" {number}{redirection}', "bash", *words],
        cwd=root / "base",
        env={**os.environ, "PYTHONPATH": str(root / "base")},
        pass_fds=[writer],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(writer)
    assert "Traceback" not in said.stdout + said.stderr
    assert "Exception ignored" not in said.stdout + said.stderr
    return said.returncode, said.stdout + said.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["reader gone", "disk full", "closed"])
def test_the_exit_code_is_the_program_s(root: Path, stream: str, how: str) -> None:
    assert ended(root, [sys.executable, "-c", PROGRAM], stream, how)[0] == 5


@pytest.mark.parametrize(
    ("how", "expected"), [("reader gone", 0), ("closed", 0), ("disk full", 7)], ids=["reader gone", "closed", "full"]
)
def test_a_verb_that_only_prints_fails_where_its_output_is_lost(root: Path, how: str, expected: int) -> None:
    code, said = ended(root, [*SSD, "config", "--name", "cpu"], "stdout", how)
    assert code == expected
    assert ("standard output cannot be written (No space left on device)" in said) == (expected == 7)


@pytest.mark.parametrize("how", ["reader gone", "closed", "disk full"])
def test_a_verdict_is_the_verb_s_own(root: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "results").mkdir()
    assert ended(root, [*SSD, "package", "--check", str(tmp_path)], "stdout", how)[0] == 3


def test_what_a_stream_refuses_is_remembered_and_let_pass() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    stream = Unfailing(Full())
    assert stream.write("text") == 4
    stream.flush()
    assert isinstance(stream.refused, OSError)
    assert stream.refused.errno == 28
    assert stream.lost() == "No space left on device"
    assert Unfailing(io.StringIO()).lost() == ""


def test_what_is_left_in_a_buffer_is_lost_too() -> None:
    stream = Unfailing(open("/dev/full", "w", encoding="utf-8"))  # noqa: SIM115  closed where it is collected
    stream.write("text")
    assert stream.refused is None
    assert stream.lost() == "No space left on device"


def test_a_stream_that_cannot_be_flushed_leads_nowhere_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream:
        stream.write("text")
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", stream)
        before = os.listdir("/proc/self/fd")
        settle_streams()
        assert os.listdir("/proc/self/fd") == before, "no file is left open"
        assert os.readlink(f"/proc/self/fd/{stream.fileno()}") == os.devnull


def test_a_stream_that_was_closed_before_is_the_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with unfailing_streams() as out:
        print("text")
        assert out.name == os.devnull
    out.close()


def test_a_stream_of_ascii_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    under = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(under, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with unfailing_streams():
        sys.stdout.write("Gr\u00f6\u00dfe \udcff")
    assert under.getvalue() == b"Gr\\xf6\\xdfe \\udcff"
