"""prepare: fetches only what is missing, writes only into its own folders, and takes nothing half-done for done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile

import pytest

from ssd.errors import ConfigError, DataError, MachineError
from ssd.locks import hold
from ssd.prepare import fetch
from ssd.prepare.backbone import BACKBONE, check_backbone, fetch_backbone
from ssd.prepare.coco import COCO, LOCK, MANIFEST, Archive, _need_disk, prepare_coco, prepare_demo
from ssd.prepare.fetch import Remote

QUICK = {"attempts": 2, "backoff": 0.001, "timeout": 5}
FOLDERS = ("annotations", "val2017", "train2017")


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def zips(coco, tmp_path):
    """The test's COCO folder as three zip archives, in COCO's layout."""
    folder = tmp_path / "zips"
    folder.mkdir()
    for part in FOLDERS:
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            archive.write(coco / part, f"{part}/")
            for file in sorted((coco / part).iterdir()):
                archive.write(file, f"{part}/{file.name}")
    return folder


@pytest.fixture
def archives(zips, bad_server):
    """Facts of these archives, and a server that has them."""
    found = []
    for part in FOLDERS:
        content = (zips / f"{part}.zip").read_bytes()
        url = bad_server.serves(f"/{part}.zip", content)
        digest = hashlib.sha256(content).hexdigest()
        found.append(Archive(f"{part}.zip", (url,), len(content), digest, part, len(content)))
    return found


def test_a_new_folder_is_fetched_checked_and_indexed(archives, bad_server, tmp_path):
    data, cache = tmp_path / "new/data", tmp_path / "cache"
    report = prepare_coco(data, cache, archives=archives, **QUICK)
    assert [split.images for split in report.splits] == [13, 11]
    assert names(data) == [MANIFEST, *sorted(FOLDERS)], "the archives are gone once unpacked"
    assert len(list(cache.glob("*.arrays"))) == 2
    before = state(data)
    prepare_coco(data, cache, archives=archives, **QUICK)
    assert len(bad_server.requests) == 3, "the second call fetches nothing"
    assert state(data) == before


def test_only_what_is_missing_or_damaged_is_done_again(archives, bad_server, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    prepare_coco(data, cache, archives=archives, **QUICK)
    (data / "val2017/000000000103.jpg").unlink()
    cut = data / "train2017/000000000100.jpg"
    cut.write_bytes(cut.read_bytes()[:-9])
    shutil.rmtree(data / "annotations")
    bad_server.requests.clear()
    kept = state(data / "train2017")
    prepare_coco(data, cache, archives=archives, **QUICK)
    assert [path for path, _ in bad_server.requests] == ["/annotations.zip", "/val2017.zip", "/train2017.zip"]
    (data / "val2017/000000000103.jpg").unlink()
    bad_server.requests.clear()
    kept = state(data / "train2017")
    prepare_coco(data, cache, archives=archives, **QUICK)
    assert [path for path, _ in bad_server.requests] == ["/val2017.zip"]
    assert state(data / "train2017") == kept


def test_a_call_cut_short_is_continued(archives, bad_server, tmp_path):
    """The last archive's server fails halfway; later the rest of it is fetched, and nothing else."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    served = bad_server.paths["/train2017.zip"]
    bad_server.paths["/train2017.zip"] = type(served)(served.content, cuts=[1000, 0, 0, 0])
    with pytest.raises(DataError, match="could not be fetched"):
        prepare_coco(data, cache, archives=archives, **QUICK)
    assert names(data) == [MANIFEST, "annotations", "train2017.zip.part", "val2017"]
    bad_server.paths["/train2017.zip"] = served
    bad_server.requests.clear()
    assert prepare_coco(data, cache, archives=archives, **QUICK).ok
    assert bad_server.requests == [("/train2017.zip", "bytes=1000-")]


def test_a_folder_half_unpacked_is_not_taken_for_whole(archives, bad_server, coco, tmp_path):
    data = tmp_path / "data"
    prepare_coco(data, tmp_path / "cache", archives=archives[:1] + archives[2:] + archives[1:2], **QUICK)
    manifest = json.loads((data / MANIFEST).read_text())
    del manifest["parts"]["val2017"]
    (data / MANIFEST).write_text(json.dumps(manifest))
    bad_server.requests.clear()
    prepare_coco(data, tmp_path / "cache", archives=archives, **QUICK)
    assert [path for path, _ in bad_server.requests] == ["/val2017.zip"]


