"""A published result replayed through our own writer, and whole packages made of it: test data, marked as such.

The five runs are NVIDIA's v1.1 results of one DGX A100 (closed division, batch 912): set-up, training time and every
evaluation as published; epochs are spread evenly between evaluations.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest
import yaml
from mlperf_logging.compliance_checker import mlp_compliance
from mlperf_logging.compliance_checker.mlp_parser import ruleset_070, ruleset_100, ruleset_110
from mlperf_logging.rcp_checker import rcp_checker

from ssd.mlperf.events import EventWriter, RunFacts
from ssd.mlperf.keys import TEST_DATA
from ssd.mlperf.limits import BACKBONE_SHA256
from ssd.mlperf.system import FIELDS

# minutes to train, minutes of set-up, mAP after epochs 5, 10, 15, ...
PUBLISHED = (
    (9.055, 0.778, "03684 10487 13392 15367 16329 16730 17064 18009 22206 22954 23282"),
    (8.247, 0.771, "04777 10995 13708 15740 15650 17498 17774 17960 22649 23127"),
    (8.261, 0.780, "04454 10776 13562 15414 15662 16899 17889 17592 22411 23220"),
    (8.205, 0.778, "04208 10548 13623 15434 16421 17034 17485 18433 22538 23105"),
    (8.267, 0.777, "04539 10815 14030 15066 17016 17008 16882 18842 22537 23089"),
)
PUBLISHED_SCORE = (8.247 + 8.261 + 8.267) / 3

FACTS = RunFacts(
    submitter="NVIDIA",
    system="1xNVIDIA DGX A100",
    division="closed",
    seed=0,
    global_batch=912,
    batch_norm_span=114,
    gradient_accumulation_steps=1,
    base_learning_rate=0.0899745,
    weight_decay=1.3e-4,
    momentum=0.9,
    warmup_steps=642,
    warmup_factor=0,
    decay_epochs=(44, 55),
    decay_factor=0.1,
    train_samples=117_266,
    eval_samples=5_000,
    target_map=0.23,
    backbone_sha256=BACKBONE_SHA256,
    precision="fp16",
)


def our_parameters() -> list[str]:
    """Our model's parameter names: torchvision's for the trunk, five extra blocks, six heads of each kind."""
    names = ["trunk.conv1.weight", "trunk.bn1.weight", "trunk.bn1.bias"]
    for layer, blocks in ((1, 3), (2, 4), (3, 6)):
        for block in range(blocks):
            at = f"trunk.layer{layer}.{block}."
            for index in (1, 2):
                names += [f"{at}conv{index}.weight", f"{at}bn{index}.weight", f"{at}bn{index}.bias"]
            if layer > 1 and block == 0:
                names += [f"{at}downsample.0.weight", f"{at}downsample.1.weight", f"{at}downsample.1.bias"]
    names += [f"extras.{block}.{conv}.{kind}" for block in range(5) for conv in (0, 2) for kind in ("weight", "bias")]
    for heads in ("location_heads", "class_heads"):
        names += [f"{heads}.{level}.{kind}" for level in range(6) for kind in ("weight", "bias")]
    return names


@pytest.fixture(scope="session")
def parameters() -> list[str]:
    return our_parameters()


@pytest.fixture(scope="session")
def facts() -> RunFacts:
    return FACTS


def replay_run(path: Path, run: int, facts: RunFacts = FACTS, later_ms: int = 0, slower: float = 1.0) -> None:
    """Write one published run's log with our writer, in the order train.py calls it.

    later_ms shifts its clock. slower stretches it: a run replayed a second time is another run.
    """
    minutes, setup, maps = PUBLISHED[run]
    minutes *= slower
    now = [1_633_962_660_000.0 + run * 1_000_000 + later_ms]
    accuracies = [float(f"0.{digits}") for digits in maps.split()]
    epoch_ms = minutes * 60_000 / (5 * len(accuracies))
    with EventWriter(path, clock=lambda: round(now[0])) as events:
        events.event(TEST_DATA, True)
        events.submission_info(facts)
        events.cache_clear(done=True)
        events.init_start()
        events.hyperparameters(replace(facts, seed=773_493_582 + run))
        if facts.division == "closed":
            events.weights_initialization(our_parameters())
        now[0] += setup * 60_000
        events.init_stop()
        events.run_start()
        started = now[0]
        for block, accuracy in enumerate(accuracies):
            first = 5 * block + 1
            events.block_start(first, 5)
            for epoch in range(first, first + 5):
                events.epoch_start(epoch)
                now[0] = started + epoch * epoch_ms
                events.epoch_stop(epoch)
            events.block_stop(first)
            events.eval_start(first + 4)
            events.eval_accuracy(first + 4, accuracy)
            events.eval_stop(first + 4)
        events.run_stop("success")


@pytest.fixture(scope="session")
def replay() -> Callable[..., None]:
    """Write one published run's log."""
    return replay_run


