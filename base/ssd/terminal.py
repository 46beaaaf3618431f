"""What is printed is for people. Where nobody can read it, the run goes on, and ends with its own exit code.

A reader that has gone (`| head`), a full disk behind a redirection, a closed stream: each makes a write fail, and none
of them is the run's failure. What matters is in the run's files. So the command line prints into `Unfailing` streams,
which remember what was refused; a verb whose output is all that it gives can then say that it was lost.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

__all__ = ["Unfailing", "settle_streams", "unfailing_streams"]


class Unfailing:
    """A text stream that lets pass what the stream below refuses. `refused` is the first error that this was."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.refused: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write to the stream below. The number of characters, written or not."""
        with self._remembered():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        with self._remembered():
            self._stream.flush()

    def lost(self) -> str:
        """Why something that was written has not arrived; "" where all has, or its reader has gone, who had enough."""
        self.flush()
        if self.refused is None or isinstance(self.refused, BrokenPipeError):
            return ""
        return str(getattr(self.refused, "strerror", None) or self.refused)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own: encoding, isatty, fileno, ..."""
        return getattr(self._stream, name)

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self.refused = self.refused or error


@contextmanager
def unfailing_streams() -> Iterator[Unfailing]:
    """Standard output and standard error that never fail inside the context; yields standard output.

    Either may write the escape of a character that its encoding lacks. One that was closed before the process began is
    the null device.
    """
    before = sys.stdout, sys.stderr
    out, err = (Unfailing(_open(stream)) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before
        settle_streams()


def _open(stream: TextIO | None) -> TextIO:
    if stream is None:  # its number is free, and the next file that is opened would get it, and what libraries print
        return open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def settle_streams() -> None:
    """Flush standard output and standard error at the end of a process.

    A stream that cannot be flushed is connected to the null device. Python flushes both once more when it exits, and
    would turn the exit code into 120 there.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed before the process began
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
