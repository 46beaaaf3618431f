"""`make same`: a commit and the checkout after it are trained side by side, and what parts is named."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ssd.errors import EXIT_DIFFERENT, ConfigError

pytestmark = pytest.mark.slow

KEYS = ["--width", "0.125", "--synthetic_samples", "8", "--train_batch_size", "2", "--max_steps", "3"]


@pytest.fixture
def same(root: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str) -> ModuleType:
    """bench/same.py, which starts its runs by a Python that is warm."""
    monkeypatch.setattr(sys, "executable", warm_python)
    monkeypatch.syspath_prepend(root / "bench")
    spec = importlib.util.spec_from_file_location("same", root / "bench" / "same.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A repository of one commit that holds base/ and cpu/ as they are."""
    folder = tmp_path / "checkout"
    for name in ("base", "cpu"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--no-gpg-sign", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    return folder


def test_a_changed_constant_of_the_loss_is_found(
    same: ModuleType, checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the batches, which it does not change, are said to be the same."""
    source = checkout / "base" / "ssd" / "ops" / "loss.py"
    text = source.read_text()
    assert text.count("negative_ratio: int = 3") == 1
    source.write_text(text.replace("negative_ratio: int = 3", "negative_ratio: int = 4"))
    output = tmp_path / "out"
    flags = ["--base", "HEAD", "--root", str(checkout), "--configs", "smoke", "--output", str(output)]
    assert same.main([*flags, "--", *KEYS]) == EXIT_DIFFERENT
    said = capsys.readouterr().out
    assert "A and B part at step 1 (epoch 1): the loss differs" in said
    assert "Of the losses of 3 steps, 3 differ" in said
    assert "steps' images" not in said
    assert said == (output / "same.txt").read_text()
    assert "+changed" in said.splitlines()[0]
    listed = subprocess.run(
        ["git", "-C", str(checkout), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1, "the worktree is removed"


def test_a_run_that_fails_is_no_difference(same: ModuleType, root: Path, tmp_path: Path) -> None:
    code, said = same.held("smoke", (root, root), ["--momentum", "2"], tmp_path)
    assert code == 1
    assert "exit code 2" in said[0]
    assert "momentum" in said[1]


def test_a_commit_that_is_none(same: ModuleType, checkout: Path) -> None:
    with pytest.raises(ConfigError, match=r"BASE = nowhere: git cannot check it out: fatal"):
        same.main(["--base", "nowhere", "--root", str(checkout)])
