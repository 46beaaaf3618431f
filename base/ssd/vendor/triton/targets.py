"""The GPUs that the Triton kernels can be compiled for, as data: a new one is a line here.

A vendor names those that stand for its own cards when it offers the kernels; `vendors check` compiles for these.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """One kind of GPU. backend, arch, warp: as Triton's GPUTarget takes them. stands_for: cards of that kind."""

    backend: str
    arch: int | str
    warp: int
    stands_for: str


TARGETS = {
    "sm_75": Target("cuda", 75, 32, "T4"),
    "sm_80": Target("cuda", 80, 32, "A100"),
    "sm_90": Target("cuda", 90, 32, "H100, H200"),
    "sm_100": Target("cuda", 100, 32, "B200"),
    "sm_120": Target("cuda", 120, 32, "RTX 50"),
    "gfx942": Target("hip", "gfx942", 64, "MI300X"),
    "gfx950": Target("hip", "gfx950", 64, "MI355X"),
    "gfx1100": Target("hip", "gfx1100", 32, "RX 7900"),
}
