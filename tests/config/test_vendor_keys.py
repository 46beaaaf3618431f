"""Keys that a vendor adds in keys.py of its folder: everywhere a run's keys are, under the vendor's name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssd.cli import main
from ssd.config import COMPUTE, PACE, PLACE, Config, VendorKeys, key, resolve, write_resolved
from ssd.config.keys import RULE
from ssd.config.python_file import run_file
from ssd.config.resolved import read_resolved
from ssd.config.vendor_keys import config_of, keys_of_roles, own_keys
from ssd.errors import ConfigError, MachineError
from ssd.mlperf.runs import config_fingerprint

TOP = """
from __future__ import annotations
from pathlib import Path
from typing import Literal
from ssd.config import COMPUTE, PACE, PLACE, VendorKeys, key
"""
KEYS = """
class Keys(VendorKeys):
    cache_mb: int = key(64, COMPUTE, "part of the cache that a run may use", "MiB", ge=1, le=4096)
    fuse: bool = key(True, COMPUTE, "fuse what can be fused")
    mode: Literal["near", "far"] = key("near", COMPUTE, "where sums are made")
    rows: tuple[int, ...] = key((1,), PACE, "rows at a time", "rows")
    trace: Path | None = key(None, PLACE, "file of the driver's trace", env="ACME_TRACE")
"""
TOML = 'extends = "smoke"\nseed = 7\n\n[acme]\ncache_mb = 128\nrows = [2, 3]\n'
ACME = ("--name", "acme")


@pytest.fixture
def vendors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the vendor acme, outside of the repository."""
    folder = tmp_path / "vendors"
    (folder / "acme" / "config").mkdir(parents=True)
    (folder / "acme" / "keys.py").write_text(TOP + KEYS)
    (folder / "acme" / "vendor.py").write_text("import torch  # which help and mistakes do not wait for\n")
    (folder / "acme" / "config" / "one.toml").write_text(TOML)
    monkeypatch.setenv("SSD_VENDOR_PATH", str(folder))
    monkeypatch.delenv("ACME_TRACE", raising=False)
    yield folder
    sys.modules.pop("ssd_vendor_acme.keys", None)


# Where values come from


