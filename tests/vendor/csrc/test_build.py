"""Building the kernels: found compilers, cached libraries, and what a user is told when it does not work."""

import os
import re
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssd.errors import ConfigError, MachineError
from ssd.vendor.csrc.build import (
    CSRC,
    Toolchain,
    _version,
    build,
    built,
    gxx,
    library_path,
    nvcc,
    nvcc_capabilities,
    open_library,
)
from ssd.vendor.csrc.overrides import COMPILED_ONLY, HARDWARE, OPS, csrc_overrides

needs_gxx = pytest.mark.skipif(gxx(64) is None, reason="no C++ compiler")


def program(folder, name, script):
    """An executable shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def csrc(tmp_path):
    """A small source folder."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "a.cu").write_text('#include "a.h"\nextern "C" int answer() { return ANSWER + SSD_WARP; }\n')
    (folder / "a.h").write_text("#define ANSWER 100\n")
    return folder


@needs_gxx
def test_builds_once_and_again_after_any_change(tmp_path, csrc):
    path = build(gxx(64), tmp_path, csrc)
    made = path.stat().st_mtime_ns
    assert build(gxx(64), tmp_path, csrc) == path
    assert path.stat().st_mtime_ns == made
    (csrc / "a.h").write_text("#define ANSWER 200\n")
    assert library_path(gxx(64), tmp_path, csrc) != path
    assert len({library_path(gxx(warp), tmp_path, csrc) for warp in (32, 64)}) == 2
    assert library_path(gxx(64, ("-g",)), tmp_path, csrc) != library_path(gxx(64), tmp_path, csrc)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@needs_gxx
def test_the_warp_size_reaches_the_sources(tmp_path, csrc):
    for warp in (32, 64):
        (csrc / "b.cu").write_text('extern "C" const char* ssd_error_text(int) { return ""; }\n')
        assert open_library(build(gxx(warp), tmp_path, csrc)).answer() == 100 + warp


@needs_gxx
def test_the_compilers_own_words_are_shown(tmp_path, csrc):
    (csrc / "a.h").write_text("#error out of paper\n")
    with pytest.raises(MachineError, match=r"(?s)could not build the kernels in .*out of paper.*with: "):
        build(gxx(64), tmp_path, csrc)
    assert list((tmp_path / "csrc").glob("*.so")) == []


def test_a_compiler_that_is_not_there(tmp_path, csrc):
    with pytest.raises(MachineError, match="cannot run the compiler /no/such"):
        build(Toolchain("none", ("/no/such",), 64), tmp_path, csrc)


def test_a_user_without_a_home_folder_names_a_cache(homeless):
    with pytest.raises(ConfigError, match=r"cache_dir = ~/\.cache/ssd: no home folder is known for ~.*SSD_CACHE_DIR"):
        library_path(gxx(64), Path("~/.cache/ssd"))


def test_a_run_builds_nothing_by_itself(tmp_path):
    with pytest.raises(MachineError, match=r"not built for this machine.* no .*\.so\. Run prepare"):
        built(Toolchain("none", ("true",), 64), tmp_path, "Run prepare")


def test_a_file_that_is_no_library(tmp_path):
    path = tmp_path / "broken.so"
    path.write_text("no library")
    with pytest.raises(MachineError, match=r"cannot load .*broken\.so.*build again"):
        open_library(path)


def test_a_whole_file_that_the_loader_refuses(tmp_path, monkeypatch):
    path = tmp_path / "strange.so"
    path.write_text("no library")
    monkeypatch.setattr("ssd.vendor.csrc.build._why_damaged", lambda path: "")
    with pytest.raises(MachineError, match=r"cannot load .*strange\.so: .*(too short|invalid ELF).*build again"):
        open_library(path)