def test_archives_at_hand_are_used_and_left_alone(archives, bad_server, zips, tmp_path):
    before = state(zips)
    assert prepare_coco(tmp_path / "data", tmp_path / "cache", archives=archives, from_dir=zips, **QUICK).ok
    assert bad_server.requests == []
    assert state(zips) == before


def test_an_archive_at_hand_that_is_damaged_is_named(archives, bad_server, zips, tmp_path):
    content = bytearray((zips / "val2017.zip").read_bytes())
    content[500] ^= 1
    (zips / "val2017.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"zips/val2017\.zip is not val2017\.zip: its sha256"):
        prepare_coco(tmp_path / "data", tmp_path / "cache", archives=archives, from_dir=zips, **QUICK)
    assert bad_server.requests == []


def test_an_archive_missing_at_hand_is_fetched_and_said(archives, bad_server, zips, tmp_path, caplog):
    (zips / "val2017.zip").unlink()
    assert prepare_coco(tmp_path / "data", tmp_path / "cache", archives=archives, from_dir=zips, **QUICK).ok
    assert [path for path, _ in bad_server.requests] == ["/val2017.zip"]
    assert [one.message for one in caplog.records if "is not there" in one.message] == [
        f"{zips / 'val2017.zip'} is not there: fetching it"
    ]


def test_no_archive_is_missed_where_none_is_said_to_be_at_hand(archives, tmp_path, caplog):
    prepare_coco(tmp_path / "data", tmp_path / "cache", archives=archives, **QUICK)
    assert "is not there" not in caplog.text


def test_images_are_decoded_where_that_is_asked_for(coco, archives, tmp_path):
    path = coco / "train2017/000000000105.jpg"
    path.write_bytes(path.read_bytes()[:300] + path.read_bytes()[-2:])
    assert prepare_coco(coco, tmp_path / "cache", archives=archives).ok
    with pytest.raises(DataError, match=r"1 truncated.*: 000000000105\.jpg"):
        prepare_coco(coco, tmp_path / "cache", archives=archives, decode_all=True)


def test_the_disk_must_hold_what_is_still_to_come(archives, zips, tmp_path, monkeypatch):
    """Of an archive that is half here the rest; nothing of one at hand but what it unpacks to."""
    (tmp_path / "val2017.zip.part").write_bytes(bytes(100))
    free = [0]
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[0]})())
    unpacked = sum(archive.unpacked for archive in archives)
    for from_dir, needed in ((None, unpacked + sum(archive.size for archive in archives) - 100), (zips, unpacked)):
        free[0] = needed
        _need_disk(tmp_path, archives, from_dir)
        free[0] = needed - 1
        with pytest.raises(MachineError, match="make room"):
            _need_disk(tmp_path, archives, from_dir)


def test_a_wrong_archive_is_never_unpacked(archives, bad_server, tmp_path):
    served = bad_server.paths["/val2017.zip"]
    bad_server.paths["/val2017.zip"] = type(served)(bytes(len(served.content)))
    with pytest.raises(DataError, match=r"not val2017\.zip: sha256"):
        prepare_coco(tmp_path / "data", tmp_path / "cache", archives=archives, **QUICK)
    assert names(tmp_path / "data") == [MANIFEST, "annotations"]


def test_the_users_folder_is_checked_and_never_written(archives, bad_server, coco, tmp_path):
    before = state(coco)
    assert prepare_coco(coco, tmp_path / "cache", archives=archives).ok
    (coco / "train2017/000000000101.jpg").unlink()
    with pytest.raises(DataError, match=r"missing: 000000000101\.jpg"):
        prepare_coco(coco, tmp_path / "cache", archives=archives)
    shutil.rmtree(coco / "val2017")
    with pytest.raises(DataError, match="lacks val2017, and prepare writes nothing into a folder it did not make"):
        prepare_coco(coco, tmp_path / "cache", archives=archives)
    assert set(state(coco)) < set(before)
    assert bad_server.requests == []


def test_a_read_only_folder_of_the_user_is_fine(tiny_coco, tmp_path):
    before = state(tiny_coco)
    assert prepare_coco(tiny_coco, tmp_path).ok
    assert state(tiny_coco) == before


