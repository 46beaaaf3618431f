"""One process at a time, and the other one is named."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ssd import locks
from ssd.errors import ConfigError
from ssd.locks import hold

BASE = Path(locks.__file__).parent.parent
HOLDER = """
import sys
from pathlib import Path
from ssd.locks import hold
with hold(Path(sys.argv[1]), "the folder"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BASE)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_another_process_is_named_with_its_host(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with another_process(path) as process:
        named = rf"the folder is in use by process {process.pid} on host {socket.gethostname()}: wait until"
        with pytest.raises(ConfigError, match=named), hold(path, "the folder"):
            pytest.fail("held twice")
        assert path.exists(), "the loser leaves the lock where it is"
        process.communicate("\n")
    with hold(path, "the folder"):
        assert path.exists()
    assert not path.exists()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with another_process(path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert path.exists(), "its file is left"
    with hold(path, "the folder"):
        pass


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path / "lock", "the folder"):
        raise KeyError
    with hold(tmp_path / "lock", "the folder"):
        pass


def test_a_file_removed_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removed its file between our opening and our locking: that lock would protect nothing."""
    path, lock = tmp_path / "lock", locks._lock
    removed: list[int] = []

    def late(handle: int, at: Path, what: str) -> None:
        if not removed:
            at.unlink()
            removed.append(handle)
        lock(handle, at, what)

    monkeypatch.setattr(locks, "_lock", late)
    with hold(path, "the folder"):
        assert str(os.getpid()) in path.read_text()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": "x", "host": 1}'])
def test_a_lock_without_words_is_another_process_s(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock"
    with another_process(path) as process:
        path.write_text(text)
        with pytest.raises(ConfigError, match="in use by another process"), hold(path, "the folder"):
            pytest.fail("held twice")
        process.communicate("\n")


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with hold(tmp_path / "lock", "the folder"):
        assert "no locks" in caplog.text


def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int, how: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(locks.fcntl, "flock", fail)
    with pytest.raises(OSError, match="broken"), hold(tmp_path / "lock", "the folder"):
        pass
