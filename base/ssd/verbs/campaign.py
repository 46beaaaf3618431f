"""What a campaign needs from the rest of the package: a config's facts, a run in its own process, dropped caches."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from ssd.config import Config, require_run_keys, resolve
from ssd.config.vendor_keys import config_of
from ssd.data.annotations import sha256_of
from ssd.data.folder import SPLITS, annotation_file
from ssd.data.index_cache import load_index
from ssd.data.loader import eval_rows
from ssd.errors import EXIT_KILLED, DataError
from ssd.mlperf.commands import campaign_command
from ssd.mlperf.expectations import Planned
from ssd.plan.how_long import how_long, source_here
from ssd.report.summary import source_commit
from ssd.run.facts import run_facts
from ssd.signals import handled_by
from ssd.vendor import load_vendor

__all__ = ["campaign"]

_RUN = Path(__file__).resolve().parents[2] / "run_training.sh"


def campaign(flags: Sequence[str], *, runs: int, folder: Path | None, measure_steps: int | None) -> int:
    """`python -m ssd campaign`: see ssd.mlperf.commands.campaign_command. A signal also ends the current run."""
    with handled_by(_end, (signal.SIGTERM, signal.SIGHUP)):
        return campaign_command(
            *(flags, runs, folder, measure_steps),
            resolve=_plan,
            launch=_launch,
            drop_caches=_drop_caches,
            how_long=_how_long,
        )


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_KILLED + number)


def _plan(flags: Sequence[str]) -> Planned:
    """The config of the flags, with the numbers of images and the backbone's hash that a run would log."""
    config = resolve(flags).config
    require_run_keys(config)
    backbone = config.backbone_path if config.pretrained else None
    if backbone and not backbone.is_file():
        raise DataError(f"backbone_path = {backbone}: no such file; `prepare --backbone_path FILE` fetches it")
    facts = run_facts(config, 0, *_samples(config), sha256_of(backbone) if backbone else None)
    return Planned(facts, config.model_dump(mode="json"), source_commit())


def _samples(config: Config) -> tuple[int, int]:
    """The numbers of training and evaluation images."""
    if config.data_backend == "synthetic" or config.data_dir is None:
        return config.synthetic_samples, config.synthetic_samples
    files = [annotation_file(config.data_dir, split) for split in SPLITS]
    train, val = (load_index(file, config.cache_dir) for file in files)
    return len(train.with_boxes()), len(eval_rows(val, config.eval_images))


def _launch(flags: Sequence[str], environ: Mapping[str, str]) -> int:
    """Start one run as a user would, and wait for its end. Returns its exit code.

    The run has a session of its own. So Ctrl-C reaches it only once, from this process. Its launcher then ends the
    workers, and their log says aborted. The run inherits the campaign's lock.
    """
    environ = {**environ, "PYTHON": sys.executable}
    command = ["bash", str(_RUN), *flags]
    with subprocess.Popen(command, env=environ, close_fds=False, start_new_session=True) as run:
        try:
            code = run.wait()
        except BaseException:
            run.terminate()
            run.wait()
            raise
    return code if code >= 0 else EXIT_KILLED - code


def _drop_caches(planned: Planned) -> str | None:
    return load_vendor(str(planned.config["name"])).why_caches_stay()


def _how_long(planned: Planned, runs: int, timed: Path | None) -> str:
    config = config_of(str(planned.config["name"])).model_validate(planned.config)
    return how_long(config, source_here(config, planned.facts.train_samples, timed), runs)