@pytest.fixture
def library(tmp_path, csrc):
    """A built library whose constructor leaves a file, and that file."""
    trace = tmp_path / "constructor-ran"
    (csrc / "b.cu").write_text(
        '#include <cstdio>\nextern "C" const char* ssd_error_text(int) { return ""; }\n'
        f'__attribute__((constructor)) static void run() {{ std::fclose(std::fopen("{trace}", "w")); }}\n'
    )
    return build(gxx(64), tmp_path / "cache", csrc), trace


@needs_gxx
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content.replace(b"constructor-ran", b"constructor-RAN"),
        lambda content: content + b"x",
    ],
)
def test_a_damaged_library_is_not_loaded_and_is_built_again(tmp_path, csrc, library, spoil):
    path, trace = library
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    with pytest.raises(MachineError, match=r"it is cut short, changed, or was built as another file\. Delete the file"):
        open_library(path)
    assert not trace.exists()
    assert build(gxx(64), tmp_path / "cache", csrc) == path
    assert open_library(path).answer() == 164
    assert trace.exists()


@needs_gxx
def test_a_library_of_other_sources_is_not_loaded_under_this_name(tmp_path, csrc, library):
    path, _ = library
    (csrc / "a.h").write_text("#define ANSWER 200\n")
    other = build(gxx(64), tmp_path / "cache", csrc)
    path.write_bytes(other.read_bytes())
    with pytest.raises(MachineError, match="built as another file"):
        open_library(path)


@needs_gxx
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_library_in_a_folder_that_others_can_write_is_not_loaded(tmp_path, csrc, library, mode):
    path, trace = library
    path.parent.chmod(mode)
    for use in (open_library, lambda _: build(gxx(64), tmp_path / "cache", csrc)):
        with pytest.raises(MachineError, match=rf"csrc: others may write to it \(mode {mode:o}\)\. Name a cache_dir"):
            use(path)
    assert not trace.exists()


def test_another_release_of_a_compiler_builds_anew(tmp_path, csrc):
    """It may say its version on either stream."""
    places = set()
    for words in ("echo 1.0", "echo 1.1", "echo 1.1 >&2; echo 2.0"):
        toolchain = Toolchain("host64", (str(program(tmp_path, "cc", words)),), 64)
        _version.cache_clear()  # a process asks each compiler once
        places.add(library_path(toolchain, tmp_path, csrc).name)
    assert len(places) == 3


@needs_gxx
def test_nothing_is_built_to_be_loaded_from_a_folder_that_others_can_write(tmp_path, csrc):
    folder = tmp_path / "cache" / "csrc"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(MachineError, match=r"csrc: others may write to it \(mode 777\)"):
        build(gxx(64), tmp_path / "cache", csrc)


@needs_gxx
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_library_of_another_owner_is_not_loaded(library):
    path, trace = library
    os.chown(path, 12345, 12345)
    with pytest.raises(MachineError, match="it belongs to user 12345"):
        open_library(path)
    assert not trace.exists()


@needs_gxx
def test_under_any_umask_what_is_built_is_believed(tmp_path, csrc):
    (csrc / "b.cu").write_text('extern "C" const char* ssd_error_text(int) { return ""; }\n')
    before = os.umask(0)
    try:
        path = build(gxx(64), tmp_path / "wide" / "cache", csrc)
    finally:
        os.umask(before)
    assert open_library(path).answer() == 164


