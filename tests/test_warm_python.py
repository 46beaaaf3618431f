"""The stand-in for Python that starts warm: what a program sees of it is what it sees of Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, signal, sys
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ.get("WORD"), sys.stdin.read(), __name__, os.umask(0),
    signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, sys.path[0], [p for p in sys.path if p == "/added"]]))
print("to the other stream", file=sys.stderr)
sys.exit(int(os.environ.get("CODE", 0)) or None)
"""


def ended(python: str, *words: str, folder: Path, **environ: str) -> tuple[int, str, str]:
    """Exit code and both texts of a command that ignores SIGHUP."""
    done = subprocess.run(
        ["bash", "-c", 'trap "" HUP; umask 027; exec "$@"', "bash", python, *words],
        input="given",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "/added", **environ},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("form", ["-m", "-c", "file"])
@pytest.mark.parametrize("code", ["0", "5"])
def test_a_program_sees_what_it_sees_of_python(warm_python: str, tmp_path: Path, form: str, code: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = {"-m": ["-m", "program"], "-c": ["-c", PROGRAM], "file": [str(tmp_path / "program.py")]}[form]
    given = {"folder": tmp_path, "WORD": "said", "CODE": code, "PYTHONSAFEPATH": "1" if form == "-c" else ""}
    found, wanted = (ended(python, *words, "a b", "-x", **given) for python in (warm_python, sys.executable))
    assert found == wanted
    assert (found[0], found[2]) == (int(code), "to the other stream\n")


def test_torch_is_there_already_and_its_children_are_warm_too(warm_python: str, tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules, 'ssd' in sys.modules, sys.executable)"
    assert ended(warm_python, "-c", code, folder=tmp_path)[1] == f"True False {warm_python}\n"
    for words, environ in ((["-I", "-c", code], {}), (["-c", code], {"OMP_NUM_THREADS": "3"})):
        assert ended(warm_python, *words, folder=tmp_path, **environ)[1] == f"False False {sys.executable}\n"


@pytest.mark.parametrize(
    ("code", "returncode", "said"),
    [("raise ValueError('a')", 1, "ValueError: a"), ("import sys; sys.exit('why')", 1, "why")],
)
def test_how_a_program_fails(warm_python: str, tmp_path: Path, code: str, returncode: int, said: str) -> None:
    found = ended(warm_python, "-c", code, folder=tmp_path)
    assert (found[0], found[2].splitlines()[-1]) == (returncode, said)


WAITS = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *given: sys.exit(7))
pathlib.Path("pid.part").write_text(str(os.getpid())); os.rename("pid.part", "pid")
time.sleep(100)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 7), (signal.SIGUSR1, -signal.SIGUSR1), (signal.SIGKILL, -9)]
)
def test_a_signal_reaches_it_and_it_ends_with_its_client(
    warm_python: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with subprocess.Popen([warm_python, "-c", WAITS], cwd=tmp_path) as process:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode == code
    child = Path("/proc", (tmp_path / "pid").read_text())
    while child.exists():  # pytest's own limit ends a test that waits for ever
        time.sleep(0.01)
