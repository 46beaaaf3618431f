"""The checks before a run: each row, good and bad, on real and drawn images; and the exit code of the first failed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ssd import cli
from ssd.config import Config, resolve
from ssd.data.folder import SPLITS
from ssd.data.index_cache import load_index
from ssd.errors import EXIT_BAD_CONFIG, EXIT_BAD_DATA, EXIT_MACHINE, ConfigError
from ssd.model import build_model
from ssd.model.weights import write_random_backbone
from ssd.plan.how_long import UNKNOWN
from ssd.prepare.drawn import draw_set
from ssd.vendor import Check
from ssd.verbs import check as preflight
from ssd.verbs import perfect
from ssd.verbs.check import rows

DEMO = ("--name", "cpu", "--config", "demo")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn set in COCO's layout; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("data") / "drawn"
    draw_set(folder, train=20, val=12, seed=3)
    return folder


def look(data: Path, *argv: str, tmp_path: Path) -> dict[str, preflight.Row]:
    """Rows by what was checked."""
    folders = ["--data_dir", str(data), "--cache_dir", str(tmp_path / "cache"), "--output", str(tmp_path / "run")]
    return {row.check.what: row for row in rows(resolve([*DEMO, *folders, *argv], {}))}


def test_a_run_that_can_start(drawn: Path, tmp_path: Path) -> None:
    found = look(drawn, tmp_path=tmp_path)
    assert [row.check for row in found.values() if not row.check.ok] == []
    assert "AP 1.0000" in found["metric"].check.found
    assert "20 images, 8 a step, 3 steps an epoch; at most 36 steps and 9 evaluations" in found["the run"].check.found
    assert "learning rate 0.01 " in found["the run"].check.found
    assert found["how long"].check.found == UNKNOWN
    assert found["processes"].check.found.startswith("1 process of ")
    assert not (tmp_path / "run").exists()


def test_how_a_run_is_spread_over_the_cores_of_a_cpu() -> None:
    def found(processes: int, cores: int) -> str:
        return preflight._processes(Config(pretrained=False, nproc_per_node=processes), cores).found

    advice = (
        "; --nproc_per_node 8 with a train_batch_size of 1/4 is as much a step. On two cores that made 1.1 to 1.25 "
    )
    advice += "times the images/s (docs/performance.md); more cores have not been tried"
    assert found(2, 8) == f"2 processes of 4 threads, 8 cores{advice}"
    assert found(4, 4) == "4 processes of 1 thread, 4 cores"
    assert found(4, 2) == "4 processes of 1 thread, 2 cores"
    assert found(1, 1) == "1 process of 1 thread, 1 core"


def test_the_exit_code_and_table_of_a_good_run(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["check", *DEMO, "--data_dir", str(drawn), "--cache_dir", str(tmp_path)]
    assert cli.main(argv) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_the_exit_code_is_that_of_the_first_failed_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["check", *DEMO, "--data_dir", str(tmp_path / "nowhere"), "--cache_dir", str(tmp_path)]
    assert cli.main(argv) == EXIT_BAD_DATA
    assert cli.main([*argv, "--train_batch_size", "65536"]) == EXIT_MACHINE
    assert cli.main([*argv, "--train_batch_size", "65536", "--pretrained", "--width", "1"]) == EXIT_BAD_CONFIG
    assert capsys.readouterr().out.count("FAILED") == 1 + 2 + 3


def test_ground_truth_with_wrong_labels_does_not_score_one(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = perfect._truth_as_rows

    def swapped(index: preflight.Index, part: np.ndarray) -> np.ndarray:
        found = right(index, part)
        found[:, 6] = len(index.category_ids) + 1 - found[:, 6]
        return found

    monkeypatch.setattr(perfect, "_truth_as_rows", swapped)
    row = look(drawn, tmp_path=tmp_path)["metric"]
    assert not row.check.ok
    assert row.exit_code == EXIT_BAD_DATA


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
def test_ground_truth_of_real_images_scores_one(tiny_coco: Path, tmp_path: Path, library: str) -> None:
    folders = ["--data_dir", str(tiny_coco), "--cache_dir", str(tmp_path)]
    found = rows(resolve(["--config", "tiny", *folders, "--coco_metric", library], {}))
    by_name = {row.check.what: row.check for row in found}
    assert "AP 1.0000" in by_name["metric"].found
    assert "49 of 50 training images have a box; 48 of 50 validation" in by_name["data"].found


def test_a_missing_image_is_named(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(drawn, folder)
    gone = min((folder / "val2017").iterdir())
    gone.unlink()
    row = look(folder, tmp_path=tmp_path)["data"]
    assert not row.check.ok
    assert row.exit_code == EXIT_BAD_DATA
    assert gone.name in row.check.found


def test_other_categories_than_num_classes(drawn: Path, tmp_path: Path) -> None:
    row = look(drawn, "--num_classes", "81", tmp_path=tmp_path)["data"]
    assert not row.check.ok
    assert row.exit_code == EXIT_BAD_CONFIG
    assert "num_classes" in row.check.found


def test_categories_that_differ(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(drawn, folder)
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "another"
    path.write_text(json.dumps(content))
    assert look(folder, tmp_path=tmp_path)["data"].exit_code == EXIT_BAD_DATA


def test_a_backbone_and_the_division(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "resnet34.pth"
    write_random_backbone(path)
    flags = ["--width", "1", "--pretrained", "--backbone_path", str(path)]
    check = look(drawn, *flags, tmp_path=tmp_path)["backbone"].check
    assert check.ok
    assert "not the benchmark's reference" in check.found
    closed = Config(division="closed", submitter="a", system="b", backbone_path=path)
    assert not preflight._backbone(closed).ok
    path.write_bytes(b"cut short")
    assert look(drawn, *flags, tmp_path=tmp_path)["backbone"].exit_code == EXIT_BAD_DATA


def test_an_override_the_vendor_has_not(drawn: Path, tmp_path: Path) -> None:
    row = look(drawn, "--loss_op", "fast", tmp_path=tmp_path)["kernels"]
    assert not row.check.ok
    assert row.exit_code == EXIT_BAD_CONFIG


def test_another_device_without_sizes(tmp_path: Path) -> None:
    argv = ["--name", "nvidia", "--config", "smoke", "--device", "cpu"]
    found = {row.check.what: row for row in rows(resolve(argv, {}))}
    assert found["sizes on another device"].exit_code == EXIT_BAD_CONFIG


def test_too_little_disk(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LOG_BYTES", 2**60)
    check = preflight._disk(Config(output=tmp_path / "not" / "yet"))
    assert not check.ok
    assert check.what == f"disk of {tmp_path}"


def test_the_disk_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of 1 GiB: three are 3 GiB, and logs and pictures a little more."""
    monkeypatch.setattr(preflight, "_checkpoint_bytes", lambda config: 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(7.5 * 2**30)))
    check = preflight._disk(Config(output=tmp_path / "not" / "there"))
    assert check.what == f"disk of {tmp_path}"
    asked = (3 * 2**30 + preflight.LOG_BYTES) / 2**30
    assert check.found == (
        f"7.5 GiB free, {asked:.1f} GiB asked for: 3 checkpoints of 1024 MiB while one is written, logs, pictures"
    )


