"""What a disk may hold after a power failure, computed from the recorded calls of a run (shim.c)."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Call:
    """A recorded call: what it did, to which path, and its data."""

    op: str
    path: str
    other: str
    place: int
    data: bytes


def recorded(path: Path) -> list[Call]:
    """The calls of a record, in order."""
    content, calls, at = path.read_bytes(), [], 0
    while at < len(content):
        end = content.index(b"\n", at)
        op, one, other, place, size = content[at:end].decode().split("\t")
        length = int(size) if op == "write" else 0
        calls.append(Call(op, one, other, int(place), content[end + 1 : end + 1 + length]))
        at = end + 1 + length
    return calls


@dataclass
class _File:
    """A file of the disk. kept: the content that is on the disk for sure. later: what was done to it since."""

    kept: bytearray = field(default_factory=bytearray)
    later: list[Call] = field(default_factory=list)

    def after(self, count: int, torn: int = 0) -> bytes:
        """The content where the first `count` later calls arrived, and `torn` bytes of the next one."""
        content = bytearray(self.kept)
        for number, call in enumerate(self.later[: count + bool(torn)]):
            data = call.data[:torn] if number == count else call.data
            if call.op == "empty":
                content = bytearray()
            elif call.op == "cut":
                content = content[: call.place].ljust(call.place, b"\0")
            else:
                content = content[: call.place].ljust(call.place, b"\0") + data + content[call.place + len(data) :]
        return bytes(content)


class Disk:
    """What a disk may hold of recorded calls after a power failure.

    The content of a file is sure up to its last sync. The names of a folder are sure up to the folder's last sync. Of
    what came later, any first part of a file's writes may have arrived, and any of the folder's changes of names.
    """

    def __init__(self, calls: Sequence[Call], folder: str) -> None:
        self.folder = folder
        self._sure: dict[str, _File] = {}
        self._names: dict[str, _File] = {}
        self._changes: list[tuple[str, str, str, _File | None]] = []
        for call in calls:
            self._do(call)

    def _do(self, call: Call) -> None:
        if call.op == "create":
            self._names[call.path] = _File()
            self._changes.append(("put", call.path, "", self._names[call.path]))
        elif call.op in ("write", "cut", "empty"):
            self._names[call.path].later.append(call)
        elif call.op == "sync" and call.path in self._names:
            file = self._names[call.path]
            file.kept, file.later = bytearray(file.after(len(file.later))), []
        elif call.op == "sync":
            self._sure = dict(self._names)
            self._changes = []
        elif call.op == "rename":
            self._names[call.other] = self._names.pop(call.path)
            self._changes.append(("move", call.other, call.path, self._names[call.other]))
        elif call.op == "link":
            self._names[call.other] = self._names[call.path]
            self._changes.append(("put", call.other, "", self._names[call.other]))
        elif call.op == "unlink":
            self._names.pop(call.path, None)
            self._changes.append(("drop", call.path, "", None))

    def lay_out(self, target: Path, rng: random.Random) -> None:
        """Make one of the states that the disk may be in, in a new folder. In half of them names changed in order."""
        names = dict(self._sure)
        first = rng.randint(0, len(self._changes))
        in_order = rng.random() < 0.5
        for number, (what, name, old, file) in enumerate(self._changes):
            if number >= first if in_order else rng.random() < 0.5:
                continue
            if what == "drop":
                names.pop(name, None)
            else:
                assert file
                names[name] = file
                if what == "move":
                    names.pop(old, None)
        target.mkdir(parents=True)
        laid: dict[int, bytes] = {}
        for name, file in names.items():
            if id(file) not in laid:
                count = rng.randint(0, len(file.later))
                torn = 0
                if count < len(file.later) and file.later[count].op == "write":
                    torn = rng.randint(0, len(file.later[count].data))
                laid[id(file)] = file.after(count, torn)
            (target / Path(name).relative_to(self.folder)).write_bytes(laid[id(file)])


def mixture(state: Path, known: set[str]) -> str:
    """What in a run's folder is neither whole nor missing, in words; "" where nothing is.

    known: the hashes of the checkpoints that were written.
    """
    from ssd.config.resolved import read_resolved
    from ssd.errors import SsdError
    from ssd.run.checkpoint import load_checkpoint
    from ssd.run.rewind import rewind

    saved = None
    for name in ("checkpoint.best.pt", "checkpoint.previous.pt", "checkpoint.pt"):
        path = state / name
        if path.exists():
            if hashlib.sha256(path.read_bytes()).hexdigest() not in known:
                return f"{name} is none that was written"
            saved = load_checkpoint(path) if name == "checkpoint.pt" else None
    if saved is None and (state / "checkpoint.previous.pt").exists():
        return "checkpoint.previous.pt without checkpoint.pt"
    for name in ("summary.json", "system.json"):
        if (state / name).exists():
            try:
                json.loads((state / name).read_bytes())
            except ValueError:
                return f"{name} is not whole"
    try:
        if saved or (state / "config.json").exists():
            read_resolved(state / "config.json")
        if saved:
            rewind(state, saved.logs)
    except SsdError as error:
        return str(error)
    return ""


def checkpoints_of(calls: Sequence[Call]) -> set[str]:
    """The hash of every checkpoint that was given its name."""
    content: dict[str, bytearray] = {}
    found = set()
    for call in calls:
        if call.op in ("create", "empty"):
            content[call.path] = bytearray()
        elif call.op == "write":
            content.setdefault(call.path, bytearray())[call.place : call.place + len(call.data)] = call.data
        elif call.op in ("rename", "link"):
            content[call.other] = content[call.path]
            if Path(call.other).name.startswith("checkpoint"):
                found.add(hashlib.sha256(content[call.other]).hexdigest())
    return found
