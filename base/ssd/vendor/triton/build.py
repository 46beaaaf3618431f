"""Compile every kernel for GPUs that are not there: what Triton's interpreter cannot see, its compiler does.

The ops are called once on small CPU tensors with their launches recorded (launch.py), so the argument types, blocks and
options compiled here are those of a training run, not a second list of them. Compiled is not run: wrong results of the
hardware's own instructions and speed stay unknown until a GPU is there.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ssd.boxes import default_boxes
from ssd.ops.augment import ColourDraws
from ssd.ops.crop import Plane
from ssd.vendor.triton.launch import INTERPRETED, Launch, recording
from ssd.vendor.triton.targets import TARGETS, Target

__all__ = ["Usage", "build", "compile_for", "usage", "variants"]

POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8",
}  # fmt: skip


def _type(argument: Any) -> str:
    """Triton's name of an argument's type, as a launch would derive it."""
    if isinstance(argument, torch.Tensor):
        return POINTERS[argument.dtype]
    if isinstance(argument, float):
        return "fp32"
    return "constexpr" if argument == 1 else "i32" if abs(argument) < 2**31 else "i64"


def _aligned(argument: Any) -> bool:
    """Whether a launch would tell the compiler that 16 divides this argument."""
    return isinstance(argument, torch.Tensor) or (isinstance(argument, int) and argument % 16 == 0)


def _source(record: Launch) -> tuple[ASTSource, dict[str, Any]]:
    """What to compile, and with which options (num_warps, enable_fp_fusion)."""
    names = record.kernel.arg_names
    constants = {name: value for name, value in record.meta.items() if name in names}
    options = {name: value for name, value in record.meta.items() if name not in names}
    signature = dict.fromkeys(constants, "constexpr")
    attributes = {}
    for i, (name, argument) in enumerate(zip(names, record.arguments, strict=False)):
        signature[name] = _type(argument)
        if signature[name] == "constexpr":
            constants[name] = argument
        elif _aligned(argument):
            attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(record.kernel, signature, constants, attributes), options


def compile_for(record: Launch, target: Target) -> Any:
    """Compile one recorded launch to a GPU's machine code. Whatever Triton or the assembler objects to is raised."""
    source, options = _source(record)
    return triton.compile(source, target=GPUTarget(target.backend, target.arch, target.warp), options=options)


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel needs of a GPU.

    registers: of a thread; vector registers where a GPU has two kinds.
    scalar_registers: of a warp; None where a GPU has one kind.
    stack: bytes a thread, in memory, for values that did not fit into registers.
    shared: bytes of shared memory a block.
    """

    registers: int
    scalar_registers: int | None
    stack: int
    shared: int


def usage(compiled: Any, target: Target) -> Usage:
    """Read from the compiled kernel itself: the assembler's text, or the machine code by the toolkit's cuobjdump."""
    shared = int(compiled.metadata.shared)
    if target.backend == "hip":
        text = compiled.asm["amdgcn"]
        vector, scalar = _number(r"\.vgpr_count:\s+(\d+)", text), _number(r"\.sgpr_count:\s+(\d+)", text)
        return Usage(vector, scalar, _number(r"\.private_segment_fixed_size:\s+(\d+)", text), shared)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        # Triton brings the tool with its backend for these GPUs.
        tool = next(Path(triton.__file__).parent.glob("backends/*/bin/cuobjdump"))
        text = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return Usage(_number(r"REG:(\d+)", text), None, _number(r"STACK:(\d+)", text), shared)


def _number(pattern: str, text: str) -> int:
    """The number that a pattern finds; ValueError where a new release of the tool no longer writes it."""
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern!r} in the compiler's output: {text[:200]}")
    return int(found[1])


def _launches(op: str) -> list[Launch]:
    """The launches of an op, forward and backward, in every precision and layout a config can ask for."""
    function = getattr(importlib.import_module(f"ssd.vendor.triton.{op}"), op)
    boxes, labels = torch.zeros(2, 5, 4), torch.zeros((2, 5), dtype=torch.int64)
    images = torch.zeros((2, 300, 300, 3), dtype=torch.uint8)
    draws = ColourDraws(torch.zeros(2, dtype=torch.bool), torch.ones(2, 4), torch.zeros((2, 4), dtype=torch.int64))
    with recording() as launches:
        if op == "encode":
            function(boxes, labels, default_boxes())
        elif op == "crop":
            where, table = torch.zeros((2, 4), dtype=torch.int64), torch.ones(2, dtype=torch.int64)
            rgb, luma, chroma = (Plane(images.view(-1)[: 12 * c].view(12, c), table, table) for c in (3, 1, 2))
            for planes in ((rgb,), (luma, chroma)):
                function(table, where, planes, height=1, width=1)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            locations = torch.zeros((2, 4, 8732), dtype=dtype, requires_grad=True)
            logits = torch.zeros((2, 81, 8732), dtype=dtype, requires_grad=True)
            if op == "augment":
                function(images, draws, dtype=dtype, channels_last=True)
                function(images, None, dtype=dtype, channels=4)
            elif op == "loss":
                function(locations, logits, torch.zeros(2, 4, 8732), labels.new_zeros(2, 8732)).sum().backward()
            elif op == "detect":
                function(locations.detach(), logits.detach(), default_boxes())
    return launches


def variants(op: str) -> dict[str, Launch]:
    """The programs of an op by name: one for each kernel, float type and switch that a config can ask for."""
    if INTERPRETED:
        raise RuntimeError("kernels loaded for Triton's interpreter cannot be compiled; use a process of its own")
    return {_name(record): record for record in _launches(op)}


def build(op: str, targets: Sequence[str]) -> Iterator[str]:
    """Compile the kernels of an op for some TARGETS, and name each one compiled. Errors are the compiler's own."""
    for name, record in variants(op).items():
        for target in targets:
            compile_for(record, TARGETS[target])
        yield f"{name}; {', '.join(targets)}"


def _name(record: Launch) -> str:
    """A kernel's name, the float types it reads and writes, and its switches: what makes it another program."""
    kinds = {_type(argument).strip("*") for argument in record.arguments if isinstance(argument, torch.Tensor)}
    kind = next(iter(sorted(kinds & {"bf16", "fp16"})), "fp32")
    switches = "".join(
        f", {name} {value}" for name, value in record.meta.items() if name in ("JITTER", "CHANNELS", "PLANES")
    )
    return f"{record.kernel.fn.__name__.strip('_')} {kind}{switches}".lower()
