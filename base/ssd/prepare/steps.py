"""The verb `prepare`: it downloads or draws the data and checks it, downloads the backbone, and builds kernels.

A step can be run again, and then it does only what is not done yet. If one step fails, the others are tried all the
same. The exit code is the largest exit code of a step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from ssd.config import Config, Resolved
from ssd.errors import EXIT_REACHED, ConfigError, SsdError
from ssd.prepare.backbone import BACKBONE, fetch_backbone
from ssd.prepare.coco import prepare_coco, prepare_demo
from ssd.prepare.decoded_images import decode_images
from ssd.prepare.fetch import console_report
from ssd.vendor import load_vendor

__all__ = ["DEMO", "prepare"]

log = logging.getLogger(__name__)

DEMO = "demo"
"""The named config whose data is drawn here. Every other config reads COCO."""


def prepare(
    resolved: Resolved, from_dir: Path | None = None, decode_all: bool = False, extensions_only: bool = False
) -> int:
    """Prepare what a run of this config needs. Returns the exit code.

    from_dir: a folder with archives and backbone, for a machine without a network. decode_all: decode every image of
    the folder. Otherwise only the header and both ends of a file are read. extensions_only: build kernels only, without
    data and backbone, as for a container's image. Raises ConfigError where from_dir is not a folder.
    """
    config = resolved.config
    steps = {
        "data": lambda: _data(config, from_dir, decode_all),
        "backbone": lambda: _backbone(config, from_dir),
        "extensions": lambda: _build(config),
    }
    if config.decoded_cache is not None:
        steps["decoded images"] = lambda: _decoded(config)
    if extensions_only:
        steps = {"extensions": steps["extensions"]}
    return max(_try(what, step) for what, step in steps.items())


def _try(what: str, step: Callable[[], Iterable[str]]) -> int:
    """Run a step, and log what it did or why it failed. Returns its exit code."""
    try:
        for line in step():
            log.info("%s: %s", what, line)
    except SsdError as error:
        log.error("%s: error: %s", what, error)
        return error.exit_code
    return EXIT_REACHED


def _build(config: Config) -> list[str]:
    vendor = load_vendor(config.name)
    vendor.config = config
    return vendor.build(config.cache_dir)


def _data(config: Config, from_dir: Path | None, decode_all: bool) -> list[str]:
    if config.data_dir is None:
        raise ConfigError(
            "data_dir is not set: give --data_dir D, a folder that holds COCO or shall hold it; "
            "or --config demo, for a small drawn set in a folder of its own"
        )
    if config.config == DEMO:
        return prepare_demo(config.data_dir, config.cache_dir).lines()
    with console_report() as report:
        found = prepare_coco(config.data_dir, config.cache_dir, from_dir=from_dir, decode_all=decode_all, report=report)
    return found.lines()


def _decoded(config: Config) -> list[str]:
    if config.data_dir is None or config.decoded_cache is None:
        raise ConfigError("decoded_cache holds the images of data_dir, which is not set: give --data_dir D")
    with console_report() as report:
        return decode_images(config.decoded_cache, config.data_dir, config.cache_dir, config.num_workers, report)


def _backbone(config: Config, from_dir: Path | None) -> list[str]:
    if config.backbone_path is None:
        return [f"not asked for; --backbone_path FILE fetches {BACKBONE.name} into it"]
    with console_report() as report:
        path = fetch_backbone(config.backbone_path, from_dir=from_dir, report=report)
    return [f"{path} is a known ResNet-34"]
