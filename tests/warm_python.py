"""A stand-in for `python` that starts warm: a server has imported torch, and forks a child for each command.

Importing torch and what it brings takes most of the time of a small run, twice where a launcher starts it. Tests whose
subject is not the start itself use this command in place of Python: `python -m MODULE`, `-c CODE`, or `python FILE`.
No module of this project is imported by the server, so that each command reads its own variables and checkout.

    python warm_python.py SOCKET     the server; `command` writes the client, a file to run as one runs Python

The client hands over its arguments, variables, folder and streams, passes signals on, and ends as the child ends. The
child is killed when its client ends. Other options, or other values of what is settled by an import (SETTLED), start
Python itself.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IMPORTED = (
    *("torch", "torch._dynamo", "torch.distributed.launcher.api", "torchvision", "torchvision.transforms.v2"),
    *("torch.distributed.elastic.rendezvous.c10d_rendezvous_backend", "numpy", "PIL.Image", "PIL.ImageFont"),
    *("pydantic", "tyro", "rich.console", "rich.table", "msgspec", "hotcoco"),
)  # fmt: skip
SETTLED = ("LD_PRELOAD", "OMP_NUM_THREADS", "PYTHONWARNINGS", "TRITON_INTERPRET")
"""Variables that count when libraries are imported or loaded."""
LAUNCHER = "SSD_LAUNCHER_PID"
"""A worker holds this variable to its parent. That is the server here, and its client looks at the launcher."""
PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")

CLIENT = """#!{python} -IS
import json, os, select, signal, socket, sys

words, parent = sys.argv[1:], os.getppid()
if not words or (words[0].startswith("-") and words[0] not in ("-m", "-c")) or {{
    name: os.environ.get(name) for name in {settled}
}} != {settled}:
    os.execv({python!r}, [{python!r}, *words])
numbers = [getattr(signal, name) for name in {passed_on}]
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
mask = os.umask(0)
os.umask(mask)
asked = dict(words=words, environ=dict(os.environ), folder=os.getcwd(), umask=mask)
asked |= dict(executable=sys.argv[0], parent=parent)
asked["ignored"] = [int(one) for one in numbers if signal.getsignal(one) is signal.SIG_IGN]
server = socket.socket(socket.AF_UNIX)
server.connect({place!r})
socket.send_fds(server, [b" "], [0, 1, 2])
server.sendall(json.dumps(asked).encode() + b"\\n")
answers = server.makefile()
child = int(answers.readline())
for number in numbers:
    if number not in asked["ignored"]:
        signal.signal(number, lambda number, frame: os.kill(child, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
while not select.select([server], [], [], 0.5)[0]:
    if os.getppid() != parent:
        os._exit(1)
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def serve(place: str) -> dict[str, Any] | None:
    """Fork a child for each command until standard input ends. Returns what is asked for in a child, else None."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # an older torch, or an environment without a library
            importlib.import_module(name)
    gc.freeze()
    pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(pipe[1])
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: dict[int, socket.socket] = {}  # process id -> its client
    while True:
        ready = select.select([listener, pipe[0], sys.stdin, *children.values()], [], [])[0]
        for pid, client in list(children.items()):
            if client in ready:  # it sends nothing more, so it has ended
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                children.pop(pid).close()
        if pipe[0] in ready:
            os.read(pipe[0], 1000)
            for pid in list(children):
                if (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    with children.pop(pid) as client, contextlib.suppress(OSError):
                        client.sendall(b"%d\n" % os.waitstatus_to_exitcode(ended[1]))
        if sys.stdin in ready:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return None
        if listener in ready:
            client, streams, asked = accepted(listener)
            if not (pid := os.fork()):
                peer = process_of(client)
                for one in (listener, client, *children.values()):
                    one.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return {**asked, "streams": streams, "client": peer}
            for stream in streams:
                os.close(stream)
            children[pid] = client
            with contextlib.suppress(OSError):  # it has ended meanwhile
                client.sendall(b"%d\n" % pid)


def accepted(listener: socket.socket) -> tuple[socket.socket, list[int], dict[str, Any]]:
    """A client, its three streams, and what it asks for."""
    client = listener.accept()[0]
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as lines:
        return client, list(streams), json.loads(lines.readline())


def process_of(client: socket.socket) -> int:
    """The process id of a client, as this process sees it."""
    return struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]


def enter_namespaces(pid: int) -> None:
    """Enter the namespaces of another process that are not this one's: tests put a host of theirs into some."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    for kind in ("user", "net", "uts", "mnt"):
        theirs = f"/proc/{pid}/ns/{kind}"
        if os.readlink(theirs) != os.readlink(f"/proc/self/ns/{kind}"):
            with open(theirs) as file:
                if setns(file.fileno(), 0):
                    raise OSError(ctypes.get_errno(), f"{theirs} cannot be entered")


def act(asked: dict[str, Any], path: list[str]) -> None:
    """Become what a Python is that was started in this way, and run its program."""
    words, environ = asked["words"], asked["environ"]
    if environ.get(LAUNCHER) == str(asked["parent"]):
        environ[LAUNCHER] = str(os.getppid())
    os.setpgid(0, 0)
    for number, stream in enumerate(asked["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    enter_namespaces(asked["client"])
    os.umask(asked["umask"])
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(environ)
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.executable = asked["executable"]
    sys.path[:] = [*filter(None, environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.argv = ["-c" if words[0] == "-c" else words[0], *words[2 if words[0] in ("-c", "-m") else 1 :]]
    beside = str(Path(words[0]).resolve().parent) if words[0] not in ("-c", "-m") else asked["folder"]
    if not environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, beside)
    if words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        exec(compile(words[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        runpy.run_path(words[0], run_name="__main__")


@contextlib.contextmanager
def command(folder: Path) -> Iterator[str]:
    """A context with a server, and the path of its client, which lies in `folder`."""
    environ = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    for name in ("LD_PRELOAD", "TRITON_INTERPRET"):
        environ.pop(name, None)
    place, client = folder / "socket", folder / "python"
    given = {"python": sys.executable, "place": str(place), "passed_on": PASSED_ON}
    client.write_text(CLIENT.format(settled={name: environ.get(name) for name in SETTLED}, **given))
    client.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(place)], env=environ, stdin=subprocess.PIPE)
    try:
        while not place.exists() and server.poll() is None:
            select.select([], [], [], 0.02)
        yield str(client)
    finally:
        server.stdin.close()
        server.wait(60)


def end(code: object) -> None:
    """End as an interpreter does, but leave the memory to the kernel: to free what was imported takes a second."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more, or the program has closed it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__" and (asked := serve(sys.argv[1])):
    try:
        act(asked, sys.path[1:])
    except SystemExit as left:
        end(left.code)
    except BaseException:
        traceback.print_exc()
        end(1)
    end(0)
