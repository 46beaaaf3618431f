"""The file of the backbone: fetched where it is missing, checked where it is there."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from ssd.data.annotations import sha256_of
from ssd.errors import DataError
from ssd.prepare.fetch import Remote, download, verify

__all__ = ["BACKBONE", "BACKBONE_TODAY", "check_backbone", "fetch_backbone"]

log = logging.getLogger(__name__)

BACKBONE = Remote(
    "resnet34-333f7ec4.pth",
    ("https://download.pytorch.org/models/resnet34-333f7ec4.pth",),
    87_306_240,
    "333f7ec4c6338da2cbed37f1fc0445f9624f1355633fa1d7eab79a91084c6cef",
)
"""The backbone of the benchmark's reference."""

BACKBONE_TODAY = "b627a593"
"""First digits of the sha256 of torchvision's present ResNet-34: accepted in open runs only."""


def fetch_backbone(path: Path, *, from_dir: Path | None = None, remote: Remote = BACKBONE, **options: Any) -> Path:
    """The benchmark's backbone at `path` (a file, or a folder to put it in): fetched where absent, else verified.

    options: see `download`. DataError when a file is there that is not a known backbone.
    """
    target = path / remote.name if path.is_dir() else path
    if not target.exists() and from_dir is not None and (from_dir / remote.name).is_file():
        verify(from_dir / remote.name, remote)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        shutil.copyfile(from_dir / remote.name, part)
        os.replace(part, target)
    if target.exists():
        check_backbone(target, remote)
        return target
    return download(remote, target, **options)


def check_backbone(path: Path, remote: Remote = BACKBONE) -> str:
    """sha256 of a backbone file. DataError unless it is the reference's or, for open runs, torchvision's of today."""
    digest = sha256_of(path)
    if digest != remote.sha256 and not digest.startswith(BACKBONE_TODAY):
        raise DataError(
            f"{path} is no known ResNet-34 checkpoint (sha256 {digest[:8]}...): {remote.name} begins with "
            f"{remote.sha256[:8]}, torchvision's present one with {BACKBONE_TODAY}; remove it and run prepare again"
        )
    if digest != remote.sha256:
        log.warning("%s is torchvision's present backbone: accepted in open runs, refused in closed ones", path)
    return digest
