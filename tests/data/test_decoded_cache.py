"""Decoded images: the same bits as from the JPEG files, decoded once, and never believed where they could be wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssd.cli import main
from ssd.config import Config, resolve
from ssd.data import decoded_cache
from ssd.data.annotations import parse_annotations
from ssd.data.decoded_cache import ENTRY, PAGE, DecodedCache, file_system, planned
from ssd.data.loader import Reading, ThreadLoader, train_rows
from ssd.data.sampler import Sampler
from ssd.errors import ConfigError, DataError, MachineError
from ssd.prepare.decoded_images import decode_images


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of the tests are not too new to be kept."""
    monkeypatch.setattr(decoded_cache, "FRESH_NS", -(10**18))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that the cache decodes, in order."""
    names: list[str] = []
    decode = decoded_cache.decode

    def noted(path, image_id, size):
        names.append(path.name)
        return decode(path, image_id, size)

    monkeypatch.setattr(decoded_cache, "decode", noted)
    return names


def loader(coco: Path, folder: Path | None, **reading) -> ThreadLoader:
    index = parse_annotations(coco / "annotations/instances_train2017.json")
    sampler = Sampler(len(train_rows(index)), 4, seed=9)
    return ThreadLoader(index, sampler, Reading(coco / "train2017", 2, decoded_cache=folder, **reading))


def batches(one: ThreadLoader, epochs=(1, 2)) -> list:
    return [batch for epoch in epochs for batch in one.epoch(epoch)]


def assert_same(these: list, those: list) -> None:
    assert len(these) == len(those) > 0
    for a, b in zip(these, those, strict=True):
        assert a.rows == b.rows
        for name in ("images", "boxes", "labels", "flip", "factors", "order"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_every_sample_is_the_jpeg_s_to_the_bit_and_is_decoded_once(
    coco: Path, tmp_path: Path, decoded: list[str]
) -> None:
    """Grey, CMYK and colour; in the epochs that fill it, and by a second process's map of the same file."""
    plain = batches(loader(coco, None))
    first = loader(coco, tmp_path / "new" / "cache")
    assert_same(batches(first), plain)
    # An epoch's last batch repeats three images: two threads may decode one at the same time.
    assert set(decoded) == set(os.listdir(coco / "train2017"))
    assert len(decoded) <= 16
    decoded.clear()
    second = loader(coco, tmp_path / "new" / "cache")
    assert_same(batches(second), plain)
    assert decoded == []
    assert "13 images: 13 are in it" in second.cache.words
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "cache").iterdir()] == [0o644]


def test_real_images_are_the_same_to_the_bit(tiny_coco: Path, tmp_path: Path) -> None:
    plain = batches(loader(tiny_coco, None), epochs=(1,))
    for _ in range(2):
        assert_same(batches(loader(tiny_coco, tmp_path / "cache"), epochs=(1,)), plain)


def test_an_edited_image_is_noticed_in_the_same_process(coco: Path, tmp_path: Path, decoded: list[str]) -> None:
    """Also one of the same length and time of modification: nobody can set the time of change."""
    one = loader(coco, tmp_path / "cache")
    batches(one, epochs=(1,))
    path = sorted((coco / "train2017").iterdir())[0]
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-200] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    decoded.clear()
    assert_same(batches(one), batches(loader(coco, None)))
    assert set(decoded) == {path.name}
    with Image.open(path) as image:
        image.resize((31, 17)).save(path)
    with pytest.raises(DataError, match="has 31x17 pixels"):
        batches(one)


