"""Builds base/csrc, the kernels in CUDA C++, into a shared library: for an accelerator, or for the host as a stand-in.

The sources include no header of torch and take pointers and a stream, so a library is called through ctypes with
`tensor.data_ptr()`. Compared with a torch extension this saves the minute that torch's headers take to compile, the
match of its C++ ABI, and a rebuild for every torch release.

One library holds all kernels. Its file name carries a hash of the sources, the compiler and the flags, so a changed
kernel is never taken for the one that was built. A library runs code as soon as it is loaded. So it is loaded only
where nobody else could have written it (ssd.trust), and where its last line, the seal, has the hash of its name and
the SHA-256 of its content. A loader ignores bytes after the end of a library.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ssd.config.paths import usable_path
from ssd.errors import ConfigError, MachineError
from ssd.trust import make_folder, why_path_untrusted

__all__ = ["CSRC", "Toolchain", "build", "built", "gxx", "library_path", "nvcc", "nvcc_capabilities", "open_library"]

log = logging.getLogger(__name__)

CSRC = Path(__file__).resolve().parents[3] / "csrc"
"""Folder of the kernels' sources."""

SEAL_BYTES = len("\nssd-kernels  \n") + 16 + 64
"""Length of the seal, which `_seal` gives: a line with 16 and 64 hexadecimal digits."""

NVCC_CAPABILITIES = ("70", "80", "90")
"""Compute capabilities to build for where none is named, of those the installed nvcc still knows (13.0 dropped 70)."""


@dataclass(frozen=True)
class Toolchain:
    """A compiler and how it is called.

    label: for logs and file names. command: the compiler and its flags. warp: lanes of a warp on what it builds for.
    libraries: what the linker needs, after the sources. standard: of C++.
    """

    label: str
    command: tuple[str, ...]
    warp: int
    libraries: tuple[str, ...] = ()
    standard: str = "c++17"

    def call(self, sources: list[Path], output: Path) -> list[str]:
        """The command line that builds `output`. No fused multiply-add: overlaps must tie as in the reference."""
        shared = [f"-std={self.standard}", "-shared", f"-DSSD_WARP={self.warp}"]
        return [*self.command, *shared, *map(str, sources), "-o", str(output), *self.libraries]


def gxx(warp: int, extra: tuple[str, ...] = (), *, checked: bool = False) -> Toolchain | None:
    """The host's C++ compiler, running kernels serially (csrc/host.h) with `warp` lanes a warp; None without one.

    checked: every access to memory is looked at (csrc/shadow.h). _FORTIFY_SOURCE, on by default in some distributions,
    forbids longjmp between stacks.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    flags = ("-x", "c++", "-O2", "-fPIC", "-ffp-contract=off", "-U_FORTIFY_SOURCE")
    if not checked:
        return Toolchain(f"host{warp}", (compiler, *flags, *extra), warp)
    # The thread sanitizer's calls without its library, which would come with the compiler's own choice of libraries.
    look = ("-DSSD_CHECKED", "-fsanitize=thread", "-nodefaultlibs")
    return Toolchain(f"checked{warp}", (compiler, *flags, *look, *extra), warp, ("-lstdc++", "-lm", "-lc", "-lgcc_s"))


def nvcc(capabilities: tuple[str, ...] = ()) -> Toolchain | None:
    """CUDA's own compiler, for these compute capabilities (("80",) for 8.0); None without one.

    A script of this name that only prints a version, as some toolkits ship, lists no code and is passed by.
    """
    compiler = shutil.which("nvcc")
    known = _nvcc_capabilities(compiler) if compiler else frozenset()
    if compiler is None or not known:
        return None
    wanted = capabilities or nvcc_capabilities()
    for name in wanted:
        if name not in known:
            raise MachineError(
                f"{compiler} does not build for compute capability {name} (it knows {', '.join(sorted(known))}): "
                "install a CUDA toolkit that does"
            )
    targets = [part for name in wanted for part in ("-gencode", f"arch=compute_{name},code=sm_{name}")]
    # The newest one also as PTX, which later hardware compiles for itself.
    targets += ["-gencode", f"arch=compute_{wanted[-1]},code=compute_{wanted[-1]}"]
    return Toolchain(
        "-".join(("nvcc", *wanted)), (compiler, "-O3", "-Xcompiler", "-fPIC", "--fmad=false", *targets), 32
    )


def nvcc_capabilities() -> tuple[str, ...]:
    """The compute capabilities that `nvcc` builds for where none is named, such as ("80", "90"); empty without nvcc."""
    compiler = shutil.which("nvcc")
    known = _nvcc_capabilities(compiler) if compiler else frozenset()
    return tuple(name for name in NVCC_CAPABILITIES if name in known)


@cache
def _nvcc_capabilities(compiler: str) -> frozenset[str]:
    listed = subprocess.run([compiler, "--list-gpu-code"], capture_output=True, text=True, check=False, timeout=60)
    words = listed.stdout.split() if listed.returncode == 0 else []
    return frozenset(word.removeprefix("sm_") for word in words if word.startswith("sm_"))


def library_path(toolchain: Toolchain, cache_dir: Path, csrc: Path = CSRC) -> Path:
    """Where `build` puts the library: the name changes with any source, the compiler's version and the flags.

    Raises ConfigError where no file can lie in `cache_dir`.
    """
    digest = hashlib.sha256(repr((toolchain, _version(toolchain.command[0]))).encode())
    for source in [*_sources(csrc), *sorted(csrc.glob("*.h"))]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    try:
        return usable_path(cache_dir) / "csrc" / f"ssd-{toolchain.label}-{digest.hexdigest()[:16]}.so"
    except ValueError as error:
        raise ConfigError(f"cache_dir = {cache_dir}: {error}; the variable SSD_CACHE_DIR names another") from error


def _sources(csrc: Path) -> list[Path]:
    """What is compiled, by name: a vendor's own folder may hold plain C++ as well."""
    return sorted([*csrc.glob("*.cu"), *csrc.glob("*.cpp")])


