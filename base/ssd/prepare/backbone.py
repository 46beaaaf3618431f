"""The file of the backbone: it is downloaded where it is missing, and checked where it exists."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from ssd.data.annotations import sha256_of
from ssd.errors import DataError
from ssd.files import whole_file
from ssd.prepare.fetch import Remote, download, verify

__all__ = ["BACKBONE", "BACKBONE_TODAY", "check_backbone", "fetch_backbone"]

log = logging.getLogger(__name__)

BACKBONE = Remote(
    "resnet34-333f7ec4.pth",
    ("https://download.pytorch.org/models/resnet34-333f7ec4.pth",),
    87_306_240,
    "333f7ec4c6338da2cbed37f1fc0445f9624f1355633fa1d7eab79a91084c6cef",
)
"""The backbone of the benchmark's reference implementation."""

BACKBONE_TODAY = "b627a593"
"""The first digits of the SHA-256 of torchvision's current ResNet-34. It is accepted in open runs only."""


def fetch_backbone(path: Path, *, from_dir: Path | None = None, remote: Remote = BACKBONE, **options: Any) -> Path:
    """Download the benchmark's backbone where it is missing, else verify it. Returns the path of the file.

    path: the file, or a folder for it. from_dir: a folder that may hold a copy. options: see `download`. Raises
    DataError where the existing file is not a known backbone.
    """
    target = path / remote.name if path.is_dir() else path
    if not target.exists() and from_dir is not None and (from_dir / remote.name).is_file():
        verify(from_dir / remote.name, remote)
        target.parent.mkdir(parents=True, exist_ok=True)
        with (from_dir / remote.name).open("rb") as source, whole_file(target) as copy:
            shutil.copyfileobj(source, copy)
    if target.exists():
        check_backbone(target, remote)
        return target
    return download(remote, target, **options)


def check_backbone(path: Path, remote: Remote = BACKBONE) -> str:
    """The SHA-256 of a backbone file, 64 hex digits. Raises DataError for a file that is not a known backbone.

    Known are the reference's file and torchvision's current one. For the latter a warning is logged.
    """
    digest = sha256_of(path)
    if digest != remote.sha256 and not digest.startswith(BACKBONE_TODAY):
        raise DataError(
            f"{path} is no known ResNet-34 checkpoint (sha256 {digest[:8]}...): {remote.name} begins with "
            f"{remote.sha256[:8]}, torchvision's present one with {BACKBONE_TODAY}; remove it and run prepare again"
        )
    if digest != remote.sha256:
        log.warning("%s is torchvision's present backbone: accepted in open runs, refused in closed ones", path)
    return digest
