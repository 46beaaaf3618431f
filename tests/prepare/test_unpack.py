"""Zip archives: whole or not at all, and never outside the folder."""

from __future__ import annotations

import errno
import stat
import zipfile

import pytest

from ssd.errors import DataError, MachineError
from ssd.prepare import fetch
from ssd.prepare.unpack import unpack


def archive(tmp_path, members, compression=zipfile.ZIP_STORED):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


GOOD = [("set/", b""), ("set/a.txt", b"alpha" * 1000), ("set/deep/b.txt", b"beta")]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_good_archive(tmp_path, compression):
    seen = []
    unpack(archive(tmp_path, GOOD, compression), tmp_path / "data/set", report=lambda *call: seen.append(call))
    assert (tmp_path / "data/set/a.txt").read_bytes() == b"alpha" * 1000
    assert (tmp_path / "data/set/deep/b.txt").read_bytes() == b"beta"
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["set"]
    assert seen[-1] == ("unpacking set.zip", 5004, 5004)


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "member",
    [
        "../evil",
        "/etc/evil",
        "set/../../evil",
        "other/a.txt",
        "evil",
        "set",
        "set\\..\\..\\evil",
        "C:\\evil",
        link("set/evil"),
    ],
)
def test_nothing_leaves_the_folder(tmp_path, member):
    path = archive(tmp_path, [("set/a.txt", b"a"), (member, b"/etc/passwd")])
    with pytest.raises(DataError, match="not a plain file below set/"):
        unpack(path, tmp_path / "data/deep/set")
    assert [file.name for file in tmp_path.rglob("*")] == ["set.zip"], "not even the good member was written"


def test_a_damaged_archive_leaves_nothing(tmp_path):
    path = archive(tmp_path, GOOD)
    content = bytearray(path.read_bytes())
    content[content.index(b"alpha") + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "data/set")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"set\.zip is damaged"):
        unpack(tmp_path / "set.zip", tmp_path / "set")


def test_a_truncated_or_empty_archive(tmp_path):
    path = archive(tmp_path, GOOD)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "set")
    with pytest.raises(DataError, match="empty"):
        unpack(archive(tmp_path, []), tmp_path / "set")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(tmp_path):
    path = archive(tmp_path, [("set/a", b"1"), ("set/a", b"2")])
    with pytest.raises(DataError, match="twice"):
        unpack(path, tmp_path / "data/set")


def test_remains_of_an_interrupted_call_are_removed(tmp_path):
    (tmp_path / ".set.unpacking/set").mkdir(parents=True)
    (tmp_path / ".set.unpacking/set/half").write_text("h")
    unpack(archive(tmp_path, GOOD), tmp_path / "set")
    assert not (tmp_path / "set/half").exists()
    assert not (tmp_path / ".set.unpacking").exists()


def test_a_full_disk_is_noticed_first(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5003})())
    with pytest.raises(MachineError, match=r"unpacking set\.zip needs"):
        unpack(archive(tmp_path, GOOD), tmp_path / "set")


def test_what_the_disk_refuses_is_not_the_archives_fault(tmp_path, monkeypatch):
    def copy(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ssd.prepare.unpack.shutil.copyfileobj", copy)
    with pytest.raises(OSError, match="No space left on device"):
        unpack(archive(tmp_path, GOOD), tmp_path / "set")
    assert [file.name for file in tmp_path.iterdir()] == ["set.zip"]


def test_an_encrypted_archive_is_named_as_such(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/a.txt", "a")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag "encrypted", in the member's own header and in the archive's list
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be unpacked: .*encrypted.*without encryption"):
        unpack(path, tmp_path / "set")


def test_a_damaged_lzma_member_is_named(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("set/a.txt", "a" * 5000)
    content = bytearray(path.read_bytes())
    content[48:60] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        unpack(path, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_archive_whose_members_lie_before_its_beginning_is_damaged(tmp_path):
    path = archive(tmp_path, GOOD)
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 16 : end + 20] = (2**31).to_bytes(4, "little")  # where the directory begins, as the file says
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        unpack(path, tmp_path / "data/set")
    assert not (tmp_path / "data/set").exists()
