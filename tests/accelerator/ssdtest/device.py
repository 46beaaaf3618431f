"""The tests' accelerator on torch's Python side: built from device.cpp, registered as device type `ssdtest`.

It has what the devices of other makers have. The variable SSDTEST_REFUSES names what it lacks instead, separated by
commas: any function of `HAS`, or one of `LIBRARY_REFUSES`. SSDTEST_WRONG names one op of torch whose results are wrong.
`switch` sets both within a process.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ssd.config import Config
from ssd.errors import MachineError
from ssd.vendor.csrc.build import Toolchain, build, gxx

DEVICES = 2
LIBRARY_REFUSES = ("float64", "half", "channels_last", "pinned", "non_blocking")
refused: frozenset[str] = frozenset()


class _Event:
    """A point in the device's work. The device works while it is called, so everything recorded has happened."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._timed, self._at = enable_timing, 0.0

    def record(self) -> None:
        self._at = time.perf_counter()

    def synchronize(self) -> None: ...

    def elapsed_time(self, later: _Event) -> float:
        assert self._timed
        return (later._at - self._at) * 1000


class _Stream:
    def __init__(self, device: object = None) -> None: ...

    def wait_event(self, event: _Event) -> None:
        """What was recorded has happened."""

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: object) -> None: ...


HAS = {
    "is_available": lambda: True,
    "device_count": lambda: DEVICES,
    "current_device": lambda: torch.empty(0, device="ssdtest").device.index,
    "set_device": lambda index: None,
    "get_device_name": lambda device=None: "SSD test accelerator",
    "synchronize": lambda device=None: None,
    "Event": _Event,
    "Stream": _Stream,
    "stream": lambda stream: stream,
    "current_stream": lambda device=None: _Stream(),
    "get_rng_state": lambda device=None: torch.zeros(8, dtype=torch.uint8),
    "set_rng_state": lambda state, device=None: None,
    "manual_seed_all": lambda seed: None,
    "_is_in_bad_fork": lambda: False,
    "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
    "mem_get_info": lambda device=None: (2**30, 2**31),
}


def __getattr__(name: str) -> Any:
    """torch.ssdtest.<name>: what it has and does not refuse."""
    if name in HAS and name not in refused:
        return HAS[name]
    raise AttributeError(f"torch.ssdtest has no {name}")


def switch(refuses: str = "", wrong: str = "") -> None:
    """Refuse these abilities from now on, and spoil this op; what was set before is forgotten."""
    global refused
    refused = frozenset(filter(None, refuses.split(",")))
    if unknown := refused - HAS.keys() - {*LIBRARY_REFUSES}:
        raise ValueError(f"nothing to refuse is called {', '.join(sorted(unknown))}")
    torch.ops.ssdtest.switch(refuses, wrong)


def library() -> Path:
    """The library of device.cpp, built where it is not there yet. Its name holds torch's version, and hashes."""
    compiler, torch_folder = gxx(32), Path(torch.__file__).parent
    if compiler is None:
        raise MachineError("no C++ compiler: install g++, or set CXX")
    include = [f"-I{torch_folder / 'include' / name}" for name in ("", "torch/csrc/api/include")]
    links = (f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch_folder / 'lib'}")
    # torch 2.14's headers are C++20. What is not optimized compiles in half the time, and only calls other code.
    flags = ("-O0", "-w", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}", *include)
    label = "ssdtest-torch" + torch.__version__.partition("+")[0]
    toolchain = Toolchain(label, (compiler.command[0], *flags), 32, links, standard="c++20")
    return build(toolchain, Config().cache_dir, Path(__file__).parent)


def register() -> None:
    """Once a process."""
    if hasattr(torch, "ssdtest"):
        return
    torch.ops.load_library(str(library()))
    torch.utils.rename_privateuse1_backend("ssdtest")
    torch._register_device_module("ssdtest", sys.modules[__name__])
    switch(os.environ.get("SSDTEST_REFUSES", ""), os.environ.get("SSDTEST_WRONG", ""))


register()
