"""What a campaign is given: a config's facts, a run in its own process that ends with it, and what comes before."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssd.errors import ConfigError, DataError
from ssd.verbs import campaign

NAMED = ("--name", "cpu", "--config", "smoke", "--submitter", "org", "--system", "box")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is started in place of run_training.sh; tests write it."""
    path = tmp_path / "run.sh"
    monkeypatch.setattr(campaign, "_RUN", path)
    return path


@pytest.mark.parametrize(("ends", "code"), [("exit 0", 0), ("exit 6", 6), ("kill -KILL $$", 128 + 9)])
def test_the_exit_code_of_a_run_is_the_shell_s(script: Path, ends: str, code: int) -> None:
    script.write_text(
        f'[ "$1" = --seed ] && [ "$2" = 7 ] && [ "$MINE" = yes ] && [ -x "$PYTHON" ] || exit 99\n{ends}\n'
    )
    assert campaign._launch(["--seed", "7"], {**os.environ, "MINE": "yes"}) == code


def test_a_run_has_a_session_of_its_own_and_the_campaign_s_lock(script: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    script.write_text(f"read -r _ _ _ _ _ session _ < /proc/$$/stat\n[ $session = $$ ] && echo held >&{writing}\n")
    assert campaign._launch([], os.environ) == 0
    os.close(writing)
    assert os.read(reading, 10) == b"held\n"
    os.close(reading)


def test_a_signal_ends_the_run_before_the_campaign(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is asked to end, and it is waited for until it has."""
    script.write_text("trap 'sleep 0.7; exit 5' TERM\ntouch \"$1\"\nwhile :; do sleep 0.05; done\n")
    begun = script.with_name("begun")
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if not started:
                started.append(self)
                while not begun.exists():
                    time.sleep(0.01)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(campaign.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        campaign._launch([str(begun)], os.environ)
    assert started[0].returncode == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_campaign_that_a_signal_ends_says_which(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*about: Any, **ways: Any) -> int:
        assert about == (["--width", "1"], 5, None, 40)
        assert ways["launch"] is campaign._launch
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0

    monkeypatch.setattr(campaign, "campaign_command", command)
    with pytest.raises(SystemExit) as ended:
        campaign.campaign(["--width", "1"], runs=5, folder=None, measure_steps=40)
    assert ended.value.code == 128 + number
    monkeypatch.setattr(campaign, "campaign_command", lambda *about, **ways: 6)
    assert campaign.campaign([], runs=5, folder=None, measure_steps=None) == 6


def test_the_facts_that_a_run_would_log(coco: Path, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.pth"
    backbone.write_bytes(b"abc")
    flags = [*NAMED, "--backbone_path", str(backbone), "--cache_dir", str(tmp_path)]
    made = campaign._plan([*flags, "--no-pretrained", "--data_backend", "synthetic", "--synthetic_samples", "20"])
    assert (made.facts.train_samples, made.facts.eval_samples, made.facts.backbone_sha256) == (20, 20, "")
    assert (made.facts.submitter, made.config["system"]) == ("org", "box")
    config = campaign.resolve([*flags, "--data_backend", "threads", "--data_dir", str(coco)]).config
    train, val = (campaign.load_index(campaign.annotation_file(coco, split), tmp_path) for split in campaign.SPLITS)
    assert campaign._samples(config) == (len(train.with_boxes()), len(val))
    assert campaign._samples(config.model_copy(update={"eval_images": "with_boxes"})) == (
        len(train.with_boxes()),
        len(val.with_boxes()),
    )
    no_data = config.model_copy(update={"data_dir": None, "synthetic_samples": 9})
    assert campaign._samples(no_data) == (9, 9)
    assert campaign._samples(no_data.model_copy(update={"data_dir": coco, "data_backend": "synthetic"})) == (9, 9)


def test_a_backbone_is_hashed_where_it_is_used(tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.pth"
    flags = [*NAMED, "--width", "1", "--pretrained", "--data_backend", "synthetic", "--backbone_path", str(backbone)]
    with pytest.raises(DataError, match=r"backbone\.pth: no such file; `prepare --backbone_path FILE` fetches it"):
        campaign._plan(flags)
    backbone.write_bytes(b"abc")
    assert campaign._plan(flags).facts.backbone_sha256 == hashlib.sha256(b"abc").hexdigest()


def test_keys_that_a_run_lacks_are_named() -> None:
    with pytest.raises(ConfigError, match="data_dir is not set"):
        campaign._plan([*NAMED, "--data_backend", "threads"])


def test_caches_are_the_vendor_s_and_the_time_is_the_plan_s(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = campaign._plan(NAMED)
    monkeypatch.setattr(campaign, "load_vendor", lambda name: SimpleNamespace(why_caches_stay=lambda: f"{name} keeps"))
    assert campaign._drop_caches(planned) == "cpu keeps"
    monkeypatch.setattr(campaign, "source_here", lambda config, samples, timed: (samples, timed))
    monkeypatch.setattr(campaign, "how_long", lambda config, source, runs: f"{config.system} {source} {runs}")
    about = (planned.facts.train_samples, Path("timed"))
    assert campaign._how_long(planned, 5, Path("timed")) == f"box {about} 5"
