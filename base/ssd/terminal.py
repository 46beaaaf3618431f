"""What is printed is for people. Where nobody can read it, the run goes on, and ends with its own exit code.

A reader that has gone (`| head`), a full disk behind a redirection, a closed stream, an encoding that lacks a letter:
each makes a write fail, and none of them is the run's failure. What matters is in the run's files.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["settle_streams", "unheard"]


def unheard() -> suppress:
    """A context for printing: what the stream refuses is let pass.

    SystemExit, too: rich's consoles end the process with code 1 when the reader of a pipe has gone.
    """
    return suppress(OSError, ValueError, SystemExit)


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
            with unheard():
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
