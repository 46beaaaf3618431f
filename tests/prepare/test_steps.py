"""The verb prepare: which set a command line asks for, every step tried, and the exit code of the worst."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ssd import cli
from ssd.errors import EXIT_BAD_CONFIG, EXIT_BAD_DATA, EXIT_MACHINE, MachineError
from ssd.prepare import steps as prepare
from ssd.prepare.drawn import draw_set
from ssd.vendor import Vendor


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """A home of its own: the demo set and the cache lie there by default."""
    for variable in ("SSD_DATA_DIR", "SSD_CACHE_DIR", "SSD_BACKBONE_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    caplog.set_level(logging.INFO)  # as the command line sets it
    return tmp_path


@pytest.fixture
def bare_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every vendor is base's own, under its name: no kernel is compiled."""
    monkeypatch.setattr(prepare, "load_vendor", lambda name: Vendor(name, Path()))


@pytest.mark.usefixtures("bare_vendor")
def test_a_cpu_without_data_dir_gets_the_demo_set(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = prepare.prepare_demo
    monkeypatch.setattr(prepare, "prepare_demo", lambda data, cache: real(data, cache, train=5, val=3))
    assert cli.main(["prepare", "--name", "cpu"]) == 0
    assert (home / ".cache/ssd/demo/annotations/instances_val2017.json").is_file()
    assert "train2017: 5 images" in caplog.text
    assert cli.main(["prepare", "--name", "nvidia", "--config", "demo"]) == 0


@pytest.mark.usefixtures("bare_vendor")
def test_another_vendor_asks_for_data_dir(caplog: pytest.LogCaptureFixture) -> None:
    assert cli.main(["prepare", "--name", "nvidia"]) == EXIT_BAD_CONFIG
    assert "data_dir is not set" in caplog.text
    assert "backbone: not asked for" in caplog.text


def test_a_users_folder_is_checked_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_set(tmp_path / "mine", train=4, val=3, seed=1)
    before = sorted(tmp_path.joinpath("mine").rglob("*"))
    assert cli.main(["prepare", "--name", "cpu", "--data_dir", str(tmp_path / "mine")]) == 0
    assert sorted(tmp_path.joinpath("mine").rglob("*")) == before
    min((tmp_path / "mine" / "train2017").iterdir()).unlink()
    assert cli.main(["prepare", "--name", "cpu", "--data_dir", str(tmp_path / "mine")]) == EXIT_BAD_DATA
    assert "1 missing" in caplog.text


def test_a_wrong_backbone_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_set(tmp_path / "mine", train=4, val=3, seed=1)
    (tmp_path / "b.pth").write_bytes(b"something else")
    argv = ["--data_dir", str(tmp_path / "mine"), "--backbone_path", str(tmp_path / "b.pth")]
    assert cli.main(["prepare", *argv]) == EXIT_BAD_DATA
    assert "backbone: error" in caplog.text


@pytest.mark.usefixtures("bare_vendor")
def test_every_step_is_tried_and_the_worst_code_returned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def build(self: Vendor, cache_dir: Path) -> list[str]:
        raise MachineError("no compiler")

    monkeypatch.setattr(Vendor, "build", build)
    assert cli.main(["prepare", "--name", "nvidia"]) == max(EXIT_MACHINE, EXIT_BAD_CONFIG)
    assert "extensions: error: no compiler" in caplog.text
    assert "data: error" in caplog.text


@pytest.mark.usefixtures("bare_vendor")
def test_what_was_built_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(Vendor, "build", lambda self, cache_dir: [f"kernels of {self.config.name} in {cache_dir}"])
    monkeypatch.setattr(prepare, "fetch_backbone", lambda path, **_: path)
    cli.main(["prepare", "--name", "nvidia", "--cache_dir", "/c", "--backbone_path", "/b.pth"])
    assert "extensions: kernels of nvidia in /c" in caplog.text
    assert "backbone: /b.pth is a known ResNet-34" in caplog.text


@pytest.mark.usefixtures("bare_vendor")
def test_a_cache_of_decoded_images_is_filled_where_one_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw_set(tmp_path / "mine", train=3, val=2, seed=1)
    cache = ["--decoded_cache", str(tmp_path / "decoded")]
    assert cli.main(["prepare", "--name", "cpu", "--data_dir", str(tmp_path / "mine"), *cache]) == 0
    assert (tmp_path / "decoded").is_dir()
    assert "decoded images: " in caplog.text
    assert cli.main(["prepare", "--name", "nvidia", *cache]) == EXIT_BAD_CONFIG
    assert "decoded images: error: decoded_cache holds the images of data_dir, which is not set" in caplog.text


@pytest.mark.usefixtures("bare_vendor")
def test_extensions_alone_need_no_data(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(Vendor, "build", lambda self, cache_dir: [f"built into {cache_dir}"])
    assert cli.main(["prepare", "--name", "nvidia", "--extensions_only"]) == 0
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["extensions"]


def test_a_from_dir_that_is_none_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["prepare", "--data_dir", str(tmp_path / "new"), "--from_dir", str(tmp_path / "typo")]
    assert cli.main(argv) == EXIT_BAD_CONFIG
    assert "typo: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