def test_too_small_a_disk_is_noticed_before_anything_is_fetched(archives, bad_server, tmp_path, monkeypatch):
    total = sum(archive.size + archive.unpacked for archive in archives)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": total - 1})())
    with pytest.raises(MachineError, match=r"preparing annotations\.zip, val2017\.zip, train2017\.zip needs"):
        prepare_coco(tmp_path / "data", tmp_path / "cache", archives=archives, **QUICK)
    assert bad_server.requests == []


def test_a_damaged_manifest_is_an_error_not_a_licence(archives, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for content in ("{", "[]", '{"kind": "coco"}', '{"kind": "coco", "parts": 3}'):
        (data / MANIFEST).write_text(content)
        with pytest.raises(DataError, match="is damaged"):
            prepare_coco(data, tmp_path / "cache", archives=archives)


def test_facts_of_coco():
    """Sizes and hashes as published; HTTPS by path first, then plain HTTP."""
    facts = {archive.name: (archive.size, archive.sha256[:8], archive.folder) for archive in COCO}
    assert facts == {
        "train2017.zip": (19336861798, "69a8bb58", "train2017"),
        "val2017.zip": (815585330, "4f7e2ccb", "val2017"),
        "annotations_trainval2017.zip": (252907541, "113a836d", "annotations"),
    }
    for archive in COCO:
        assert len(archive.sha256) == 64
        assert [url.split("/")[0] for url in archive.urls] == ["https:", "http:"]
        assert all(url.endswith("/" + archive.name) for url in archive.urls)
    assert 40e9 < sum(archive.size + archive.unpacked for archive in COCO) < 46e9
    assert (BACKBONE.size, BACKBONE.sha256[:8]) == (87306240, "333f7ec4")
    assert BACKBONE.name == f"resnet34-{BACKBONE.sha256[:8]}.pth"


SMALL = {"train": 6, "val": 3}


def test_the_demo_set_is_drawn_once(tmp_path):
    data, cache = tmp_path / "demo", tmp_path / "cache"
    report = prepare_demo(data, cache, **SMALL)
    assert [split.images for split in report.splits] == [6, 3]
    assert names(data) == [MANIFEST, "annotations", "train2017", "val2017"]
    before = state(data)
    prepare_demo(data, cache, **SMALL)
    assert state(data) == before


def test_a_demo_set_of_an_older_drawing_is_drawn_again(tmp_path, monkeypatch):
    data, cache = tmp_path / "demo", tmp_path / "cache"
    prepare_demo(data, cache, **SMALL)
    before = state(data / "train2017")
    monkeypatch.setattr("ssd.prepare.coco.VERSION", 10**6)
    prepare_demo(data, cache, **SMALL)
    assert state(data / "train2017") != before


@pytest.mark.parametrize("harm", ["cut", "remove", "add", "unrecorded", "interrupted", "other seed"])
def test_a_demo_set_that_is_not_whole_is_drawn_again(tmp_path, harm):
    data, cache = tmp_path / "demo", tmp_path / "cache"
    prepare_demo(data, cache, **SMALL)
    whole = {path: path.read_bytes() for path in data.rglob("*.jpg")}
    image = data / "train2017/000000000003.jpg"
    if harm == "cut":
        image.write_bytes(image.read_bytes()[:100])
    elif harm == "remove":
        image.unlink()
    elif harm == "add":
        (data / "val2017/extra.jpg").write_bytes(b"x")
    elif harm == "unrecorded":
        (data / MANIFEST).write_text(json.dumps({"made_by": "ssd prepare", "kind": "demo", "parts": {}}))
    elif harm == "interrupted":
        (data / ".drawing/train2017").mkdir(parents=True)
        shutil.rmtree(data / "val2017")
    elif harm == "other seed":
        prepare_demo(data, cache, seed=1, **SMALL)
        assert {path: path.read_bytes() for path in data.rglob("*.jpg")} != whole
    prepare_demo(data, cache, **SMALL)
    assert {path: path.read_bytes() for path in data.rglob("*.jpg")} == whole
    assert names(data) == [MANIFEST, "annotations", "train2017", "val2017"]


def test_a_folder_where_prepare_was_killed_at_its_first_file(tmp_path):
    """Its manifest was begun, and nothing else is there: it is prepare's own."""
    data = tmp_path / "data"
    data.mkdir()
    (data / f"{MANIFEST}.part").write_text('{"made_by"')
    prepare_demo(data, tmp_path / "cache", **SMALL)
    assert names(data) == [MANIFEST, "annotations", "train2017", "val2017"]


def test_the_demo_set_replaces_nothing_of_the_user(coco, tmp_path):
    before = state(coco)
    with pytest.raises(DataError, match="did not make"):
        prepare_demo(coco, tmp_path / "cache", **SMALL)
    assert state(coco) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        prepare_demo(tmp_path / "file", tmp_path / "cache", **SMALL)


def test_coco_and_demo_do_not_share_a_folder(archives, tmp_path):
    prepare_demo(tmp_path / "demo", tmp_path / "cache", **SMALL)
    with pytest.raises(DataError, match="holds the demo set"):
        prepare_coco(tmp_path / "demo", tmp_path / "cache", archives=archives)


WEIGHTS = b"weights" * 1000


@pytest.fixture
def backbone(bad_server):
    url = bad_server.serves("/resnet34.pth", WEIGHTS, cuts=[100])
    return Remote("resnet34-test.pth", (url,), len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())


def test_the_backbone_is_fetched_once_and_verified(backbone, bad_server, tmp_path):
    path = tmp_path / "weights/resnet34-test.pth"
    assert fetch_backbone(path, remote=backbone, **QUICK) == path
    assert path.read_bytes() == WEIGHTS
    requests = len(bad_server.requests)
    assert fetch_backbone(path.parent, remote=backbone, **QUICK) == path, "a folder stands for the file in it"
    assert len(bad_server.requests) == requests
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="no known ResNet-34 checkpoint"):
        fetch_backbone(path, remote=backbone, **QUICK)
    assert path.read_bytes() == b"something else"


