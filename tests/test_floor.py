"""The floor: constraints-floor.txt holds each library at the oldest release that requirements.txt allows."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version


def requirements(path: Path) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {one.name: one for one in map(Requirement, filter(None, lines))}


def test_the_floor_is_what_the_ranges_allow(root: Path) -> None:
    allowed = requirements(root / "requirements.txt")
    floor = requirements(root / "constraints-floor.txt")
    assert floor.keys() == allowed.keys()
    for name, one in allowed.items():
        (oldest,) = one.specifier
        (pinned,) = floor[name].specifier
        assert (oldest.operator, pinned.operator) == (">=", "=="), name
        release = Version(pinned.version.removesuffix(".*"))
        assert release.release[: len(Version(oldest.version).release)] == Version(oldest.version).release, name


def test_the_cuda_image_lies_within_the_ranges(root: Path) -> None:
    allowed, image = (requirements(root / name) for name in ("requirements.txt", "constraints-cuda-image.txt"))
    for name in ("torch", "torchvision"):
        (pinned,) = image[name].specifier
        assert allowed[name].specifier.contains(pinned.version.removesuffix(".*")), name
    assert "triton" in image
