"""Where vendors' folders are looked for: what SSD_VENDOR_PATH may name, and the sentence where it names nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.config.folders import (
    ROOT,
    VENDOR_PATH,
    display_path,
    runs_folder,
    searched_folders,
    vendor_folder,
    vendor_folders,
)
from ssd.errors import ConfigError


def test_each_folder_counts_once_and_the_root_not_at_all(tmp_path: Path) -> None:
    assert searched_folders({VENDOR_PATH: f"{tmp_path}:{ROOT}::{tmp_path}/"}) == [tmp_path.resolve()]
    assert searched_folders({}) == []


@pytest.mark.parametrize("name", ["~nobody-of-this-name", "/nowhere/at/all", "x" * 300, "/dev/null", "/x" * 3000])
def test_what_is_no_folder_is_named_with_its_variable(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{VENDOR_PATH} names"):
        searched_folders({VENDOR_PATH: name})


def test_links_that_lead_to_each_other_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match=f"{VENDOR_PATH} names"):
        searched_folders({VENDOR_PATH: str(tmp_path / "a")})


def test_two_vendors_of_one_name_are_refused(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent / "acme").mkdir(parents=True)
        (tmp_path / parent / "acme" / "vendor.py").touch()
    with pytest.raises(ConfigError, match="two vendors are called 'acme'"):
        vendor_folder("acme", {VENDOR_PATH: f"{tmp_path}/one:{tmp_path}/two"})


def test_vendors_are_found_by_name_in_the_root_and_in_the_folders_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "vendor.py").touch()
    environ = {VENDOR_PATH: str(tmp_path)}
    assert list(vendor_folders(environ)) == ["acme", "amd", "cpu", "iluvatar", "nvidia"]
    assert vendor_folder("acme", environ) == tmp_path / "acme"
    assert vendor_folder("cpu", environ) == ROOT / "cpu"
    with pytest.raises(ConfigError) as refusal:
        vendor_folder("cpuu", {})
    assert str(refusal.value).startswith(
        f"no vendor is called 'cpuu'. Did you mean 'cpu'? Found: amd, cpu, iluvatar, nvidia. A vendor is a folder with "
        f"a vendor.py in {ROOT} or"
    )


def test_a_path_is_shown_from_the_root_on(tmp_path: Path) -> None:
    assert display_path(ROOT / "cpu" / "config" / "x.toml") == "cpu/config/x.toml"
    assert display_path(tmp_path / "x.toml") == str(tmp_path / "x.toml")


def test_runs_go_to_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, ROOT / "base"):
        monkeypatch.chdir(folder)
        assert runs_folder({}) == ROOT / "runs"
    assert runs_folder({"SSD_RUNS_DIR": str(tmp_path)}) == tmp_path
    with pytest.raises(ConfigError, match="SSD_RUNS_DIR names xxx"):
        runs_folder({"SSD_RUNS_DIR": "x" * 300})
