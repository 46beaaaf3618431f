"""A result log's lines: what the disk refuses is the system's error, and the error that ends a run stays the one."""

from __future__ import annotations

import errno
import io
import logging
from pathlib import Path

import pytest

from ssd.mlperf.events import EventWriter
from ssd.mlperf.lines import Lines, keep_whole_lines


class FullDisk(io.StringIO):
    """A file whose disk takes nothing more."""

    name = "/run/result_0.txt"

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def on_a_full_disk(writer: EventWriter) -> None:
    assert writer._log
    writer._log.logger.handlers[0]._file = FullDisk()


def test_a_full_disk_is_the_system_s_error_and_names_the_log(tmp_path: Path) -> None:
    """mllog would make it an error of the record."""
    writer = EventWriter(tmp_path / "result_0.txt")
    on_a_full_disk(writer)
    for _ in range(2):
        with pytest.raises(OSError, match=r"No space left on device: '/run/result_0\.txt'") as caught:
            writer.epoch_start(1)
        assert caught.value.errno == errno.ENOSPC
    writer.close()
    writer.close()


def test_the_error_that_ends_a_run_is_the_one_that_is_raised(tmp_path: Path) -> None:
    """Also where the disk takes no run_stop. Where nothing else went wrong, that is the error."""

    def train(name: str, divisor: int) -> None:
        with EventWriter(tmp_path / name) as writer:
            writer.init_start()
            writer._begun = True
            on_a_full_disk(writer)
            _ = 1 / divisor

    with pytest.raises(ZeroDivisionError):
        train("a.txt", 0)
    with pytest.raises(OSError, match="No space left"):
        train("b.txt", 1)


def test_a_record_is_a_line_and_what_mllog_says_of_itself_is_an_error() -> None:
    file = io.StringIO()
    lines = Lines(file)
    lines.emit(logging.makeLogRecord({"levelno": logging.INFO, "msg": "a record"}))
    with pytest.raises(ValueError, match=r"the result log cannot take a record: no JSON$"):
        lines.emit(logging.makeLogRecord({"levelno": logging.WARNING, "msg": " no JSON\n"}))
    assert file.getvalue() == "a record\n"


@pytest.mark.parametrize(
    ("content", "kept", "begun"),
    [
        (b"", b"", False),
        (b"cut", b"", False),
        (b"one\ntw", b"one\n", False),
        (b'{"key": "run_start"}\n{"ke', b'{"key": "run_start"}\n', True),
        (b'one\n{"key": "run_start"}', b"one\n", False),
    ],
)
def test_a_line_that_was_cut_off_is_taken_away(tmp_path: Path, content: bytes, kept: bytes, begun: bool) -> None:
    path = tmp_path / "result_0.txt"
    path.write_bytes(content)
    assert keep_whole_lines(path) is begun
    assert path.read_bytes() == kept