def test_a_default_a_file_a_variable_and_a_flag(vendors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TRACE", "relative/file")
    found = resolve([*ACME, "--config", "one", "--acme.rows", "4", "5", "--acme.mode=far"])
    values = {name: getattr(found.config, name) for name in own_keys(type(found.config))}
    assert values == {
        "acme.cache_mb": 128,
        "acme.fuse": True,
        "acme.mode": "far",
        "acme.rows": (4, 5),
        "acme.trace": Path.cwd() / "relative" / "file",
    }
    assert {name: found.provenance[name].removeprefix(str(vendors)) for name in values} == {
        "acme.cache_mb": "/acme/config/one.toml",
        "acme.fuse": "default",
        "acme.mode": "command line --acme.mode",
        "acme.rows": "command line --acme.rows",
        "acme.trace": "environment ACME_TRACE",
    }
    assert found.config.seed == 7


@pytest.mark.parametrize(
    ("words", "fuse"),
    [
        (["--acme.fuse"], True),
        (["--acme.fuse", "false"], False),
        (["--acme.fuse=false"], False),
        (["--no-acme.fuse"], False),
        (["--acme.no-fuse"], False),
    ],
)
def test_a_switch_is_given_as_any_other(vendors: Path, words: list[str], fuse: bool) -> None:
    (vendors / "acme" / "config" / "two.toml").write_text(f'extends = "one"\nacme.fuse = {str(not fuse).lower()}\n')
    assert getattr(resolve([*ACME, "--config", "two"]).config, "acme.fuse") is not fuse
    assert getattr(resolve([*ACME, "--config", "two", *words]).config, "acme.fuse") is fuse


def test_dashes_and_underscores_are_the_same(vendors: Path) -> None:
    assert getattr(resolve([*ACME, "--acme.cache-mb", "3"]).config, "acme.cache_mb") == 3


def test_other_vendors_have_them_not(vendors: Path) -> None:
    assert type(resolve([]).config) is config_of("cpu") is config_of("nowhere") is Config


def test_a_changed_file_is_read_anew(vendors: Path) -> None:
    (vendors / "acme" / "keys.py").write_text(TOP + KEYS.replace("key(64", "key(65"))
    assert getattr(resolve(ACME).config, "acme.cache_mb") == 65
    (vendors / "acme" / "keys.py").write_text(TOP + KEYS.replace("key(64", "key(66"))
    assert getattr(resolve(ACME).config, "acme.cache_mb") == 66
    assert not list(vendors.rglob("__pycache__"))


# What the vendor's code reads


def test_the_vendors_code_reads_them_with_their_types(vendors: Path) -> None:
    class Keys(VendorKeys):
        cache_mb: int = key(64, COMPUTE, "")
        trace: Path | None = key(None, PLACE, "")

    of = Keys.of(resolve([*ACME, "--config", "one", "--acme.trace", "/t"]).config)
    assert (of.cache_mb, of.trace) == (128, Path("/t"))
    assert Keys.of(None) == Keys.of(Config(name="acme")) == Keys() == Keys(cache_mb=64, trace=None)


# Mistakes


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([*ACME, "--acme.cache_mb", "0"], r"^acme\.cache_mb = 0 \(command line --acme\.cache_mb\): takes int"),
        ([*ACME, "--acme.cache_mb", "much"], r"^--acme\.cache_mb much: takes int, at least 1, at most 4096\.$"),
        ([*ACME, "--acme.mode", "fra"], r"takes near\|far"),
        ([*ACME, "--acme.cach_mb", "3"], r"^unknown key --acme\.cach_mb\. Did you mean '--acme\.cache_mb'\?"),
        ([*ACME, "--cache_mb", "3"], r"Did you mean '--acme\.cache_mb'\?"),
        ([*ACME, "--acme.colour", "red"], r"^unknown key --acme\.colour\. --help lists all\.$"),
        (["--acme.fuse"], r"Keys of vendor acme go with --name acme, and the run's vendor is cpu\."),
        ([*ACME, "--config", "wrong"], r'wrong\.toml\): takes int, at least 1'),
        ([*ACME, "--config", "near"], r"near\.toml: unknown key 'acme\.cach_mb'\. Did you mean 'acme\.cache_mb'\?"),
        (["--config", "{vendors}/acme/config/one.toml"], r"unknown key 'acme'\. Keys of vendor acme go with --n"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_key(vendors: Path, argv: list[str], words: str) -> None:
    (vendors / "acme" / "config" / "wrong.toml").write_text('[acme]\ncache_mb = "64"\n')
    (vendors / "acme" / "config" / "near.toml").write_text("[acme]\ncach_mb = 64\n")
    with pytest.raises(ConfigError, match=words):
        resolve([word.format(vendors=vendors) for word in argv])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Keys(VendorKeys:\n", r"keys\.py, line 6: SyntaxError"),
        ("x = undefined\n", r"keys\.py, line 6: NameError"),
        ("class Keys:\n    a: int = 1\n", "defines no class Keys that inherits from ssd.config.VendorKeys"),
        ("class Keys(VendorKeys):\n    a: int = 1\n", r"keys\.py: a: declare it by ssd\.config\.key"),
        (
            'class Keys(VendorKeys):\n    a: int = key(1, "rule", "")\n',
            "its role is one of place, pace, compute, because",
        ),
        ('class Keys(VendorKeys):\n    a: int = key(1, COMPUTE, "", closed=1)\n', "a: its role is one of"),
        ('class Keys(VendorKeys):\n    A: int = key(1, COMPUTE, "")\n', "A: take lower-case letters"),
        ('class Keys(VendorKeys):\n    a: dict = key({}, COMPUTE, "")\n', "a: its type is none that a flag can have"),
        (
            'class Keys(VendorKeys):\n    a: int = key(0, COMPUTE, "", ge=1)\n',
            r"not allowed by its own bounds: acme\.a",
        ),
    ],
)
def test_a_file_at_fault_is_named(vendors: Path, text: str, words: str) -> None:
    (vendors / "acme" / "keys.py").write_text(TOP.strip() + "\n\n" + text)
    for _ in range(2):
        with pytest.raises(ConfigError, match=words):
            resolve(ACME)
    resolve([])  # other vendors do not suffer


def test_a_missing_library_is_the_machines_fault(vendors: Path) -> None:
    (vendors / "acme" / "keys.py").write_text("import a_library_nobody_has\n")
    with pytest.raises(MachineError, match=r"keys\.py, line 1: ModuleNotFoundError"):
        resolve(ACME)


@pytest.mark.parametrize("name", ["seed", "Acme", "a-b", "extends"])
def test_a_name_that_cannot_stand_before_a_key(vendors: Path, name: str) -> None:
    (vendors / "acme").rename(vendors / name)
    with pytest.raises(ConfigError, match="can have no keys: rename its folder"):
        resolve(["--name", name])


# Help, and the verb config


def test_help_lists_them_for_the_vendor_that_is_named(vendors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", *ACME]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Of vendor acme alone --acme.cache_mb part of the cache that a run may use (int, at least 1" in said
    assert "variable ACME_TRACE" in said
    assert main(["train", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--acme.cache_mb" not in said
    assert "Vendors with keys of their own: acme. --name V --help lists those of V." in said
    assert main(["results", "--help"]) == 0
    assert "acme" not in capsys.readouterr().out


def test_config_shows_them_with_their_origin(vendors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *ACME, "--config", "one"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Of vendor acme alone acme.cache_mb 128 MiB" in said
    assert main(["config", *ACME, "--config", "one", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)["acme.cache_mb"]
    assert entry == {"value": 128, "from": str(vendors / "acme" / "config" / "one.toml")}


def test_torch_is_not_waited_for(vendors: Path, root: Path) -> None:
    code = "import sys; from ssd.cli import main; codes = [main(words.split()) for words in sys.argv[1:]]; "
    code += "assert codes == [0, 0, 2], codes; assert 'torch' not in sys.modules"
    words = ["train --name acme --help", "config --name acme --config one", "train --name acme --acme.mode fra"]
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, cwd=root / "base")


# By role: a resumed run, the runs of one result, comparisons


@pytest.fixture
def run(vendors: Path, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder of a run, and the words by which it goes on."""
    folder = tmp_path / "run"
    folder.mkdir()
    resolved = resolve([*ACME, "--config", "one", "--acme.mode", "far", "--output", str(folder)])
    write_resolved(folder / "config.json", resolved)
    return folder, ("--resume", "--output", str(folder))


def test_a_resumed_run_has_them_from_its_folder(run: tuple[Path, tuple[str, ...]]) -> None:
    folder, words = run
    kept = read_resolved(folder / "config.json")
    assert (getattr(kept.config, "acme.cache_mb"), getattr(kept.config, "acme.mode")) == (128, "far")
    now = resolve([*words, "--acme.rows", "9", "--acme.trace", "/elsewhere"])
    assert now.config == kept.config.model_copy(
        update={"resume": True, "acme.rows": (9,), "acme.trace": Path("/elsewhere")}
    )


def test_a_resumed_run_cannot_change_how_it_computes(run: tuple[Path, tuple[str, ...]], vendors: Path) -> None:
    _, words = run
    with pytest.raises(ConfigError, match=r"but acme\.cache_mb was 128 and is 64; give the old values"):
        resolve([*words, "--acme.cache_mb", "64"])
    with pytest.raises(ConfigError, match="name was acme and is cpu"):
        resolve([*words, "--name", "cpu", "--config", "smoke"])


def test_a_run_whose_vendor_is_gone_or_has_changed_says_so(
    run: tuple[Path, tuple[str, ...]], vendors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, words = run
    (vendors / "acme" / "keys.py").write_text(TOP + "class Keys(VendorKeys):\n    other: int = key(1, PACE, '')\n")
    with pytest.raises(
        ConfigError, match=r"unknown key 'acme\.cache_mb': .* another version of vendor acme, or its fold"
    ):
        resolve(words)
    monkeypatch.setenv("SSD_VENDOR_PATH", "")
    with pytest.raises(ConfigError, match=r"vendor acme, or its folder is not found here \(SSD_VENDOR_PATH\)"):
        resolve(words)


def test_a_key_that_is_younger_than_the_run_has_its_default(run: tuple[Path, tuple[str, ...]], vendors: Path) -> None:
    _, words = run
    (vendors / "acme" / "keys.py").write_text(TOP + KEYS + '    young: int = key(5, COMPUTE, "")\n')
    assert getattr(resolve(words).config, "acme.young") == 5


def test_roles_decide_what_runs_of_one_result_may_differ_in(vendors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = resolve([*ACME, "--config", "one"]).config.model_dump(mode="json")
    own = {name for name in config if "." in name}
    assert keys_of_roles(config, PLACE) & own == {"acme.trace"}
    assert keys_of_roles(config, PLACE, PACE) & own == {"acme.trace", "acme.rows"}
    assert keys_of_roles(config, RULE) & own == set()
    first = config_fingerprint(config)
    assert config_fingerprint({**config, "acme.trace": "/x", "acme.rows": [8]}) == first
    assert config_fingerprint({**config, "acme.cache_mb": 1}) != first
    monkeypatch.setenv("SSD_VENDOR_PATH", "")  # where the vendor is unknown, none of its keys may differ
    assert keys_of_roles(config, PLACE, PACE) & own == set()


def test_a_run_without_keys_of_its_vendor_does_not_need_the_vendor_s_file(vendors: Path) -> None:
    (vendors / "acme" / "keys.py").write_text("raise ValueError\n")
    assert keys_of_roles({"name": "acme", "seed": 1}, PLACE) == keys_of_roles({"name": "cpu"}, PLACE)
    with pytest.raises(ConfigError, match=r"keys\.py, line 1: ValueError"):
        keys_of_roles({"name": "acme", "acme.rows": 1}, PLACE)


def test_a_file_of_a_package_imports_its_neighbours_and_says_itself_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text("number = 3\n")
    (tmp_path / "vendor.py").write_text("from .near import number\n")
    assert run_file("ssd_vendor_tried", tmp_path / "vendor.py", package=tmp_path).number == 3
    for name in ("ssd_vendor_tried", "ssd_vendor_tried.near"):
        del sys.modules[name]
    with pytest.raises(MachineError, match=r"vendor\.py, line 1: .*Install what it imports"):
        run_file("ssd_vendor_tried", tmp_path / "vendor.py")
    (tmp_path / "vendor.py").write_text("from ssd.errors import MachineError\nraise MachineError('no driver')\n")
    with pytest.raises(MachineError, match=r"^no driver$"):
        run_file("ssd_vendor_tried", tmp_path / "vendor.py")
    assert "ssd_vendor_tried" not in sys.modules
