"""One process of a run under the launcher: a signal unwinds it, and it writes how it ended to the launcher's folder.

A worker that ends with an outcome (target reached, not reached, max_steps) exits with 0 and writes its code to a file.
With a code other than 0, torchrun's agent would end the other workers before they are done. This module needs no torch.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ssd.errors import EXIT_INTERNAL, EXIT_KILLED, as_ssd_error
from ssd.signals import handled_by
from ssd.terminal import settle_streams

__all__ = ["LAUNCHER", "OUTCOME", "SIGNALS", "run_as_worker"]

OUTCOME = "SSD_OUTCOME_DIR"
"""Environment variable: the launcher's folder. Each worker writes RANK.pid there, and RANK.json about its end."""
LAUNCHER = "SSD_LAUNCHER_PID"
"""Environment variable: the launcher's process id. A worker whose parent is another process has lost its launcher."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""The signals by which a terminal or a scheduler ends a run, or warns of the end."""
PR_SET_PDEATHSIG = 1
"""The option of prctl(2) that sets the signal which the kernel sends to this process when its parent ends."""


class Killed(BaseException):
    """Raised when a signal asks this process to end. It unwinds the run, so that the run's log says so."""

    def __init__(self, number: int) -> None:
        super().__init__(f"killed by signal {number}")
        self.exit_code = EXIT_KILLED + number


def _raise_killed(number: int, frame: FrameType | None) -> None:
    # No further signal may interrupt the unwinding. The kernel sends SIGTERM more than once when a launcher with many
    # threads ends: each time that its children get a new parent, first another thread of it and then init.
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise Killed(number)


def run_as_worker(work: Callable[[], int]) -> int:
    """Run `work`, which is one process of a run. Returns its exit code, and the signals' handlers are as before.

    Under the launcher this function does not return: it writes code and message to the launcher's folder and ends the
    process.
    """
    with handled_by(_raise_killed, SIGNALS):
        folder = os.environ.get(OUTCOME)
        if folder is not None:
            _work_for_launcher(work, folder)
        try:
            return work()
        except Killed as error:
            return error.exit_code
        finally:
            settle_streams()


def _work_for_launcher(work: Callable[[], int], folder: str) -> NoReturn:
    """Run `work`, leave code and message of its end in the launcher's folder, and end the process."""
    rank = os.environ["RANK"]
    try:
        _end_with_launcher()
        Path(folder, f"{rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
        code, message, trace = work(), "", ""
        exit_code = 0
    except Killed as error:
        exit_code = code = error.exit_code
        message, trace = f"killed by signal {code - EXIT_KILLED}", ""
    except Exception as error:  # of a defect, the launcher shows the traceback of the process that failed first
        if known := as_ssd_error(error):
            exit_code = code = known.exit_code
            message, trace = str(known), ""
        else:
            exit_code = code = EXIT_INTERNAL
            message, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    record = {"code": code, "message": message, "traceback": trace, "time": time.time()}
    if _has_launcher(code):
        part = Path(folder, f"{rank}.part")
        part.write_text(json.dumps(record), encoding="utf-8")
        part.replace(Path(folder, f"{rank}.json"))
    else:  # the launcher is gone: nobody would read the record, and nobody else removes the folder
        shutil.rmtree(folder, ignore_errors=True)
    settle_streams()
    os._exit(exit_code)  # everything is written, and threads of libraries may abort or hang an interpreter that exits


def _end_with_launcher() -> None:
    """Let the kernel send SIGTERM to this process when its launcher ends, even by SIGKILL.

    Raises Killed if the launcher has ended already. It may end before the kernel is asked, so the parent's process id
    is compared afterwards.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if not _is_child():
        raise Killed(signal.SIGTERM)


def _has_launcher(code: int) -> bool:
    """Whether the launcher still runs. Asked at the end of this process, which ends with `code`.

    The kernel sends SIGTERM when the launcher's main thread ends. Other threads may keep its process id alive for a
    moment, so after SIGTERM this function asks for half a second.
    """
    until = time.monotonic() + (0.5 if code == EXIT_KILLED + signal.SIGTERM else 0.0)
    while _is_child():
        if time.monotonic() >= until:
            return True
        time.sleep(0.02)
    return False


def _is_child() -> bool:
    return os.environ.get(LAUNCHER) in (None, str(os.getppid()))
