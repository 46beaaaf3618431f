"""What reads input: for each reader a folder of good files, the call that reads it, and what a good answer is.

A reader gets the folder with one file damaged. It may refuse it by one of this project's errors, or answer. An answer
that `wrong` objects to is a fault as well: nonsense that was accepted.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ssd.config import Config, resolve
from ssd.data.annotations import parse_annotations
from ssd.data.decode import decode
from ssd.data.index import Index, leaves_folder, require_sound
from ssd.data.index_cache import load_index
from ssd.mlperf.attempts import Attempt, State, load_state
from ssd.mlperf.log_checks import log_findings
from ssd.mlperf.logs import read_log
from ssd.mlperf.package_check import check_package
from ssd.mlperf.result_table import as_csv, as_json
from ssd.mlperf.results import read_result
from ssd.mlperf.runs import difference, read_run, why_not_a_result
from ssd.model import build_model
from ssd.model.weights import load_backbone
from ssd.plan.measured import KIND, Measured, read_measured
from ssd.plan.rows import PUBLISHED, read_rows
from ssd.prepare.unpack import unpack
from ssd.report.equality import read_kept
from ssd.report.log_story import story_of_log
from ssd.report.page import report_html
from ssd.report.story import story_of_run
from ssd.run.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint, save_checkpoint
from ssd.vendor import load_vendor
from ssd.vendor.scaffold import make_vendor

__all__ = ["SUBJECTS", "Subject"]


def _sibling(file: str) -> ModuleType:
    """Another test folder's helpers, which are no package."""
    path = Path(__file__).resolve().parents[1] / file
    spec = importlib.util.spec_from_file_location(f"fuzz_{path.parent.name}_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Subject:
    """One reader.

    make: writes good files into an empty folder. damage: the files of it that are damaged, as patterns. read: reads the
    folder. wrong: what is wrong with an answer, "" for nothing. writes: names that reading may leave in the folder.
    reads_good: whether the good files are read. A whole backbone would be too large for this.
    share: of the inputs of a whole run, in relation to the others. A slow reader has a small one.
    """

    name: str
    make: Callable[[Path], None]
    damage: tuple[str, ...]
    read: Callable[[Path], Any]
    wrong: Callable[[Any], str] = lambda answer: ""
    writes: tuple[str, ...] = ()
    reads_good: bool = True
    share: float = 1.0


def not_finite(value: Any, where: str = "") -> str:
    """Where a value holds a number that is nan or infinite, "" for nowhere."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}"
    if isinstance(value, Mapping):
        return next((said for key, one in value.items() if (said := not_finite(one, f"{where}.{key}"))), "")
    if isinstance(value, list | tuple):
        return next((said for one in value if (said := not_finite(one, where))), "")
    return ""


# Data


def _coco(folder: Path) -> None:
    _sibling("conftest.py").write_coco(folder, 5)


def _wrong_index(index: Index) -> str:
    require_sound(index)
    names = [name for name in index.file_names if leaves_folder(name)]
    return f"a name leaves its folder: {names[0]!r}" if names else ""


def _cached(folder: Path) -> None:
    _coco(folder)
    load_index(folder / "annotations/instances_train2017.json", folder / "cache")


def _from_cache(folder: Path) -> Index:
    return load_index(folder / "annotations/instances_train2017.json", folder / "cache")


def _image(folder: Path) -> torch.Tensor:
    return decode(min((folder / "train2017").iterdir()), 100)


def _zip(folder: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(folder / f"set{method}.zip", "w", method) as file:
            for name, content in (("set/a.txt", b"alpha" * 100), ("set/deep/b.txt", bytes(range(256)))):
                file.writestr(name, content)


def _unpack(folder: Path) -> list[str]:
    found = []
    for archive in sorted(folder.glob("*.zip")):
        try:
            unpack(archive, folder / "set")
            found += [str(path.relative_to(folder)) for path in (folder / "set").rglob("*")]
        finally:
            shutil.rmtree(folder / "set", ignore_errors=True)
    return found


# Configs


def _toml(folder: Path) -> None:
    (folder / "mine.toml").write_text(
        'extends = "base.toml"\nepochs = 3\ntrain_batch_size = 4\nlr_decay_epochs = [1, 2]\nbase_learning_rate = 1e-3\n'
        'precision = "fp32"\nnhwc = true\nwidth = 0.5\ndata_dir = "~/coco"\n# a comment\nseed = 7\npretrained = false\n'
    )
    (folder / "base.toml").write_text('momentum = 0.9\neval_epochs = [1, 3]\nsubmitter = "me"\nwarmup = 10\n')


def _config(folder: Path) -> Config:
    return resolve(["--config", str(folder / "mine.toml")], {}).config


def _words(folder: Path) -> None:
    argv = ["--name", "cpu", "--config", "demo", "--seed", "1", "--epochs=3", "--lr_decay_epochs", "1", "2"]
    argv += ["--no-pretrained", "--base_learning_rate", "1e-3", "--data_dir", "/x", "--width=0.5", "--bn-group=1"]
    (folder / "words").write_text("\n".join(argv))
    (folder / "environ").write_text(
        "SSD_DATA_DIR=/x\nSSD_CACHE_DIR=/y\nSSD_VENDOR_PATH=\nWORLD_SIZE=1\nSLURM_NTASKS=1\n"
    )


def _command_line(folder: Path) -> Config:
    argv = (folder / "words").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    lines = (folder / "environ").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    environ = dict(line.split("=", 1) for line in lines if "=" in line and "\0" not in line)
    return resolve([word for word in argv if "\0" not in word], environ).config


def _wrong_config(config: Config) -> str:
    for name in ("train_batch_size", "epochs", "eval_batch_size", "nproc_per_node", "width", "base_learning_rate"):
        value = getattr(config, name)
        if value is not None and not 0 < value < 1e10:
            return f"{name} is {value}"
    return not_finite(config.model_dump(mode="json"), "config")


def _vendor(folder: Path) -> None:
    make_vendor("acme", folder, {})
    (folder / "acme/config").mkdir(exist_ok=True)
    (folder / "acme/config/mine.toml").write_text("epochs = 3\n")
    (folder / "acme/keys.py").write_text(
        "from ssd.config import COMPUTE, VendorKeys, key\n\n\nclass Keys(VendorKeys):\n"
        '    cache_mb: int = key(64, COMPUTE, "part of the cache", "MiB", ge=1, le=4096)\n'
    )


def _load_vendor(folder: Path) -> object:
    for name in [name for name in sys.modules if name.startswith("ssd_vendor_acme")]:
        del sys.modules[name]
    environ = {"SSD_VENDOR_PATH": str(folder)}
    load_vendor("acme", environ)
    return resolve(["--name", "acme", "--config", "mine"], environ).config


# Checkpoints and backbones


def _state() -> Checkpoint:
    told: dict[str, Any] = {"evaluations": [], "seconds": {"run": 1.0}, "written": 1e9, "inputs": {}, "logs": {}}
    told |= {"config": Config().model_dump_json(), "seed": 1, "step": 1, "steps_per_epoch": 4}
    weights: dict[str, Any] = {
        "model": {"w": torch.arange(4.0)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }
    return Checkpoint(**told, **weights, scaler={}, categories=[(1, "cat")], rng=torch.get_rng_state())


def _checkpoint(folder: Path) -> None:
    save_checkpoint(folder / CHECKPOINT, _state())


def _wrong_checkpoint(found: Checkpoint) -> str:
    return (
        "" if torch.equal(found.model["w"], torch.arange(4.0)) and found.step == 1 else "other content than was saved"
    )


def _backbone(folder: Path) -> None:
    content = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)[:2], "fc.bias": torch.zeros(3)}, content)
    (folder / "resnet34.pth").write_bytes(content.getvalue())


MODEL: list[Any] = []
"""One full-width model, made at the first use."""


def _load_backbone(folder: Path) -> str:
    if not MODEL:
        MODEL.append(build_model(seed=0, width=1.0)[0])
    return load_backbone(MODEL[0], folder / "resnet34.pth")


# Logs, run folders, packages, plans


def _run(folder: Path) -> None:
    _sibling("report/conftest.py").write_run(folder / "run")
    helpers = _sibling("mlperf/conftest.py")
    helpers.replay_run(folder / "run/result_0.txt", 0)
    resolved = {key: {"value": value, "from": "default"} for key, value in Config().model_dump(mode="json").items()}
    (folder / "run/config.json").write_text(json.dumps(resolved))


def _log(folder: Path) -> None:
    helpers = _sibling("mlperf/conftest.py")
    (folder / "run").mkdir()
    helpers.replay_run(folder / "run/result_0.txt", 0)


def _read_log(folder: Path) -> str:
    path = folder / "run/result_0.txt"
    log_findings(read_log(path, "log"), "1.1.0")
    report_html(story_of_log(path), pictures=False)
    result = read_result(path)
    as_csv([result])
    json.loads(as_json([result]), parse_constant=_no_constant)
    return ""


def _no_constant(name: str) -> Any:
    raise ValueError(f"the JSON holds {name}, which is no JSON")


def _read_run(folder: Path) -> str:
    run = read_run(folder / "run")
    why_not_a_result(run)
    difference(run, run)
    return ""


def _report(folder: Path) -> str:
    return report_html(story_of_run(folder / "run"), pictures=False)


def _wrong_page(page: str) -> str:
    if "<script>alert" in page:
        return "a name from a file is not escaped"
    figures = page.casefold().partition('id="config"')[0]  # a text of a config may be any word
    return next((f"the page shows {word}" for word in (">nan<", ">inf<", ">-inf<") if word in figures), "")


def _package(folder: Path) -> None:
    _sibling("mlperf/conftest.py").write_package(folder / "package")


def _check_package(folder: Path) -> object:
    return check_package(folder / "package").findings


def _measured(folder: Path) -> None:
    whole = {"accelerators": 1, "nodes": 1, "images": 400, "epochs": 3}
    timed = [{"local_batch": batch, "step_ms": 100.0 * batch, "spread": 0.1} for batch in (4, 8)]
    times = {"start_s": 1.0, "set_up_s": 9.0, "evaluation_s": [0.1, 2.0], "rank_spread": None}
    measured = {"origin": "here", "timed": timed, **whole, **times}
    (folder / "measured.json").write_text(json.dumps({"kind": KIND, "date": "2026-11-27", "measured": measured}))


def _wrong_measured(found: Measured) -> str:
    return not_finite(asdict(found), "measured")


def _rows(folder: Path) -> None:
    lines = PUBLISHED.read_text(encoding="utf-8").splitlines()
    (folder / "rows.csv").write_text("\n".join(lines[:6]) + "\n")


def _wrong_rows(answer: Any) -> str:
    rows, _ = answer
    for row in rows:
        values = {field.name: getattr(row, field.name) for field in fields(row)}
        if said := not_finite({key: value for key, value in values.items() if isinstance(value, float | tuple)}, "row"):
            return said
    return ""


def _campaign(folder: Path) -> None:
    attempts = [Attempt(f"run_{number}", number, "counts", 0) for number in (1, 2)]
    state = State({"name": "cpu", "seed": 1}, attempts, 3.0)
    (folder / "campaign.json").write_text(json.dumps(asdict(state)))


def _wrong_campaign(state: State) -> str:
    return next((f"a run in {one.folder!r}" for one in state.attempts if not one.folder.startswith("run_")), "")


def _read_annotations(folder: Path) -> Index:
    return parse_annotations(next(folder.glob("annotations/*")))


def _read_checkpoint(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / CHECKPOINT)


def _read_measured(folder: Path) -> Measured:
    return read_measured(folder / "measured.json")


def _read_measured_run(folder: Path) -> Measured:
    return read_measured(folder / "run")


def _read_rows(folder: Path) -> Any:
    return read_rows(folder / "rows.csv")


RUN = ("run/*.json", "run/metrics.jsonl")
RUN_AND_LOG = (*RUN, "run/result_0.txt")

SUBJECTS: tuple[Subject, ...] = (
    Subject("annotations", _coco, ("annotations/*.json",), _read_annotations, _wrong_index),
    Subject("index cache", _cached, ("cache/*",), _from_cache, _wrong_index, writes=("cache",)),
    Subject("image", _coco, ("train2017/000000000100.jpg",), _image),
    Subject("zip", _zip, ("*.zip",), _unpack),
    Subject("toml", _toml, ("*.toml",), _config, _wrong_config),
    Subject("command line and environment", _words, ("*",), _command_line, _wrong_config),
    Subject("vendor's folder", _vendor, ("acme/*.py", "acme/config/*.toml"), _load_vendor, share=0.5),
    Subject("checkpoint", _checkpoint, (CHECKPOINT,), _read_checkpoint, _wrong_checkpoint),
    Subject("backbone", _backbone, ("*.pth",), _load_backbone, reads_good=False),
    Subject("result log", _log, ("run/*",), _read_log, share=0.2),
    Subject("run's folder", _run, RUN_AND_LOG, _read_run, share=0.5),
    Subject("page of a run", _run, RUN, _report, _wrong_page, share=0.3),
    Subject("steps of a run", _run, RUN, lambda folder: read_kept(folder / "run"), share=0.5),
    Subject("package", _package, ("package/**/*",), _check_package, share=0.02),
    Subject("plan --measured FILE", _measured, ("*.json",), _read_measured, _wrong_measured),
    Subject("plan --measured RUN", _run, RUN_AND_LOG, _read_measured_run, _wrong_measured, share=0.3),
    Subject("published rows", _rows, ("*.csv",), _read_rows, _wrong_rows),
    Subject("campaign", _campaign, ("*.json",), load_state, _wrong_campaign),
)