def test_the_disk_holds_every_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that are kept and one that is being written; one more where the best is kept. Each as large as a real one."""
    keys = {"width": 0.25, "num_classes": 4, "pretrained": False, "output": tmp_path}
    model, _ = build_model(seed=0, num_classes=4, width=0.25)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "a.pt")
    one = preflight._checkpoint_bytes(Config(**keys))
    assert one == pytest.approx((tmp_path / "a.pt").stat().st_size, rel=0.1)
    for keep_best, kept in ((False, 3), (True, 4)):
        for free, ok in ((kept * one + preflight.LOG_BYTES, True), (kept * one + preflight.LOG_BYTES - 1, False)):
            monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
            assert preflight._disk(Config(**keys, keep_best=keep_best)).ok is ok


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("numpy>=1.0  # arrays\n\n# a comment\n", True),
        ("numpy>=999", False),
        ("a-library-nobody-has>=1", False),
        ('a-library-nobody-has>=1; python_version < "3"', True),
    ],
)
def test_library_versions(tmp_path: Path, text: str, ok: bool) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    assert preflight._libraries(path).ok is ok


def test_every_library_that_is_asked_for_here_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text('# what runs need\n\ntorch>=2  # any\nnumpy>=1\nno-such-library>=1; python_version < "3"\n')
    assert preflight._libraries(path).found.startswith("2 libraries in range, torch ")


@pytest.mark.parametrize("version", ["2.4.1+corex.4.3.0", "2.4.1a0", "2.5.0.dev1"])
def test_a_vendors_build_is_in_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("torch>=2.4")
    monkeypatch.setattr(preflight.importlib.metadata, "version", lambda name: version)
    assert preflight._libraries(path).ok


def test_max_steps_bounds_the_run() -> None:
    config = Config(train_batch_size=10, max_steps=45, eval_epochs=(2, 4, 6))
    assert "at most 45 steps and 2 evaluations" in preflight._amount(config, 100).found


def test_without_data_the_amount_is_unknown_and_coco_s_is_named() -> None:
    config = Config(epochs=1, train_batch_size=32, warmup=1, eval_interval=1)
    assert preflight._amount(config, None).found == (
        "unknown without data_dir; on COCO 2017 it is 117,266 images, 32 a step, 3,665 steps an epoch; at most 3,665 "
        "steps and 1 evaluation; learning rate 0.0025 after 1 step"
    )


def changed(drawn: Path, folder: Path, change: Callable[[dict], None], split: str = "val2017") -> Path:
    """A copy of the drawn set whose annotation file is changed."""
    shutil.copytree(drawn, folder)
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def test_images_of_both_splits_are_said(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(drawn, folder)
    train, val = (json.loads((folder / f"annotations/instances_{split}.json").read_text()) for split in SPLITS)
    assert "too" not in look(folder, tmp_path=tmp_path)["data"].check.found
    one, other = train["images"][0], val["images"][0]
    other.update(width=one["width"], height=one["height"])
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(val))
    shutil.copyfile(folder / "train2017" / one["file_name"], folder / "val2017" / other["file_name"])
    row = look(folder, tmp_path=tmp_path)["data"].check
    assert row.ok
    assert f"val2017 shares 1 image with train2017, {other['file_name']} ({one['file_name']} there)" in row.found


def test_boxes_outside_are_said_and_no_library_is_blamed(drawn: Path, tmp_path: Path) -> None:
    def move(content: dict) -> None:
        for annotation in content["annotations"]:
            annotation["bbox"][0] = -annotation["bbox"][2] / 2

    folder = changed(drawn, tmp_path / "copy", move)
    found = look(folder, tmp_path=tmp_path)
    boxes = len(json.loads((folder / "annotations" / "instances_val2017.json").read_text())["annotations"])
    assert found["data"].check.ok
    assert found["metric"].check.ok
    assert f"{boxes} of {boxes} boxes reach out of their images" in found["data"].check.found
    assert "scores AP 1.0000, where it is clipped" in found["metric"].check.found
    assert "no run can score more than AP 0." in found["metric"].check.found


def test_crowds_alone_cannot_be_scored_and_the_rest_is_looked_at(drawn: Path, tmp_path: Path) -> None:
    def crowd(content: dict) -> None:
        for annotation in content["annotations"]:
            annotation["iscrowd"] = True

    found = look(changed(drawn, tmp_path / "copy", crowd), tmp_path=tmp_path)
    assert found["metric"].exit_code == EXIT_BAD_DATA
    assert "nothing can be scored" in found["metric"].check.found
    assert found["data"].check.ok
    assert "the run" in found


def test_a_bad_image_hides_no_other_row(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(drawn, folder)
    image = min((folder / "val2017").iterdir())
    Image.open(image).save(image, format="PNG")
    found = look(folder, tmp_path=tmp_path)
    assert found["data"].exit_code == EXIT_BAD_DATA
    assert f"{image.name} (a PNG file, not JPEG: convert it)" in found["data"].check.found
    assert "corrupt_images" not in found["data"].check.found
    assert "AP 1.0000" in found["metric"].check.found
    assert "20 images" in found["the run"].check.found


def test_training_needs_a_box_and_evaluation_does_not(drawn: Path, tmp_path: Path) -> None:
    """The row of the metric says what an evaluation without a box lacks."""
    for split, ok in (("train2017", False), ("val2017", True)):
        folder = changed(drawn, tmp_path / split, lambda content: content.update(annotations=[]), split)
        row = look(folder, tmp_path=tmp_path)["data"]
        said = f"{folder / 'annotations' / f'instances_{split}.json'}: no image has a box with a size"
        assert (row.check.ok, said in row.check.found) == (ok, not ok)


def test_every_problem_of_both_splits_is_named(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(drawn, folder)
    gone = [min((folder / split).iterdir()) for split in SPLITS]
    for path in gone:
        path.unlink()
    found = look(folder, "--num_classes", "81", tmp_path=tmp_path)["data"]
    assert [word for word in ("num_classes", *(path.name for path in gone)) if word not in found.check.found] == []
    assert found.check.found.count("restore or mend these files") == 2
    assert found.exit_code == EXIT_BAD_CONFIG, "that of the first one"


def test_the_rows_for_people_and_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = preflight.Row(Check("one", True, "[found]", "not said"), 7)
    bad = [preflight.Row(Check("two", False, "a\x1bb", "do this"), 3), preflight.Row(Check("three", False, "c"), 2)]
    monkeypatch.setattr(preflight, "rows", lambda resolved: iter([good, *bad]))
    resolved = resolve([*DEMO], {})
    assert preflight.preflight(resolved) == 3
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["checked", "found", "what", "to", "do"],
        ["ok", "one", "[found]"],
        ["FAILED", "two", "a\\x1bb", "do", "this"],
        ["FAILED", "three", "c"],
    ]
    assert preflight.preflight(resolved, as_json=True) == 3
    assert json.loads(capsys.readouterr().out) == [
        {"what": "one", "ok": True, "found": "[found]", "remedy": "not said", "exit_code": 0},
        {"what": "two", "ok": False, "found": "a\x1bb", "remedy": "do this", "exit_code": 3},
        {"what": "three", "ok": False, "found": "c", "remedy": "", "exit_code": 2},
    ]
    monkeypatch.setattr(preflight, "rows", lambda resolved: iter([good]))
    assert preflight.preflight(resolved) == 0


def test_what_a_look_raises_is_a_failed_row() -> None:
    def look(error: Exception) -> list[Check]:
        raise error

    def row_of(error: Exception) -> preflight.Row:
        (row,) = preflight._guarded("this", lambda: look(error), 9)
        return row

    assert row_of(ConfigError("a key")) == preflight.Row(Check("this", False, "a key"), EXIT_BAD_CONFIG)
    with pytest.raises(ValueError, match="odd"):
        row_of(ValueError("odd"))
    good = [Check("a", True, "b"), Check("c", False, "d")]
    assert list(preflight._guarded("this", lambda: good)) == [preflight.Row(one, EXIT_BAD_DATA) for one in good]


def test_a_yolo_folder_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "yolo" / "labels" / "train").mkdir(parents=True)
    found = look(tmp_path / "yolo", tmp_path=tmp_path)
    assert "YOLO's layout" in found["data"].check.found


CLOSED = {"division": "closed", "submitter": "a", "system": "b", "warmup": 300, "lr_decay_epochs": (44, 55)}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr_decay_epochs": (34, 45)}, "lr_decay_epochs = "),
        ({"lr_decay_factor": 0.2}, "lr_decay_factor = 0.2"),
        ({"warmup": 0}, "warmup = 0"),
        ({"train_batch_size": 8192}, "global batch = 8192"),
        ({"seed": 3}, "seed = 3: every run of a result draws a seed of its own"),
        ({}, "training images = 20"),
    ],
)
def test_the_closed_division_is_held_to_the_rules_of_a_campaign(
    drawn: Path, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    train, val = (load_index(drawn / f"annotations/instances_{split}.json", tmp_path) for split in SPLITS)
    check = preflight._closed(Config(**{**CLOSED, **changed}), train, val)
    assert not check.ok
    assert said in check.found
