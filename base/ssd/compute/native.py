"""Which precisions this CPU computes itself. The others are emulated: converted to fp32 and back, and slower than fp32.

A CPU names its instructions in /proc/cpuinfo, on Linux. oneDNN, which torch's convolutions are, uses those below.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["emulation_words", "native_units"]

UNITS = {
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
    "fp16": ("amx_fp16", "avx512_fp16", "asimdhp"),
}
"""Instructions that multiply in a precision, the fastest first: of x86, and last of 64-bit ARM."""
FIELDS = ("flags", "features")
"""What the list of instructions is called in /proc/cpuinfo on x86 and on ARM."""


def native_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str] | None:
    """The precisions besides fp32 that this CPU computes, each with the instruction that does. None where unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    named = (line.partition(":") for line in lines)
    known = next((set(value.split()) for name, _, value in named if name.strip().lower() in FIELDS), None)
    if known is None:
        return None
    found = {precision: [unit for unit in units if unit in known] for precision, units in UNITS.items()}
    return {precision: units[0] for precision, units in found.items() if units}


def emulation_words(precision: str, units: dict[str, str] | None) -> str:
    """What a user should know who asks a CPU with these units for a precision that it emulates. "" elsewhere."""
    if precision == "fp32" or units is None or precision in units:
        return ""
    return f"precision = {precision} is emulated on this CPU, and slower than fp32"