def test_the_backbone_at_hand_is_copied(backbone, bad_server, tmp_path):
    hand = tmp_path / "hand"
    hand.mkdir()
    (hand / backbone.name).write_bytes(WEIGHTS)
    path = fetch_backbone(tmp_path / "a/b.pth", from_dir=hand, remote=backbone, **QUICK)
    assert path.read_bytes() == WEIGHTS
    (hand / backbone.name).write_bytes(WEIGHTS[:-1])
    with pytest.raises(DataError, match="bytes"):
        fetch_backbone(tmp_path / "c.pth", from_dir=hand, remote=backbone, **QUICK)
    assert bad_server.requests == []


def test_torchvisions_present_backbone_is_known(tmp_path, monkeypatch, caplog):
    (tmp_path / "new.pth").write_bytes(WEIGHTS)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    monkeypatch.setattr("ssd.prepare.backbone.BACKBONE_TODAY", digest[:8])
    known = Remote("a.pth", (), len(WEIGHTS), digest)
    assert check_backbone(tmp_path / "new.pth", known) == digest
    assert caplog.text == ""
    assert check_backbone(tmp_path / "new.pth") == digest
    assert "refused in closed ones" in caplog.text
    assert fetch_backbone(tmp_path / "new.pth", attempts=0) == tmp_path / "new.pth"


@pytest.mark.parametrize("name", ["/dev/null/x", "/proc/nothing/x", "x" * 300])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, name):
    with pytest.raises(ConfigError, match="no folder can be made there"):
        prepare_demo(tmp_path / name, tmp_path / "cache")


def test_a_second_prepare_is_told_who_has_the_folder(tmp_path):
    (tmp_path / "data").mkdir()
    with (
        hold(tmp_path / "data" / LOCK, "x"),
        pytest.raises(ConfigError, match=rf"in use by process {os.getpid()} on host"),
    ):
        prepare_demo(tmp_path / "data", tmp_path / "cache")


@pytest.mark.parametrize("parts", [{"set": 3}, {"set": []}, {"set": {"arguments": 1}}])
def test_a_manifest_with_wrong_parts_is_drawn_anew(tmp_path, parts):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / MANIFEST).write_text(json.dumps({"kind": "demo", "parts": parts}))
    prepare_demo(tmp_path / "data", tmp_path / "cache", train=2, val=2)
    assert not (tmp_path / "data" / LOCK).exists()
