"""CoreX's compiler, and the kernels of base/csrc built with it for 64 lanes a warp.

CoreX compiles CUDA C++ with its own clang++; the `nvcc` in its bin folder is a script that prints a version. On a
machine without CoreX but with CUDA's toolkit, `build_kernels` compiles for that, which shows the sources to be sound.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ssd.errors import MachineError
from ssd.vendor import Override
from ssd.vendor.csrc.build import Toolchain, build, nvcc
from ssd.vendor.csrc.overrides import csrc_overrides

__all__ = ["ARCHITECTURES", "build_kernels", "corex", "corex_root", "has_accelerator", "is_corex_build", "overrides"]

log = logging.getLogger(__name__)

DEFAULT_ROOT = Path("/usr/local/corex")
WARP = 64
ARCHITECTURES = {"BI-V100": "ivcore10", "BI-V150": "ivcore11", "MR-V100": "ivcore11"}
"""What the compiler calls an accelerator's instruction set, by a part of the accelerator's name."""
REMEDY = "Run in base/: python3 prepare.py --name iluvatar"


def is_corex_build() -> bool:
    """Whether torch is CoreX's: its version ends in +corex.<release>. (torch.version.cuda says 10.2 in all of them.)"""
    return "+corex" in torch.__version__


def has_accelerator() -> bool:
    """Whether one of Iluvatar's accelerators is here, seen by CoreX's torch."""
    return is_corex_build() and torch.cuda.is_available()


def corex_root(environ: Mapping[str, str] = os.environ) -> Path:
    """CoreX's folder: COREX_HOME, else /usr/local/corex."""
    return Path(environ.get("COREX_HOME") or DEFAULT_ROOT)


def architecture(environ: Mapping[str, str] = os.environ) -> str:
    """SSD_COREX_ARCH, else by the first accelerator's name, else BI-V100's."""
    if chosen := environ.get("SSD_COREX_ARCH"):
        return chosen
    if is_corex_build() and torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        for part, found in ARCHITECTURES.items():
            if part in name:
                return found
        log.warning("accelerator %s is not one of %s: building for ivcore10", name, ", ".join(ARCHITECTURES))
    return "ivcore10"


def corex(environ: Mapping[str, str] = os.environ) -> Toolchain | None:
    """CoreX's clang++ for the accelerator of this machine; None where CoreX is not installed."""
    root = corex_root(environ)
    compiler = shutil.which(str(root / "bin" / "clang++"))
    if compiler is None:
        return None
    arch = architecture(environ)
    flags = ("-O3", "-fPIC", "-ffp-contract=off", f"--cuda-path={root}", f"--cuda-gpu-arch={arch}")
    link = [part for lib in (root / "lib64", root / "lib") for part in (f"-L{lib}", f"-Wl,-rpath,{lib}")]
    return Toolchain(f"corex-{arch}", (compiler, *flags, "--no-cuda-version-check"), WARP, (*link, "-lcudart"))


def overrides(cache_dir: Callable[[], Path]) -> Sequence[Override]:
    """`<op>_op = "cuda"` for each of the four ops."""
    return csrc_overrides("cuda", corex, cache_dir, REMEDY, has_accelerator)


def build_kernels(cache_dir: Path) -> list[str]:
    """For prepare: build the kernels with CoreX's compiler, or with nvcc to prove the sources; one line each.

    MachineError where neither is there, or with what the compiler said.
    """
    if (toolchain := corex()) is not None:
        return [f"kernels for {toolchain.label}, {WARP} lanes a warp: {build(toolchain, cache_dir)}"]
    if (toolchain := nvcc()) is not None:
        path = build(toolchain, cache_dir)
        return [f"kernels by nvcc, 32 lanes a warp, as a check of the sources: {path}. CoreX is not installed here"]
    raise MachineError(
        f"no compiler for the kernels: neither {corex_root()}/bin/clang++ (set COREX_HOME if CoreX is elsewhere) nor "
        'nvcc was found. They are optional: a config with every <op>_op = "reference" trains without them.'
    )
