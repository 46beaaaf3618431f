"""Commands of the test accelerator in one process: importing torch takes longer than most of them.

    python drive.py COMMANDS ANSWERS

COMMANDS: a JSON file, by name: argv, and what the device refuses and does wrongly meanwhile; and, to be told each wait
for the device, `waits`. ANSWERS: the file for their exit codes and texts, by name.
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
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssd.cli import main
from ssd.mlperf.events import EventWriter
from ssd.vendor import load_vendor


class Waits(TorchDispatchMode):
    """Lists what the host does in a run: each wait for the device, and between them the result log's events.

    A wait is [what, the number of operations that the device was given after the awaited one]. What is copied to the
    host, or read there, was the last that the device was given: 0. An event may have been recorded long before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.given, self.seen = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kinds = {one.device.type for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        self.given += "ssdtest" in kinds
        aten = torch.ops.aten
        read = func is aten._local_scalar_dense.default and kinds == {"ssdtest"}
        if func is aten.copy_.default:
            waits = not (kwargs.get("non_blocking") or args[2:3] == (True,))
            read = waits and args[0].device.type == "cpu" and args[1].device.type == "ssdtest"
        if func is aten._to_copy.default and kinds == {"ssdtest"}:
            target = kwargs.get("device")
            read = target is not None and target.type == "cpu" and not kwargs.get("non_blocking")
        if read:
            self.seen.append([str(func), 0])
        return func(*args, **kwargs)

    @contextlib.contextmanager
    def watching(self):
        """A context in which events of the device, its `synchronize`, and the result log's records are seen too."""
        has, event, write = dict(torch.ssdtest.HAS), torch.ssdtest.HAS["Event"], EventWriter._write
        watch = self

        class Event(event):
            def record(self) -> None:
                super().record()
                self.given = watch.given

            def synchronize(self) -> None:
                watch.seen.append(["event", watch.given - self.given])

        def logged(writer, kind, key, *rest):
            watch.seen.append([key, rest[1]])
            write(writer, kind, key, *rest)

        torch.ssdtest.HAS |= {"Event": Event, "synchronize": lambda device=None: watch.seen.append(["synchronize", 0])}
        EventWriter._write = logged
        try:
            with self:
                yield
        finally:
            torch.ssdtest.HAS |= has
            EventWriter._write = write


def answer(argv: list[str], refuses: str = "", wrong: str = "", waits: bool = False) -> dict[str, object]:
    """Exit code, and all text of one command. What a user would see as a traceback is code 1."""
    load_vendor("ssdtest")
    torch.ssdtest.switch(refuses, wrong)
    said, watch = io.StringIO(), Waits()
    logging.getLogger().handlers.clear()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            with watch.watching() if waits else contextlib.nullcontext():
                code = main(argv)
        except Exception:
            said.write(traceback.format_exc())
            code = 1
    return {"code": code, "said": said.getvalue(), "waits": watch.seen}


if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps({name: answer(**command) for name, command in commands.items()}))
