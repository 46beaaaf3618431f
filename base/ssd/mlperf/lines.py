"""The lines of a result log on the disk: each is written at once, and one that was cut off is taken away."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TextIO

__all__ = ["Lines", "keep_whole_lines"]


class Lines(logging.Handler):
    """Writes each record to the file at once. Raises an error for a record that mllog could not encode or write.

    mllog catches every error of a record and logs that it could not encode it. That record comes here too.
    """

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file
        self._refused: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. A message above INFO is an error message of mllog itself."""
        refused, self._refused = self._refused, None
        if refused:
            raise refused
        if record.levelno > logging.INFO:
            raise ValueError(f"the result log cannot take a record: {record.getMessage().strip()}")
        try:
            self._file.write(record.getMessage() + "\n")
            self._file.flush()
        except OSError as error:
            self._refused = OSError(error.errno, error.strerror, self._file.name)
            raise


def keep_whole_lines(path: Path) -> bool:
    """Cut off a last line that a killed run left unfinished. Returns whether the log has a run_start."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    return b'"key": "run_start"' in whole
