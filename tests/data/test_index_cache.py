"""The stamp of an annotation file: an unchanged file is not hashed again, and a changed one always is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ssd.data import index_cache
from ssd.data.index import Index
from ssd.data.index_cache import _array_fields, load_index

Load = Callable[[], Index]


def content(category: int = 1) -> str:
    image = {"id": 7, "file_name": "seven.jpg", "width": 200, "height": 100}
    box = {"id": 1, "image_id": 7, "category_id": category, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 0}
    kinds = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    return json.dumps({"images": [image], "annotations": [box], "categories": kinds, "more": "x" * 400_000})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An annotation file of 400 kB that has a stamp, as if it were older than two seconds."""
    monkeypatch.setattr(index_cache, "FRESH_NS", -(10**15))
    path = tmp_path / "instances.json"
    path.write_text(content())
    assert load_index(path, tmp_path / "cache").labels.tolist() == [1]
    assert len(list((tmp_path / "cache").glob("*.stamp"))) == 1
    return path


def stamp(path: Path) -> Path:
    (file,) = (path.parent / "cache").glob("*.stamp")
    return file


@pytest.fixture
def hashed(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed from now on."""
    files: list[Path] = []
    whole = index_cache.sha256_of
    monkeypatch.setattr(index_cache, "sha256_of", lambda one: (files.append(one), whole(one))[1])
    return files


def test_an_unchanged_file_is_not_hashed_again(path: Path, hashed: list[Path]) -> None:
    index = load_index(path, path.parent / "cache")
    assert hashed == []
    parsed = index_cache.parse_annotations(path)
    assert index.sha256 == parsed.sha256
    for name in _array_fields():
        np.testing.assert_array_equal(getattr(index, name), getattr(parsed, name))


def test_an_index_of_the_cache_is_mapped_and_read_only(path: Path) -> None:
    index = load_index(path, path.parent / "cache")
    with pytest.raises(ValueError, match="read-only"):
        index.boxes[0, 0] = 1
    if sys.platform == "linux":
        assert ".arrays" in Path("/proc/self/maps").read_text()


def test_a_file_edited_behind_its_time_is_noticed(path: Path, hashed: list[Path]) -> None:
    """Same length, same modification time, same inode: the time of change, which nobody can set, differs."""
    before = path.stat()
    with path.open("r+") as file:
        file.write(content(category=2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)
    assert load_index(path, path.parent / "cache").labels.tolist() == [2]
    assert load_index(path, path.parent / "cache").labels.tolist() == [2]
    assert hashed == [path], "the second load believed the new stamp"


def test_a_file_that_only_its_content_gives_away_is_noticed(path: Path, hashed: list[Path]) -> None:
    path.write_text(content(category=2))
    now, said = path.stat(), json.loads(stamp(path).read_text())
    looks = {"size": now.st_size, "modified": now.st_mtime_ns, "changed": now.st_ctime_ns, "inode": now.st_ino}
    stamp(path).write_text(json.dumps(said | looks))
    assert load_index(path, path.parent / "cache").labels.tolist() == [2]
    assert hashed == [path]


@pytest.mark.parametrize("name", ["size", "modified", "changed", "inode", "fingerprint"])
def test_each_look_counts(path: Path, hashed: list[Path], name: str) -> None:
    said = json.loads(stamp(path).read_text())
    said[name] = "0" * 64 if name == "fingerprint" else said[name] + 1
    stamp(path).write_text(json.dumps(said))
    load_index(path, path.parent / "cache")
    assert hashed == [path]


def test_a_file_that_has_just_changed_gets_no_stamp(
    path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change again in the same tick of the clock, and look the same."""
    stamp(path).unlink()
    monkeypatch.setattr(index_cache, "FRESH_NS", 10**15)
    load_index(path, path.parent / "cache")
    load_index(path, path.parent / "cache")
    assert hashed == [path, path]
    assert list((path.parent / "cache").glob("*.stamp")) == []


def test_a_file_that_changes_while_it_is_read_gets_no_stamp(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp(path).unlink()
    whole = index_cache.sha256_of

    def hash_and_touch(one: Path) -> str:
        digest = whole(one)
        os.utime(one)
        return digest

    monkeypatch.setattr(index_cache, "sha256_of", hash_and_touch)
    load_index(path, path.parent / "cache")
    assert list((path.parent / "cache").glob("*.stamp")) == []


@pytest.mark.parametrize(("begun", "kept"), [(2_000, False), (2_001, True), (9_000, True)])
def test_how_long_a_file_must_be_unchanged(path: Path, monkeypatch: pytest.MonkeyPatch, begun: int, kept: bool) -> None:
    """More than 1,000 ns before the hash begins, by the later of its two times."""
    stamp(path).unlink()
    look = {"size": 1, "modified": 1_000, "changed": 900, "inode": 2, "fingerprint": "f"}
    monkeypatch.setattr(index_cache, "FRESH_NS", 1_000)
    monkeypatch.setattr(index_cache, "_look", lambda one: dict(look))
    monkeypatch.setattr(index_cache.time, "time_ns", lambda: begun)
    load_index(path, path.parent / "cache")
    assert bool(list((path.parent / "cache").glob("*.stamp"))) == kept


def test_a_file_that_cannot_be_looked_at_gets_no_stamp(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp(path).unlink()
    monkeypatch.setattr(index_cache, "_look", lambda one: None)
    assert load_index(path, path.parent / "cache").labels.tolist() == [1]
    assert list((path.parent / "cache").glob("*.stamp")) == []


def test_a_file_that_is_another_when_it_is_parsed_gets_no_stamp(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was hashed before it was replaced and put back, so the hash is that of another content."""
    stamp(path).unlink()
    monkeypatch.setattr(index_cache, "sha256_of", lambda one: "0" * 64)
    assert load_index(path, path.parent / "cache").labels.tolist() == [1]
    assert list((path.parent / "cache").glob("*.stamp")) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"size": 1}', "\0" * 99, "[" * 5000])
def test_a_damaged_stamp_is_none(path: Path, hashed: list[Path], text: str) -> None:
    stamp(path).write_text(text)
    assert load_index(path, path.parent / "cache").labels.tolist() == [1]
    assert hashed == [path]


def test_a_stamp_that_others_can_write_is_not_believed(path: Path, hashed: list[Path]) -> None:
    stamp(path).chmod(0o666)
    load_index(path, path.parent / "cache")
    assert hashed == [path]
    assert stamp(path).stat().st_mode & 0o777 == 0o644


def test_a_stamp_does_not_vouch_for_another_index(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The cache of the file's hash is replaced by one with a label that no category has."""
    (cached,) = (path.parent / "cache").glob("*.arrays")
    sound = load_index(path, path.parent / "cache")
    wrong = {field: getattr(sound, field) for field in sound.__dataclass_fields__} | {"labels": np.array([9])}
    index_cache._save(Index(**wrong), cached)
    assert load_index(path, path.parent / "cache").labels.tolist() == [1]
    assert "labels cannot come from an annotation file" in caplog.text


def test_a_stamp_whose_index_is_gone(path: Path, hashed: list[Path]) -> None:
    (cached,) = (path.parent / "cache").glob("*.arrays")
    cached.unlink()
    assert load_index(path, path.parent / "cache").labels.tolist() == [1]
    assert cached.is_file()


def test_reading_annotations_needs_no_torch(root: Path) -> None:
    """torch takes 0.5 GB and seconds, which a process that only reads annotations does not need."""
    code = "import sys, ssd.data.index_cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root / "base", check=False).returncode == 0


def test_an_index_of_another_file_or_that_others_can_write_is_not_used(path: Path) -> None:
    index = index_cache.parse_annotations(path)
    cached = index_cache._cache_file(path.parent / "cache", index.sha256)
    assert index_cache._read(cached, "a.json", index.sha256)[0].source == "a.json"
    with pytest.raises(ValueError, match=f"it was made from another file, {index.sha256[:8]}"):
        index_cache._read(cached, "a.json", "0" * 64)
    cached.chmod(0o666)
    with pytest.raises(ValueError, match="others may write to it"):
        index_cache._read(cached, "a.json", index.sha256)


def test_a_cache_that_cannot_be_written_costs_the_next_process_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        index_cache._keep_stamp(path.parent / "new.stamp", index_cache._Stamp(*[0] * len(fields(index_cache._Stamp))))
    assert sorted(one.name for one in path.parent.iterdir()) == ["cache", path.name], "nothing is left of it"
    monkeypatch.setattr(index_cache, "_save", fail)
    assert load_index(path, path.parent / "other").labels.tolist() == [1]
    assert "is not cached" in caplog.text