def test_a_script_called_nvcc_that_only_prints_a_version_is_no_compiler(tmp_path, monkeypatch):
    program(tmp_path, "nvcc", "echo 'Cuda compilation tools, release 10.2, V10.2.89'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert nvcc() is None


def test_nvcc_builds_for_what_it_knows(tmp_path, monkeypatch):
    program(tmp_path, "nvcc", "echo sm_70; echo sm_80")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    toolchain = nvcc()
    assert toolchain.label == "nvcc-70-80"
    assert "arch=compute_70,code=sm_70" in toolchain.command
    assert "--fmad=false" in toolchain.command
    assert toolchain.command[-2:] == ("-gencode", "arch=compute_80,code=compute_80"), "the newest as PTX too"
    assert nvcc(("80",)).label == "nvcc-80"
    assert nvcc_capabilities() == ("70", "80")
    with pytest.raises(MachineError, match=r"does not build for compute capability 90.*it knows 70, 80"):
        nvcc(("90",))


def test_an_nvcc_that_fails_knows_nothing(tmp_path, monkeypatch):
    program(tmp_path, "nvcc", "echo sm_70; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert (nvcc(), nvcc_capabilities()) == (None, ())


def test_without_a_host_compiler_there_is_no_host_build(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert gxx(64) is None
    monkeypatch.setenv("CXX", "/some/c++")
    assert gxx(64).command[0] == "/some/c++"


# --- overrides ------------------------------------------------------------------------------------------------------


def overrides(tmp_path, hardware=lambda: None, is_hardware=lambda: False):
    made = csrc_overrides("cuda", hardware, lambda: tmp_path, "Run prepare.", is_hardware)
    return {override.op: override for override in made}


@needs_gxx
def test_one_override_an_op_and_its_means(tmp_path):
    made = overrides(tmp_path)
    assert tuple(made) == OPS
    for op, override in made.items():
        assert (CSRC.parent.parent / override.origin).is_file()
        assert override.origin == f"base/csrc/{op}.cu"
        expected = ["host build, warp 64", "host build, warp 32", *([COMPILED_ONLY] if nvcc() else [])]
        assert list(override.means()) == expected


def test_hardware_is_a_means_only_with_a_compiler_and_a_device(tmp_path):
    compiler = Toolchain("device", ("true",), 64)
    for hardware, is_hardware in ((lambda: compiler, lambda: False), (lambda: None, lambda: True)):
        assert HARDWARE not in overrides(tmp_path, hardware, is_hardware)["loss"].means()
    assert overrides(tmp_path, lambda: compiler, lambda: True)["loss"].means()[0] == HARDWARE


def test_hardware_without_its_compiler_or_without_a_build(tmp_path):
    with pytest.raises(MachineError, match=r"no compiler for the accelerator's kernels was found\. Run prepare\."):
        overrides(tmp_path)["loss"].load(HARDWARE)
    compiler = Toolchain("device", ("true",), 64)
    with pytest.raises(MachineError, match=r"not built .* Run prepare\."):
        overrides(tmp_path, lambda: compiler)["loss"].load(HARDWARE)


def test_unknown_means_are_refused_by_name(tmp_path):
    with pytest.raises(MachineError, match=re.escape("by 'magic'; known: hardware, host build, warp 64, host build")):
        overrides(tmp_path)["loss"].load("magic")


@pytest.mark.skipif(shutil.which("true") is None, reason="no program `true`")
def test_compiled_only_lists_what_was_compiled(tmp_path, monkeypatch):
    compiler = program(tmp_path, "compiler", 'while [ "$1" != -o ]; do shift; done; echo made > "$2"')
    monkeypatch.setattr("ssd.vendor.csrc.overrides.nvcc", lambda: None)
    listed = overrides(tmp_path, lambda: Toolchain("device", (str(compiler),), 64))["loss"].load(COMPILED_ONLY)
    assert listed() == ["base/csrc/loss.cu by device"]


def test_kernels_for_hardware_are_held_to_its_warp(tmp_path, monkeypatch):
    """The library that was built, and the device that this process uses."""
    held = []
    monkeypatch.setattr("ssd.vendor.csrc.overrides.built", lambda toolchain, cache_dir, remedy: tmp_path / "a.so")
    monkeypatch.setattr("ssd.vendor.csrc.overrides.check_warp", lambda path, device: held.append((path, device)))
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    monkeypatch.setattr("ssd.vendor.csrc.overrides.ops_of", lambda path: SimpleNamespace(loss=f"loss of {path.name}"))
    compiler = Toolchain("device", ("true",), 64)
    assert overrides(tmp_path, lambda: compiler)["loss"].load(HARDWARE) == "loss of a.so"
    assert held == [(tmp_path / "a.so", 3)]
