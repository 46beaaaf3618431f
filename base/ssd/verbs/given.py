"""What a command line names, looked for before torch is imported: a mistake is said at once, and not after seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssd.config import Config, require_run_keys, resolve
from ssd.config.files import read_chain
from ssd.config.folders import vendor_folder
from ssd.config.resume import CHECKPOINT
from ssd.errors import ConfigError, DataError

__all__ = [
    "require_campaign",
    "require_checkpoint",
    "require_data",
    "require_data_dir",
    "require_from_dir",
    "require_some",
    "require_vendor",
]


def require_checkpoint(path: Path) -> None:
    """DataError unless `path` is a checkpoint's file, or the folder of a run that has one."""
    if not (path / CHECKPOINT if path.is_dir() else path).is_file():
        raise DataError(f"--checkpoint {path}: no checkpoint there; name its file, or a run's folder that has one.")


def require_some(images: Sequence[Path]) -> None:
    """DataError unless one of these files and folders is there."""
    if not any(path.exists() for path in images):
        raise DataError(f"--images {' '.join(map(str, images))}: no such file or folder.")


def require_data(config: Config) -> None:
    """DataError where data_dir is no folder or backbone_path no file, and the run reads it."""
    if config.data_backend != "synthetic":
        require_data_dir(config)
    backbone = config.backbone_path
    if backbone is not None and config.pretrained and not backbone.is_file():
        raise DataError(f"backbone_path = {backbone}: no such file; `prepare --backbone_path FILE` fetches it.")


def require_data_dir(config: Config) -> None:
    """DataError where data_dir is set and is no folder."""
    if config.data_dir is not None and not config.data_dir.is_dir():
        raise DataError(f"data_dir = {config.data_dir}: no such folder; `prepare` fetches or draws a COCO folder.")


def require_from_dir(folder: Path | None) -> None:
    """ConfigError where `prepare` is given a folder of archives that is none."""
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--from_dir {folder}: no such folder; name the one that holds COCO's archives.")


def require_campaign(flags: Sequence[str]) -> None:
    """ConfigError or DataError where these flags cannot be those of a campaign."""
    from ssd.mlperf.commands import refuse_own_keys, require_names  # what other verbs need not wait for

    refuse_own_keys(flags)
    config = resolve(flags).config
    require_names(config.model_dump())
    require_run_keys(config)
    require_data(config)


def require_vendor(name: str, config: str | None) -> None:
    """ConfigError where there is no such vendor, or the vendor has no such config."""
    folder = vendor_folder(name)
    if config is not None:
        read_chain(config, folder)