@cache
def _version(compiler: str) -> str:
    try:
        shown = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except OSError as error:
        raise MachineError(f"cannot run the compiler {compiler}: {error}. Install it or name another") from error
    return shown.stdout + shown.stderr


def build(toolchain: Toolchain, cache_dir: Path, csrc: Path = CSRC) -> Path:
    """Build the kernels, unless this very library is there and whole, and return the library's path.

    Raises MachineError with the compiler's own words where the build fails, and where others can write to the cache.
    Several processes may build at once: each writes a file of its own and renames it when it is whole.
    """
    path = library_path(toolchain, cache_dir, csrc)
    if path.exists():
        _require_trusted(path)
        reason = _why_damaged(path)
        if not reason:
            return path
        log.warning("%s is built again: %s", path, reason)
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        output = Path(scratch) / "kernels.so"
        call = toolchain.call(_sources(csrc), output)
        log.info("building %s: %s", path.name, " ".join(call))
        made = subprocess.run(call, capture_output=True, text=True, check=False, cwd=scratch)
        if made.returncode != 0:
            raise MachineError(
                f"{toolchain.command[0]} could not build the kernels in {csrc} (exit code {made.returncode}):\n"
                f"{_tail(made.stdout + made.stderr)}\nwith: {' '.join(call)}"
            )
        body = output.read_bytes()
        output.write_bytes(body + _seal(path, body))
        output.chmod(output.stat().st_mode & ~0o022)  # whatever the umask says
        os.replace(output, path)
    _require_trusted(path)
    return path


def _seal(path: Path, body: bytes) -> bytes:
    """The last line of the library at `path`: the hash in its name, and the SHA-256 of what stands before the line."""
    return f"\nssd-kernels {path.stem[-16:]} {hashlib.sha256(body).hexdigest()}\n".encode()


def _why_damaged(path: Path) -> str:
    """Why the content of a library is not what `build` wrote under this name, in words; "" where it is."""
    content = path.read_bytes()
    body, seal = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
    return "" if seal == _seal(path, body) else "it is cut short, changed, or was built as another file"


def _require_trusted(path: Path) -> None:
    """MachineError where another user could have written the library, or could replace it before it is loaded."""
    if reason := why_path_untrusted(path):
        raise MachineError(
            f"the kernels built as {path} are not loaded, as another user could have put code there. {reason}. Name a "
            "cache_dir that only you can write to, or take the permission or the file away and build again"
        )


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def built(toolchain: Toolchain, cache_dir: Path, remedy: str) -> Path:
    """The library built earlier; MachineError that ends in `remedy` without one. A run compiles nothing by itself."""
    path = library_path(toolchain, cache_dir)
    if not path.exists():
        raise MachineError(
            f"the kernels are not built for this machine, or their sources changed since: no {path}. {remedy}"
        )
    return path


@cache
def open_library(path: Path) -> ctypes.CDLL:
    """Load a library that `build` made, once a process.

    Raises MachineError where others can write to it, where its content is not what was built, or where the loader
    refuses it, with the reason. A damaged library must not reach the loader: one that is cut short ends the process.
    """
    try:
        _require_trusted(path)
        if reason := _why_damaged(path):
            raise MachineError(f"cannot load the kernels built as {path}: {reason}. Delete the file and build again")
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MachineError(
            f"cannot load the kernels built as {path}: {error}. Delete the file and build again"
        ) from error
    library.ssd_error_text.restype = ctypes.c_char_p
    return library
