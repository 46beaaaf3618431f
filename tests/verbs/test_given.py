"""What a command line names is looked for at once, and the message says what to name instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.config import Config
from ssd.errors import ConfigError, DataError
from ssd.verbs.given import (
    require_campaign,
    require_checkpoint,
    require_data,
    require_data_dir,
    require_from_dir,
    require_some,
    require_vendor,
)


def test_a_checkpoint_is_a_file_or_in_a_run_s_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="no checkpoint there; name its file, or a run's folder"):
            require_checkpoint(path)
    (tmp_path / "checkpoint.pt").touch()
    require_checkpoint(tmp_path)
    require_checkpoint(tmp_path / "checkpoint.pt")


def test_one_of_the_images_is_there(tmp_path: Path) -> None:
    require_some([tmp_path / "nowhere", tmp_path])
    with pytest.raises(DataError, match="no such file or folder"):
        require_some([tmp_path / "nowhere"])


def test_data_that_the_run_reads(tmp_path: Path) -> None:
    absent = tmp_path / "nowhere"
    with pytest.raises(DataError, match=r"data_dir = .*nowhere: no such folder; `prepare` fetches"):
        require_data(Config(data_dir=absent, pretrained=False))
    with pytest.raises(DataError, match=r"backbone_path = .*nowhere: no such file"):
        require_data(Config(data_dir=tmp_path, backbone_path=absent))
    require_data(Config(data_dir=tmp_path, backbone_path=absent, pretrained=False))
    require_data(Config(data_dir=absent, data_backend="synthetic", pretrained=False))
    with pytest.raises(DataError, match="no such folder"):
        require_data_dir(Config(data_dir=absent, data_backend="synthetic", pretrained=False))


def test_a_vendor_and_its_config() -> None:
    require_vendor("cpu", None)
    require_vendor("cpu", "smoke")
    with pytest.raises(ConfigError, match="no vendor is called 'cpuu'"):
        require_vendor("cpuu", None)
    with pytest.raises(ConfigError, match="no such config"):
        require_vendor("cpu", "nowhere")


def test_a_folder_of_archives_is_one(tmp_path: Path) -> None:
    require_from_dir(None)
    require_from_dir(tmp_path)
    with pytest.raises(ConfigError, match=r"--from_dir .*nowhere: no such folder; name the one that holds COCO's"):
        require_from_dir(tmp_path / "nowhere")


def test_what_a_campaign_cannot_be_given(tmp_path: Path) -> None:
    named = ["--config", "smoke", "--submitter", "org", "--system", "box"]
    require_campaign(named)
    for flags, said in ((["--seed", "3"], "--seed: a campaign sets it"), (["--system", "unknown"], "--system is miss")):
        with pytest.raises(ConfigError, match=said):
            require_campaign([*named, *flags])
    with pytest.raises(ConfigError, match="data_dir is not set"):
        require_campaign([*named, "--data_backend", "threads"])
    with pytest.raises(DataError, match="no such folder"):
        require_campaign([*named, "--data_backend", "threads", "--data_dir", str(tmp_path / "nowhere")])
