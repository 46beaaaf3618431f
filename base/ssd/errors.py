"""How a run can end: one exception class for each kind of mistake, and one exit code for each class.

Every error that a user can cause is raised as one of these classes. Its message says what is wrong, where, and what to
do. The command line prints only the message and exits with the class's code. Any other exception is a defect of this
project: its traceback is shown and the exit code is 1. Code 128 + n means "killed by signal n", as a shell reports it.
"""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path

__all__ = [
    "EXIT_BAD_CONFIG",
    "EXIT_BAD_DATA",
    "EXIT_DIFFERENT",
    "EXIT_INTERNAL",
    "EXIT_KILLED",
    "EXIT_LOST_PEER",
    "EXIT_MACHINE",
    "EXIT_MAX_STEPS",
    "EXIT_MEANING",
    "EXIT_NOT_CONVERGED",
    "EXIT_NOT_FINITE",
    "EXIT_REACHED",
    "ConfigError",
    "DataError",
    "LostPeerError",
    "MachineError",
    "NotFiniteError",
    "SsdError",
    "as_ssd_error",
    "was_cut_off",
]

EXIT_REACHED = 0
EXIT_INTERNAL = 1
EXIT_BAD_CONFIG = 2
EXIT_BAD_DATA = 3
EXIT_NOT_CONVERGED = 4
EXIT_MAX_STEPS = 5
EXIT_NOT_FINITE = 6
EXIT_MACHINE = 7
EXIT_LOST_PEER = 8
EXIT_DIFFERENT = 9
EXIT_KILLED = 128

EXIT_MEANING = {
    EXIT_REACHED: "reached the target (or, for verbs that do not train, done)",
    EXIT_INTERNAL: "unexpected error: a defect of this project, with its traceback",
    EXIT_BAD_CONFIG: "bad configuration or command line",
    EXIT_BAD_DATA: "bad data: missing, corrupt or inconsistent files",
    EXIT_NOT_CONVERGED: "trained all its epochs without reaching the target",
    EXIT_MAX_STEPS: "ended by max_steps",
    EXIT_NOT_FINITE: "the loss became infinite or not a number",
    EXIT_MACHINE: "the machine lacks what the run asks for (device, library, memory, disk, open files)",
    EXIT_LOST_PEER: "another process or host of the run was lost",
    EXIT_DIFFERENT: "two runs that must be the same part (compare --assert-equal)",
    EXIT_KILLED: "128 + n: killed by signal n",
}

_CUT_OFF = (EXIT_INTERNAL, EXIT_MACHINE, EXIT_LOST_PEER)


def was_cut_off(code: int) -> bool:
    """Whether a run that ended with this exit code can be continued by the same command."""
    return code >= EXIT_KILLED or code in _CUT_OFF


class SsdError(Exception):
    """An error that the user can mend. `exit_code` is the exit code of the process."""

    exit_code = EXIT_INTERNAL


class ConfigError(SsdError):
    """A key, a value, or a combination of them with which no run is possible."""

    exit_code = EXIT_BAD_CONFIG


class DataError(SsdError):
    """A file of the data set or a checkpoint that is missing, corrupt, or not what it claims to be."""

    exit_code = EXIT_BAD_DATA


class NotFiniteError(SsdError):
    """The training loss was infinite or not a number."""

    exit_code = EXIT_NOT_FINITE


class MachineError(SsdError):
    """The machine has no such device, library, memory or disk space."""

    exit_code = EXIT_MACHINE


class LostPeerError(SsdError):
    """A collective operation failed or timed out because another process is gone."""

    exit_code = EXIT_LOST_PEER


NO_ROOM = "make room on its disk, or name a folder on another"
NO_PERMISSION = "give this user the permission, or name another path"
WRONG_KIND = "a file stands where a folder should be: name another path"
REMEDIES: dict[int, tuple[type[SsdError], str]] = {
    errno.ENOSPC: (MachineError, NO_ROOM),
    errno.EDQUOT: (MachineError, NO_ROOM),
    errno.EACCES: (MachineError, NO_PERMISSION),
    errno.EPERM: (MachineError, NO_PERMISSION),
    errno.EROFS: (MachineError, NO_PERMISSION),
    errno.EEXIST: (ConfigError, WRONG_KIND),
    errno.ENOTDIR: (ConfigError, WRONG_KIND),
    errno.EISDIR: (ConfigError, "a folder stands where a file should be: name another path"),
    errno.ELOOP: (ConfigError, "its links lead in a circle: name another path"),
    errno.ENAMETOOLONG: (ConfigError, "name a shorter path"),
    errno.ENOENT: (DataError, "restore it, or name another path"),
    errno.EFBIG: (MachineError, "raise the limit of a file's size (ulimit -f)"),
    errno.EMFILE: (MachineError, "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: (MachineError, "end other programs, or raise the system's limit (fs.file-max)"),
    errno.ENOMEM: (MachineError, "end other programs, or ask for less (smaller batches, fewer workers)"),
}
"""For each error number of the operating system: the class to raise, and what the message tells the user to do."""
ANY_OTHER = MachineError, "look at its disk, mount or network, and in the system's log"
"""The same for every error number that is not in `REMEDIES`, such as EIO of a broken disk."""


def as_ssd_error(error: BaseException) -> SsdError | None:
    """`error` as an SsdError: itself, or what a machine lacks, with a remedy. None means a defect of ours.

    Code that opens a path reports the errors that it expects there. This function covers what can happen to any path:
    a full disk, a missing permission, a file where a folder should be, a broken disk. It also covers too little memory
    and a library that cannot be loaded. An OSError without a number does not come from the operating system, so it
    counts as a defect.
    """
    if isinstance(error, SsdError):
        return error
    if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is None and ".so" in str(error)):
        return _of_a_library(error)  # ctypes raises an OSError without a number
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
        said = str(error).partition("\n")[0][:200]
        return MachineError(f"not enough memory{said and f' ({said})'}; {REMEDIES[errno.ENOMEM][1]}")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return MachineError(f"{error}; raise the limit of processes (ulimit -u), or lower num_workers")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    kind, remedy = REMEDIES.get(error.errno, ANY_OTHER)
    return kind(f"{error.filename or 'a file of this run'}: {error.strerror}; {remedy}")


_OUT_OF_MEMORY = re.compile("^OutOfMemoryError:|^RuntimeError: .*(can't allocate memory|not enough memory)")
"""How torch says that there is no memory, on a device and on the host."""
REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"


def _of_a_library(error: ImportError | OSError) -> MachineError | None:
    """A library that is missing or cannot be loaded. None for a module of this package, which is a defect."""
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "ssd":
        return None
    python = f"{sys.executable} (Python {sys.version.partition(' ')[0]})"
    if isinstance(error, ModuleNotFoundError):
        return MachineError(
            f"{python} has no module {error.name}; install {REQUIREMENTS} into it, or let `make venv` make an "
            "environment, or name another interpreter in the variable PYTHON"
        )
    return MachineError(
        f"{python} cannot load a library: {error}; where memory is limited (ulimit -v), raise the "
        f"limit, else install {REQUIREMENTS} anew"
    )
