"""Commands of the test accelerator in one process: importing torch takes longer than most of them.

    python drive.py COMMANDS ANSWERS

COMMANDS: a JSON file, by name: argv, and what the device refuses and does wrongly meanwhile. ANSWERS: the file for
their exit codes and texts, by name.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import traceback
from pathlib import Path

import torch

from ssd.cli import main
from ssd.vendor import load_vendor


def answer(argv: list[str], refuses: str = "", wrong: str = "") -> dict[str, object]:
    """Exit code, and all text of one command. What a user would see as a traceback is code 1."""
    load_vendor("ssdtest")
    torch.ssdtest.switch(refuses, wrong)
    said = io.StringIO()
    logging.getLogger().handlers.clear()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(argv)
        except Exception:
            said.write(traceback.format_exc())
            code = 1
    return {"code": code, "said": said.getvalue()}


if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps({name: answer(**command) for name, command in commands.items()}))