def test_a_damaged_image_and_a_torn_entry_are_decoded_again(coco: Path, tmp_path: Path, decoded: list[str]) -> None:
    plain = batches(loader(coco, None))
    batches(loader(coco, tmp_path))
    (file,) = tmp_path.glob("*.pixels")
    for place, length in ((file.stat().st_size - 5000, 1), (PAGE + 3 * ENTRY.itemsize, ENTRY.itemsize // 2)):
        decoded.clear()
        with file.open("r+b") as changed:
            changed.seek(place)
            content = changed.read(length)
            changed.seek(place)
            changed.write(bytes(value ^ 0xFF for value in content))
        again = loader(coco, tmp_path)
        assert_same(batches(again), plain)
        assert 1 <= len(decoded) <= 4
        assert len(set(decoded)) == 1
        decoded.clear()
        assert_same(batches(loader(coco, tmp_path)), plain)
        assert decoded == [], "it was written again"


def test_an_entry_that_changes_while_it_is_read_is_not_believed(
    coco: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = parse_annotations(coco / "annotations/instances_train2017.json")
    cache = DecodedCache(tmp_path, index, train_rows(index), coco / "train2017")
    path, out = coco / "train2017" / index.file_names[0], torch.empty(300, 300, 3, dtype=torch.uint8)
    cache.load(0, path, 100, out, None)
    expected = out.clone()
    decoded.clear()
    entry, reads = cache._entry, []

    def torn(number: int) -> bytes:
        reads.append(number)
        return entry(number) if len(reads) < 3 else bytes(ENTRY.itemsize)

    monkeypatch.setattr(cache, "_entry", torn)
    cache.load(0, path, 100, out.zero_(), None)
    assert len(decoded) == 1
    assert torch.equal(out, expected)


def test_a_file_that_has_just_changed_is_not_kept(
    coco: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_cache, "FRESH_NS", 2 * 10**9)
    changed = max(path.stat().st_ctime_ns for path in (coco / "train2017").iterdir())
    for later, kept in ((1, 0), (3, 13)):
        monkeypatch.setattr(decoded_cache.time, "time_ns", lambda later=later: changed + later * 10**9)
        one = loader(coco, tmp_path / str(later))
        batches(one, epochs=(1,))
        assert f"13 images: {kept} are in it" in one.cache.words


def test_what_others_could_have_written_is_refused(coco: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    loader(coco, folder)
    (file,) = folder.iterdir()
    file.chmod(0o666)
    with pytest.raises(MachineError, match=r"decoded_cache is not used: .*others may write to it \(mode 666\)"):
        loader(coco, folder)
    file.chmod(0o644)
    folder.chmod(0o777)
    with pytest.raises(MachineError, match="others may write to it"):
        loader(coco, folder)


def test_a_file_of_another_length_or_head_is_named(coco: Path, tmp_path: Path) -> None:
    loader(coco, tmp_path)
    (file,) = tmp_path.glob("*.pixels")
    content = file.read_bytes()
    for wrong in (content[:-1], b"x" + content[1:]):
        file.write_bytes(wrong)
        with pytest.raises(MachineError, match=f"{file.name} is damaged or was not made whole: remove it"):
            loader(coco, tmp_path)


def test_the_room_is_asked_for_before_anything_is_made(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = parse_annotations(coco / "annotations/instances_train2017.json")
    about = (tmp_path / "cache", index, train_rows(index), coco / "train2017")
    assert "0.00 GB in all, 0.00 GB are there" in planned(*about)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(MachineError, match="free some, or name a folder of another disk"):
        planned(*about)
    with pytest.raises(MachineError, match="free some"):
        loader(coco, tmp_path / "cache")


def test_a_disk_that_refuses_a_write_ends_the_run(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = loader(coco, tmp_path)

    def full(*about: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MachineError, match=r"cannot be written \(No space left on device\)"):
        batches(one)


def test_two_folders_of_images_have_two_files(coco: Path, tmp_path: Path) -> None:
    shutil.copytree(coco, tmp_path / "copy")
    loader(coco, tmp_path / "cache")
    loader(tmp_path / "copy", tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_prepare_decodes_all_that_is_missing_and_names_what_cannot_be(
    coco: Path, tmp_path: Path, decoded: list[str]
) -> None:
    seen: list[tuple[str, int, int]] = []

    def prepared() -> list[str]:
        return decode_images(tmp_path / "d", coco, tmp_path / "index", 2, lambda *about: seen.append(about))

    assert "13 images: 13 are in it" in prepared()[0]
    assert sorted(decoded) == sorted(os.listdir(coco / "train2017"))
    assert seen[-1] == ("decoded images", 13, 13)
    decoded.clear()
    assert prepared()
    assert decoded == []
    path = sorted((coco / "train2017").iterdir())[4]
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=f"1 of 13 training images cannot be decoded, the first: .*{path.name}"):
        prepared()


def test_which_file_system_holds_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(decoded_cache, "MOUNTS", mounts)
    line = "36 35 {}:{} / /data rw,noatime master:1 - {} /dev/root rw\n"
    mounts.write_text(line.format(0, 1, "proc") + line.format(os.major(device), os.minor(device), "tmpfs"))
    assert file_system(tmp_path / "not" / "made yet") == "tmpfs"
    mounts.write_text("")
    assert file_system(tmp_path) == "unknown"


def test_a_run_uses_it_says_so_and_check_says_its_size(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Two runs with one seed, without and with it, have the same losses."""
    keys = ["--config", "smoke", "--width", "0.0625", "--data_backend", "threads", "--data_dir", str(coco)]
    keys += ["--seed", "3", "--max_steps", "2", "--train_batch_size", "2", "--cache_dir", str(tmp_path / "index")]
    cached = ["--decoded_cache", str(tmp_path / "d")]
    caplog.set_level("INFO")
    losses = []
    for name, more in (("plain", []), ("cached", cached)):
        assert main(["train", *keys, *more, "--output", str(tmp_path / name)]) == 5
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        losses.append([one["loss"] for one in lines if one["kind"] == "train"])
    assert losses[0] == losses[1]
    log = (tmp_path / "cached" / "result_0.txt").read_text()
    assert f'"key": "ssd_decoded_cache", "value": "{file_system(tmp_path)}"' in log
    assert "ssd_decoded_cache" not in (tmp_path / "plain" / "result_0.txt").read_text()
    assert "GB for 13 images: 0 are in it" in caplog.text
    capsys.readouterr()
    main(["check", *keys, *cached, "--json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert "0.00 GB in all" in rows["decoded images"]["found"]


def index_and_images(coco: Path) -> tuple:
    index = parse_annotations(coco / "annotations/instances_train2017.json")
    return index, train_rows(index), coco / "train2017"


def test_a_file_that_cannot_be_written_is_read_and_no_more_are_added(
    coco: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, rows, images = index_and_images(coco)
    paths = [images / index.file_names[row] for row in rows[:2].tolist()]
    writer = DecodedCache(tmp_path, index, rows, images)
    writer.fill(0, paths[0], 100)
    real = os.open

    def refused(path: object, how: int, mode: int = 0o777) -> int:
        if how & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, how, mode)

    monkeypatch.setattr(decoded_cache.os, "open", refused)
    reader = DecodedCache(tmp_path, index, rows, images)
    added = "; it cannot be written, so no more are added"
    assert reader.words == f"decoded_cache: {reader.path}, 0.00 GB for 13 images: 1 are in it{added}"
    assert added not in writer.words
    decoded.clear()
    reader.fill(0, paths[0], 100)
    assert decoded == []
    for _ in range(2):
        reader.fill(1, paths[1], 101)
    assert decoded == [paths[1].name] * 2
    monkeypatch.setattr(decoded_cache.os, "open", lambda *about: real("/nowhere/at/all", os.O_RDONLY))
    with pytest.raises(MachineError, match=r"pixels: No such file or directory$"):
        DecodedCache(tmp_path, index, rows, images)


def test_how_much_room_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that the file has are not asked for again. The nearest folder that is there tells what is free."""
    asked: list[Path] = []

    def usage(folder: Path) -> object:
        asked.append(folder)
        return shutil._ntuple_diskusage(10**10, 0, 3 * 10**9)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    path = tmp_path / "not" / "yet" / "a.pixels"
    words = "3.00 GB in all, 0.00 GB are there, 3.00 GB are free"
    assert decoded_cache.require_room(path, 3 * 10**9) == words
    assert asked == [tmp_path]
    with pytest.raises(
        MachineError, match=r"a\.pixels: 3\.00 GB in all, .*: free some, or name a folder of another disk"
    ):
        decoded_cache.require_room(path, 3 * 10**9 + 1)
    held = tmp_path / "b.pixels"
    held.write_bytes(b"x" * 100_000)
    blocks = held.stat().st_blocks * 512
    assert decoded_cache.require_room(held, 3 * 10**9 + blocks).startswith("3.00 GB in all, 0.00 GB are there")
    with pytest.raises(MachineError, match="free some"):
        decoded_cache.require_room(held, 3 * 10**9 + blocks + 1)


def test_a_file_as_old_as_the_bound_is_still_too_fresh(coco: Path, tmp_path: Path, monkeypatch) -> None:
    index, rows, images = index_and_images(coco)
    path = images / index.file_names[rows[0]]
    newest = max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    monkeypatch.setattr(decoded_cache, "FRESH_NS", 5)
    cache = DecodedCache(tmp_path, index, rows, images)
    for later, kept in ((5, 0), (6, 1)):
        monkeypatch.setattr(decoded_cache.time, "time_ns", lambda later=later: newest + later)
        cache.fill(0, path, 100)
        assert f"13 images: {kept} are in it" in cache.words


def test_other_backends_refuse_it() -> None:
    with pytest.raises(ConfigError, match="data_backend = resident keeps no decoded images on the disk"):
        resolve(["--no-pretrained", "--data_backend", "resident", "--decoded_cache", "/d"], {})
    assert Config(pretrained=False, data_backend="synthetic", decoded_cache=Path("/d")).decoded_cache == Path("/d")
