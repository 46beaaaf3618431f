"""`vendors new`: two files that train as they are, and a name and a place that are free."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.cli import run
from ssd.errors import ConfigError
from ssd.vendor.scaffold import make_vendor, new_command


def test_the_files_lead_to_the_next_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSD_VENDOR_PATH", raising=False)
    assert new_command("acme", tmp_path) == 0
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "acme").rglob("*") if path.is_file()} == {"vendor.py", "X1x1x1.toml"}
    assert said.splitlines() == [
        f"made {tmp_path}/acme/vendor.py and {tmp_path}/acme/config/X1x1x1.toml",
        "next, from base/ (docs/porting.md tells the rest: kernels, keys of its own, telemetry):",
        f"  export SSD_VENDOR_PATH={tmp_path}",
        "  python -m ssd check --name acme --config smoke",
        "  python -m ssd train --name acme --config smoke",
        "  python -m ssd vendors check acme",
    ]
    monkeypatch.setenv("SSD_VENDOR_PATH", str(tmp_path))
    new_command("bolt", tmp_path)
    assert "export" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Acme", "9lives", "a-b", "a b", "../x", "class", "", "a.b", "a" * 65])
def test_names_that_are_no_plain_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a vendor's name"):
        make_vendor(name, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cpu", "nvidia", "iluvatar"])
def test_a_name_that_another_vendor_has_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the name '{name}' is taken: {name} exists"):
        make_vendor(name, tmp_path, {})


def test_what_is_there_is_never_written_over(tmp_path: Path, root: Path) -> None:
    (tmp_path / "acme").mkdir()
    with pytest.raises(ConfigError, match="is taken"):
        make_vendor("acme", tmp_path, {})
    assert list((tmp_path / "acme").iterdir()) == []
    with pytest.raises(ConfigError, match="'tests' is taken: tests exists"):
        make_vendor("tests", root, {})


@pytest.mark.parametrize(
    ("argv", "words"), [([], "NAME is missing"), (["acme", "--fold", "x"], "--fold"), (["acme", "b"], "'b' belongs")]
)
def test_a_wrong_command_line_says_so(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(["vendors", "new", *argv])


def test_the_readme_shows_the_file_that_is_written(root: Path, tmp_path: Path) -> None:
    made = (make_vendor("acme", tmp_path, {}) / "vendor.py").read_text()
    assert f"```python\n{made}```" in (root / "README.md").read_text()
    lines = [line for line in made.splitlines() if line]
    assert len(lines) <= 10
