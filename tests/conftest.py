"""What all tests share: golden numbers, the tiny COCO, a drawn COCO folder, cores, their order, and expected skips."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


# One thread a test process, set before anything imports torch: the suite runs in parallel, and sums repeat to the bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests start many processes. Without the bytecode that the first one keeps, each compiles this package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Under nohup, or in the background of a script, signals come in ignored and children inherit that: tests send them.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HELD = tuple(signal.Signals[f"SIG{name}"] for name in ("HUP", "INT", "TERM", "USR1", "USR2", "XCPU"))


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """No test may leave a handler: a later test in this process, which sends itself that signal, would end oddly."""
    before = [signal.getsignal(number) for number in HELD]
    yield
    assert [signal.getsignal(number) for number in HELD] == before


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Each file is run by one process: what its tests share, such as a minute of interpreted kernels, is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


LONGEST = (
    *("vendor/triton/test_kernels", "end_to_end/test_accelerator", "vendors/test_conformance", "vendor/csrc/test_host"),
    *("end_to_end/test_real_images", "vendor/triton/test_matrix", "bench/test_table", "end_to_end/test_two_hosts"),
)
"""Files of about a minute or more: none may run alone at the end, while the other process has nothing left to do."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick tests of a file come first. Where processes share the files, the longest and then the slow come first."""
    places = {path: place for place, path in enumerate(dict.fromkeys(item.path for item in items))}
    slow = {item.path for item in items if item.get_closest_marker("slow") and hasattr(config, "workerinput")}
    longest = {ROOT / "tests" / f"{name}.py": place for place, name in enumerate(LONGEST)} if slow else {}

    def place(item: pytest.Item) -> tuple[int, bool, int, bool]:
        last = longest.get(item.path, len(LONGEST))
        return last, item.path not in slow, places[item.path], item.get_closest_marker("slow") is not None

    items.sort(key=place)


EXPECTED_SKIPS = Path(__file__).with_name("expected_skips.txt")


def expected_skips() -> Iterator[tuple[str, str, str]]:
    """The rows of expected_skips.txt: patterns of a test's id and of its reason, and why it is expected."""
    for line in EXPECTED_SKIPS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            test, words, why = (part.strip() for part in line.split(" | "))
            yield test, words, why


def refuse_unexpected_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI=true, make a failure of a skip that expected_skips.txt does not list."""
    if not report.skipped or hasattr(report, "wasxfail") or os.environ.get("CI", "").lower() not in ("true", "1"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(re.match(test, report.nodeid) and re.search(words, reason) for test, words, _ in expected_skips()):
        report.outcome = "failed"
        report.longrepr = f"CI expects no such skip: {reason} (tests/{EXPECTED_SKIPS.name} lists the expected ones)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Skips of a test: by a mark, a fixture or the test itself."""
    report = yield
    refuse_unexpected_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Skips of a whole file."""
    report = yield
    refuse_unexpected_skip(report)
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A command in place of `python` whose processes need not import torch: tests/warm_python.py."""
    spec = importlib.util.spec_from_file_location("warm_python", ROOT / "tests" / "warm_python.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.command(tmp_path_factory.mktemp("warm")) as path:
        yield path


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed with the original implementation; tests/golden/README.md says how to read them."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def tiny_coco() -> Path:
    """100 real COCO images in COCO's layout; SSD_TINY_COCO names their folder. Read-only: no test may write here.

    They are not part of the repository, as each has a licence of its own. Without them the test is skipped.
    """
    folder = Path(os.environ.get("SSD_TINY_COCO", ROOT.parent / "shared" / "coco2017-tiny"))
    if not folder.is_dir():
        pytest.skip(f"the 100 real COCO images are absent: no {folder} (SSD_TINY_COCO names another place)")
    return folder


KINDS_OF_JSON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}


def check_schema(schema: dict, value: object) -> None:
    """The words of JSON Schema that the schemas of docs/ use: AssertionError where a value is not as they say."""
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    kind_of_value = (bool,) if isinstance(value, bool) else tuple(type(value).__mro__)
    assert not kinds or any(set(KINDS_OF_JSON[kind]) & set(kind_of_value) for kind in kinds), (schema, value)
    assert value in schema.get("enum", [value]), (schema, value)
    assert value == schema.get("const", value), (schema, value)
    assert not isinstance(value, str) or re.search(schema.get("pattern", ""), value), (schema, value)
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value), (schema, value)
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, one in value.items():
            assert name in known or others is not False, f"{name} is not in the schema"
            check_schema(known.get(name, others), one)
    for item in value if isinstance(value, list) else []:
        check_schema(schema.get("items", {}), item)


@pytest.fixture(scope="session")
def held_to() -> Callable[[dict, object], None]:
    """Hold a value to a schema."""
    return check_schema


KINDS = ("rgb", "grey", "cmyk", "portrait", "square")


def picture(rng, width, height, mode="RGB"):
    """A smooth random image: JPEG keeps it well, so that pixels can be compared."""
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    coarse = rng.integers(0, 256, (6, 6, channels), dtype=np.uint8)
    grids = [Image.fromarray(coarse[..., c]) for c in range(channels)]
    planes = [grid.resize((width, height), Image.Resampling.BICUBIC) for grid in grids]
    return planes[0] if channels == 1 else Image.merge(mode, planes)


def write_coco(folder: Path, count=13, split="train2017", seed=0) -> Path:
    """`count` images of all kinds with 1 to 3 boxes each, ids from 100. Returns the annotation file."""
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        width, height = {"portrait": (90, 160), "square": (120, 120)}.get(kind, (160, 90 + number))
        name = f"{100 + number:012d}.jpg"
        mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        picture(rng, width, height, mode).save(folder / split / name, quality=95)
        images.append({"id": 100 + number, "file_name": name, "width": width, "height": height})
        for _ in range(1 + number % 3):
            x, y = rng.uniform(0, 0.5, 2) * (width, height)
            w, h = rng.uniform(0.2, 0.5, 2) * (width, height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + number,
                    "category_id": int(rng.choice([1, 7, 90])),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    path = folder / f"annotations/instances_{split}.json"
    categories = [{"id": key, "name": f"thing {key}"} for key in (1, 7, 90)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def coco(tmp_path):
    """A COCO folder of 13 training and 11 validation images; the test may damage it."""
    folder = tmp_path / "coco"
    write_coco(folder)
    write_coco(folder, 11, "val2017", seed=1)
    return folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose home folder nobody knows: no HOME, and no entry of the user database, as in many containers."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
