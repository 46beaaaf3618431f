"""Before and after a run: what it lacks is said in order, its folder gets a name, and its variables are set once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssd.config import Config, Resolved, resolve
from ssd.errors import ConfigError, DataError
from ssd.verbs import runnable
from ssd.verbs.runnable import require_runnable, say_saved, set_variables, start_with_variables, with_output

SMOKE = ("--config", "smoke")


def test_a_run_without_a_folder_gets_one_named_by_date(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runnable, "runs_folder", lambda: tmp_path)
    monkeypatch.setattr(runnable.time, "strftime", lambda form: "20260102-030405")
    asked = resolve(SMOKE, {})
    given = with_output(asked)
    assert given.config.output == tmp_path / "20260102-030405-cpu-smoke"
    assert given.provenance == {**asked.provenance, "output": "named by date"}
    assert asked.config.output is None
    named = resolve([*SMOKE, "--output", str(tmp_path / "mine")], {})
    assert with_output(named) is named


def test_a_name_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runnable, "runs_folder", lambda: Path("/" + "x" * 300))
    with pytest.raises(ConfigError, match=r"output is not set, and the name made for it cannot be used: .*\. Set it\."):
        with_output(resolve(SMOKE, {}))


def test_keys_come_before_data_and_data_before_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("ssd.vendor.require_machine", lambda vendor, resolved: asked.append(vendor.name))
    with pytest.raises(ConfigError, match="data_dir is not set"):
        require_runnable(Resolved(Config(pretrained=False), {}))
    with pytest.raises(DataError, match="no such folder"):
        require_runnable(Resolved(Config(pretrained=False, data_dir=tmp_path / "absent"), {}))
    assert asked == []
    require_runnable(resolve(SMOKE, {}))
    assert asked == ["cpu"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple]:
    """What was started anew, for a vendor that sets variables."""
    asked: list[tuple] = []
    monkeypatch.setattr(runnable, "vendor_folder", lambda name: tmp_path)
    monkeypatch.setattr(runnable, "settle_streams", lambda: asked.append("settled"))
    monkeypatch.setattr(os, "execvpe", lambda *words: asked.append(words))
    monkeypatch.delenv("SSD_VARIABLES", raising=False)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "environment_variables.sh").touch()
    return asked


def test_the_vendor_s_variables_are_set_by_the_script(started: list, root: Path) -> None:
    set_variables(resolve(SMOKE, {}).config, ["--config", "smoke"])
    [settled, (file, words, environ)] = started
    assert (settled, file) == ("settled", "bash")
    assert words == ["bash", str(root / "base" / "run_training.sh"), "--config", "smoke"]
    assert environ["PYTHON"] == sys.executable
    assert environ["PATH"] == os.environ["PATH"]
    assert environ["SSD_VERB"] == "launch"


def test_a_verb_s_own_flags_are_given_again(started: list) -> None:
    start_with_variables("cpu", "bench", ["--width", "0.5"], {"quick": True, "json": False, "reference": Path("a b")})
    [_, (_, words, environ)] = started
    assert words[2:] == ["--width", "0.5", "--quick", "--reference=a b"]
    assert environ["SSD_VERB"] == "bench"


def test_the_script_starts_the_verb_that_it_is_told(root: Path, tmp_path: Path) -> None:
    """And the verb's own processes do not inherit it."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" "${SSD_VERB-none}" "$SSD_VARIABLES"\n')
    python.chmod(0o755)
    script, environ = root / "base" / "run_training.sh", {**os.environ, "PYTHON": str(python)}
    for verb, given in (("launch", {}), ("bench", {"SSD_VERB": "bench"})):
        command = ["bash", str(script), "--name", "cpu", "--quick"]
        done = subprocess.run(command, env={**environ, **given}, capture_output=True, text=True, check=True)
        assert done.stdout == f"-m ssd {verb} --name cpu --quick none cpu\n"


def test_nothing_is_started_anew_where_they_are_set_or_there_are_none(
    started: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = resolve(SMOKE, {}).config
    monkeypatch.setenv("SSD_VARIABLES", "cpu")
    set_variables(config, [])
    assert started == []
    monkeypatch.setenv("SSD_VARIABLES", "another")
    set_variables(config, [])
    assert len(started) == 2
    (tmp_path / "config" / "environment_variables.sh").unlink()
    set_variables(config, [])
    assert len(started) == 2


def test_a_config_that_cannot_run_is_refused_first(started: list, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data_dir is not set"):
        set_variables(Config(pretrained=False), [])
    with pytest.raises(DataError, match="no such folder"):
        set_variables(Config(pretrained=False, data_dir=tmp_path / "absent"), [])
    assert started == []


@pytest.mark.parametrize(("cut_off", "said"), [(True, 1), (False, 0)])
def test_what_was_saved_is_said_of_a_run_that_was_cut_off(
    cut_off: bool, said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr("ssd.verbs.runnable.was_cut_off", lambda code: cut_off)
    monkeypatch.setattr("ssd.run.saved.say_saved", lambda *words: asked.append(words))
    config = Config()
    say_saved(config, 8)
    assert asked == [(config, 8)] * said
