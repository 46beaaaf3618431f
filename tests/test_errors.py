"""Exit codes are a promise to scripts: each is a number that stays, and what a file system refuses has its own."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from ssd import errors
from ssd.errors import (
    ConfigError,
    DataError,
    LostPeerError,
    MachineError,
    NotFiniteError,
    SsdError,
    as_ssd_error,
    was_cut_off,
)

CODES = {
    "REACHED": 0, "INTERNAL": 1, "BAD_CONFIG": 2, "BAD_DATA": 3, "NOT_CONVERGED": 4, "MAX_STEPS": 5, "NOT_FINITE": 6,
    "MACHINE": 7, "LOST_PEER": 8, "DIFFERENT": 9, "KILLED": 128,
}  # fmt: skip


def test_the_codes() -> None:
    found = {name.removeprefix("EXIT_"): code for name, code in vars(errors).items() if re.match("EXIT_(?!MEAN)", name)}
    assert found == CODES
    assert list(errors.EXIT_MEANING) == sorted(CODES.values())


def test_an_outcome_and_a_refusal_are_not_cut_off() -> None:
    assert [code for code in (*range(10), 127, 128, 130, 255) if was_cut_off(code)] == [1, 7, 8, 128, 130, 255]


def test_the_readme_tells_every_code(root: Path) -> None:
    told = re.findall(r"^\| (\d+)(?: \+ n)? \|", (root / "README.md").read_text(), re.MULTILINE)
    assert [int(code) for code in told] == sorted(CODES.values())


@pytest.mark.parametrize(
    ("error", "code"),
    [(SsdError, 1), (ConfigError, 2), (DataError, 3), (NotFiniteError, 6), (MachineError, 7), (LostPeerError, 8)],
)
def test_an_error_knows_its_code(error: type[SsdError], code: int) -> None:
    assert error("why").exit_code == code


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, MachineError, "make room"),
        (errno.EDQUOT, MachineError, "make room"),
        (errno.EACCES, MachineError, "permission"),
        (errno.EPERM, MachineError, "permission"),
        (errno.EROFS, MachineError, "permission"),
        (errno.EEXIST, ConfigError, "name another path"),
        (errno.ENOTDIR, ConfigError, "name another path"),
        (errno.EISDIR, ConfigError, "name another path"),
        (errno.ELOOP, ConfigError, "name another path"),
        (errno.ENAMETOOLONG, ConfigError, "shorter path"),
        (errno.ENOENT, DataError, "restore it"),
        (errno.EIO, MachineError, "look at its disk"),
        (errno.ESTALE, MachineError, "look at its disk"),
        (errno.EFBIG, MachineError, "ulimit -f"),
        (errno.EMFILE, MachineError, "ulimit -n"),
        (errno.ENFILE, MachineError, "fs.file-max"),
        (errno.ENOMEM, MachineError, "smaller batches"),
    ],
)
def test_what_a_file_system_refuses(number: int, kind: type[SsdError], remedy: str) -> None:
    found = as_ssd_error(OSError(number, "refused", "/data/x"))
    assert type(found) is kind
    assert str(found).startswith("/data/x: refused; ")
    assert remedy in str(found)
    assert str(as_ssd_error(OSError(number, "refused"))).startswith("a file of this run: refused; ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory; "),
        (MemoryError("Unable to allocate 9 B"), "not enough memory (Unable to allocate 9 B); "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), "not enough memory ("),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nTried"), "(CUDA out of memory.); "),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (ImportError("libtorch_cpu.so: failed to map segment"), "cannot load a library: libtorch_cpu"),
        (OSError("libcublasLt.so.13: failed to map segment"), "cannot load a library: libcublasLt"),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), "has no module rich; install"),
    ],
)
def test_what_a_machine_lacks(error: Exception, words: str) -> None:
    found = as_ssd_error(error)
    assert type(found) is MachineError
    assert words in str(found)
    assert "\n" not in str(found)


def test_an_error_with_a_remedy_is_itself_and_a_defect_is_none() -> None:
    error = DataError("why")
    assert as_ssd_error(error) is error
    assert as_ssd_error(OSError("without a number")) is None
    assert as_ssd_error(ValueError("x")) is None
    assert as_ssd_error(RuntimeError("x")) is None
    assert as_ssd_error(ImportError("cannot import name 'x' from 'ssd.data'", name="ssd.data")) is None