class Package:
    """A package in a folder of its own, and ways to break it."""

    def __init__(self, folder: Path, system: str, facts: RunFacts) -> None:
        self.folder, self.system, self.facts = folder, system, facts
        self.results = folder / "results" / system / "ssd"
        self.description = folder / "systems" / f"{system}.json"

    def result(self, index: int) -> Path:
        return self.results / f"result_{index}.txt"

    def edit(self, index: int, change: Callable[[list[str]], list[str]]) -> None:
        """Rewrite a log, given and giving its lines."""
        path = self.result(index)
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    def records(self, index: int, change: Callable[[dict], object]) -> None:
        """Change records in place; one for which `change` gives False is dropped."""

        def edit(lines: list[str]) -> Iterator[str]:
            for line in lines:
                record = json.loads(line.removeprefix(":::MLLOG "))
                if change(record) is not False:
                    yield f":::MLLOG {json.dumps(record)}"

        self.edit(index, lambda lines: list(edit(lines)))

    def set(self, index: int | None, key: str, value: object) -> None:
        """Set a key's value in one log, or in all."""

        def change(record: dict) -> None:
            if record["key"] == key:
                record["value"] = value

        for which in range(5) if index is None else [index]:
            self.records(which, change)

    def drop(self, index: int, key: str) -> None:
        self.records(index, lambda record: record["key"] != key)

    def describe(self, **fields: object) -> None:
        """Set fields of the system description; None takes one out."""
        content = json.loads(self.description.read_text()) | fields
        kept = {field: value for field, value in content.items() if value is not None}
        self.description.write_text(json.dumps(kept))


def write_package(folder: Path, facts: RunFacts = FACTS, system: str = "dgxa100") -> Package:
    package = Package(folder, system, facts)
    package.results.mkdir(parents=True)
    for run in range(5):
        replay_run(package.result(run), run, facts)
    description = dict.fromkeys(FIELDS, "said by its owner")
    description |= dict.fromkeys(("number_of_nodes", "host_processors_per_node", "host_processor_core_count"), "2")
    description |= {"accelerators_per_node": "8", "submitter": facts.submitter, "system_name": facts.system}
    description |= {"division": facts.division, "status": "onprem", "sw_notes": ""}
    package.description.parent.mkdir()
    package.description.write_text(json.dumps(description))
    code = folder / "benchmarks" / "ssd" / "implementations" / system
    code.mkdir(parents=True)
    (code / "README.md").write_text("how to reproduce\n")
    return package


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[None]:
    """The official tools parse their YAML rules anew for every log, and cut each line of a log by a slow expression.

    Together this is three quarters of a check's time. Here each text is parsed once and each line is cut once.
    """
    read: dict[str, object] = {}

    def load(file: TextIO, Loader: type) -> object:
        text = file.read()
        if text not in read:
            read[text] = yaml.load(text, Loader)
        return read[text]

    patch = pytest.MonkeyPatch()
    patch.setattr(mlp_compliance, "yaml", SimpleNamespace(load=load, BaseLoader=yaml.BaseLoader))
    expressions = SimpleNamespace(**vars(re) | {"sub": functools.cache(re.sub)})
    for module in (ruleset_070, ruleset_100, ruleset_110, rcp_checker):
        patch.setattr(module, "re", expressions)
    yield
    patch.undo()


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Package]:
    """Write a whole package of replayed runs; facts= and system= make another one."""
    return lambda **changes: write_package(tmp_path / "package", **changes)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed and an open package, to be copied."""
    folder = tmp_path_factory.mktemp("packages")
    write_package(folder / "closed")
    write_package(folder / "open", replace(FACTS, division="open"))
    return folder


@pytest.fixture
def closed_package(templates: Path, tmp_path: Path) -> Package:
    shutil.copytree(templates / "closed", tmp_path / "package")
    return Package(tmp_path / "package", "dgxa100", FACTS)


@pytest.fixture
def open_package(templates: Path, tmp_path: Path) -> Package:
    shutil.copytree(templates / "open", tmp_path / "package")
    return Package(tmp_path / "package", "dgxa100", replace(FACTS, division="open"))
