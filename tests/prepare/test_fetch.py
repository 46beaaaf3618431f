"""Downloads from a server with bad habits: what arrives is the file, whole, or an error that says why not."""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import logging
import os
import socket
import ssl
import urllib.error

import numpy as np
import pytest
from rich.console import Console

from ssd.errors import DataError, MachineError
from ssd.prepare import fetch
from ssd.prepare.fetch import Remote, console_report, download, need_disk, verify

CONTENT = np.random.default_rng(0).bytes(300_000)


def remote(*urls, content=CONTENT):
    return Remote("thing.zip", urls, len(content), hashlib.sha256(content).hexdigest())


def fetched(target, *urls, **options):
    return download(remote(*urls), target, **({"attempts": 3, "backoff": 0.001, "timeout": 5} | options))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "down/thing.zip"


def only(target):
    """Nothing but the whole file lies in its folder."""
    return target.read_bytes() == CONTENT and [file.name for file in target.parent.iterdir()] == [target.name]


def test_a_plain_download_and_its_progress(bad_server, target):
    seen = []
    fetched(target, bad_server.serves("/a", CONTENT), report=lambda *call: seen.append(call))
    assert only(target)
    assert seen[-1] == ("thing.zip", 300_000, 300_000)
    done = [call[1] for call in seen]
    assert done == sorted(done)


def test_what_is_there_is_not_fetched_again(bad_server, target):
    url = bad_server.serves("/a", CONTENT)
    fetched(target, url)
    fetched(target, url)
    assert len(bad_server.requests) == 1


def test_cut_connections_are_resumed_where_they_were_cut(bad_server, target):
    fetched(target, bad_server.serves("/a", CONTENT, cuts=[100_000, 1, 50_000, 7, 100_000]))
    assert only(target)
    starts = [asked for _, asked in bad_server.requests]
    assert starts == [None] + [f"bytes={n}-" for n in (100_000, 100_001, 150_001, 150_008, 250_008)]


def test_a_part_of_an_earlier_call_is_continued(bad_server, target):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT[:123_456])
    fetched(target, bad_server.serves("/a", CONTENT))
    assert only(target)
    assert bad_server.requests == [("/a", "bytes=123456-")]


def test_a_complete_part_is_only_verified(bad_server, target):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT)
    fetched(target, bad_server.serves("/a", CONTENT))
    assert only(target)
    assert bad_server.requests == []


@pytest.mark.parametrize("size", [300_001, 999_999])
def test_a_part_too_long_is_started_over(bad_server, target, size):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(b"x" * size)
    fetched(target, bad_server.serves("/a", CONTENT))
    assert only(target)
    assert bad_server.requests == [("/a", None)]


def test_a_server_that_ignores_range_is_read_from_the_start(bad_server, target):
    fetched(target, bad_server.serves("/a", CONTENT, ranges=False, cuts=[200_000]))
    assert only(target)
    assert bad_server.requests == [("/a", None), ("/a", "bytes=200000-")]


def test_a_server_that_cannot_resume_and_always_cuts_is_given_up(bad_server, target):
    url = bad_server.serves("/a", CONTENT, ranges=False, cuts=[900, 100] * 100)
    with pytest.raises(DataError, match="nothing new in 3 attempts"):
        fetched(target, url)
    assert len(bad_server.requests) < 10
    assert not target.exists()


@pytest.mark.parametrize("length", [1000, 250_000])
def test_a_content_length_too_small_is_not_the_files_end(bad_server, target, length):
    url = bad_server.serves("/a", CONTENT, length=length)
    fetched(target, url, attempts=2)
    assert only(target)


def test_a_content_length_too_large_is_not_waited_for(bad_server, target):
    fetched(target, bad_server.serves("/a", CONTENT, length=10**9))
    assert only(target)


def test_a_file_that_goes_on_and_on_is_refused(bad_server, target):
    with pytest.raises(DataError, match="more than the 300000 bytes"):
        fetched(target, bad_server.serves("/a", CONTENT + b"more"))
    assert not target.exists()
    assert (target.parent / "thing.zip.part").read_bytes() == b"", "none of it is taken for the file's beginning"


def test_a_wrong_hash_is_refused_and_its_part_removed(bad_server, target):
    other = bytes(300_000)
    with pytest.raises(DataError, match=r"not thing\.zip: sha256"):
        fetched(target, bad_server.serves("/a", other))
    assert list(target.parent.iterdir()) == []


def test_a_poisoned_part_is_removed_so_that_the_next_try_succeeds(bad_server, target):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(bytes(1000))
    url = bad_server.serves("/a", CONTENT)
    with pytest.raises(DataError, match="sha256"):
        fetched(target, url)
    fetched(target, url)
    assert only(target)


def test_the_next_mirror_is_tried(bad_server, target):
    urls = [
        bad_server.url("/nothing"),
        bad_server.serves("/wrong", bytes(300_000)),
        bad_server.serves("/other size", CONTENT[:-1]),
        "http://127.0.0.1:9/closed",
        bad_server.serves("/good", CONTENT, cuts=[10]),
    ]
    fetched(target, *urls)
    assert only(target)


def test_an_address_of_another_file_is_not_appended_to_ours(bad_server, target):
    """Resuming at a mirror whose file has another size would join two files."""
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT[:1000])
    other = bad_server.serves("/other", CONTENT + b"1")
    fetched(target, other, bad_server.serves("/good", CONTENT))
    assert only(target)
    assert bad_server.requests == [("/other", "bytes=1000-"), ("/good", "bytes=1000-")]


@pytest.mark.parametrize("said", ["bytes 0-299999/300000", "bytes */300000", "pages 1000-299999/300000"])
def test_a_range_other_than_asked_is_refused(bad_server, target, said):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT[:1000])
    url = bad_server.serves("/a", CONTENT, content_range=said)
    with pytest.raises(DataError, match="asked for byte 1000 on"):
        fetched(target, url)


def test_a_range_of_a_file_whose_size_is_not_said_is_taken(bad_server, target):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT[:1000])
    fetched(target, bad_server.serves("/a", CONTENT, content_range="bytes 1000-299999/*"))
    assert only(target)
    assert len(bad_server.requests) == 1


def test_416_starts_over(bad_server, target):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT[:200_000])
    short = bad_server.serves("/a", CONTENT[:100_000])
    with pytest.raises(DataError):
        fetched(target, short, attempts=1)
    assert bad_server.requests[0] == ("/a", "bytes=200000-")
    fetched(target, bad_server.serves("/a", CONTENT))
    assert only(target)
    assert bad_server.requests[1:] == [("/a", None)]


def test_a_busy_server_is_asked_again_and_a_forbidden_file_is_not(bad_server, target):
    fetched(target, bad_server.serves("/busy", CONTENT, fail_first=2))
    assert len(bad_server.requests) == 3
    with pytest.raises(DataError, match="HTTP 403"):
        fetched(target.with_name("other.zip"), bad_server.serves("/forbidden", CONTENT, status=403))
    assert len(bad_server.requests) == 4


def test_every_reason_is_named(bad_server, target):
    with pytest.raises(DataError, match=r"/one: HTTP 404.*/two: HTTP 404"):
        fetched(target, bad_server.url("/one"), bad_server.url("/two"))


def test_a_target_that_is_another_file_is_never_replaced(bad_server, target):
    target.parent.mkdir()
    target.write_bytes(b"the user's own")
    with pytest.raises(DataError, match="14 bytes"):
        fetched(target, bad_server.serves("/a", CONTENT))
    target.write_bytes(bytes(300_000))
    with pytest.raises(DataError, match="sha256"):
        fetched(target, bad_server.serves("/a", CONTENT))
    assert target.read_bytes() == bytes(300_000)
    assert bad_server.requests == []


def test_a_full_disk_is_noticed_before_the_first_byte(bad_server, target, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100_000})())
    url = bad_server.serves("/a", CONTENT)
    with pytest.raises(MachineError, match=r"fetching thing\.zip needs"):
        fetched(target, url)
    assert bad_server.requests == []
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT[:250_000])
    fetched(target, url)
    assert only(target), "only what is missing has to fit"


def test_a_disk_with_just_the_room_will_do_and_the_message_has_both_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2_500_000_000})())
    need_disk(tmp_path, 2_500_000_000, "a test")
    with pytest.raises(MachineError, match=r"^a test needs 3\.5 GB in .*, and 2\.5 GB are free; make room"):
        need_disk(tmp_path, 3_500_000_000, "a test")


def test_disk_is_asked_of_the_nearest_folder_there_is(tmp_path):
    need_disk(tmp_path / "not/yet/there", 1, "a test")
    with pytest.raises(MachineError, match="make room"):
        need_disk(tmp_path / "not/yet/there", 10**18, "a test")


def test_a_folder_that_cannot_be_written_is_the_machines_fault(bad_server, target):
    target.parent.mkdir()
    (target.parent / "thing.zip.part").mkdir()
    with pytest.raises(MachineError, match="cannot be written"):
        fetched(target, bad_server.serves("/a", CONTENT))


def test_verify_names_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        verify(tmp_path / "thing.zip", remote())


def test_without_a_terminal_progress_is_logged_in_tenths(caplog):
    caplog.set_level(logging.INFO)
    with console_report() as report:
        for done in range(1001):
            report("thing.zip", done, 1000)
    assert [record.message for record in caplog.records] == [f"thing.zip: {10 * k}%" for k in range(11)]


@pytest.mark.parametrize(
    "reason",
    [
        socket.gaierror(-3, "Temporary failure in name resolution"),
        ConnectionRefusedError(111, "Connection refused"),
        OSError(101, "Network is unreachable"),
        TimeoutError("timed out"),
        ssl.SSLCertVerificationError(1, "hostname mismatch"),
    ],
    ids=lambda reason: type(reason).__name__,
)
def test_without_a_network_each_address_is_asked_once_and_not_for_long(tmp_path, monkeypatch, reason):
    asked = []

    def unresolved(request, timeout):
        assert timeout <= 10
        asked.append(request.full_url)
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(fetch.urllib.request, "urlopen", unresolved)
    urls = ("https://a.invalid/x", "http://b.invalid/x")
    why = "its certificate is for another host" if isinstance(reason, ssl.SSLError) else "no network reaches it"
    with pytest.raises(DataError, match=rf"its folder by --from_dir.*{why}"):
        fetch.download(fetch.Remote("x", urls, 3, "0" * 64), tmp_path / "x")
    assert asked == list(urls)


def test_a_network_that_goes_away_in_the_middle_is_waited_for(bad_server, target, monkeypatch):
    url = bad_server.serves("/a", CONTENT, cuts=[1000])
    asked, urlopen = [], fetch.urllib.request.urlopen

    def flaky(request, timeout):
        asked.append(timeout)
        if 2 <= len(asked) <= 3:
            raise urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))
        return urlopen(request, timeout=timeout)

    monkeypatch.setattr(fetch.urllib.request, "urlopen", flaky)
    fetched(target, url, timeout=50)
    assert only(target)
    assert asked == [10, 50, 50, 50], "what was cut gets the whole time"


def test_a_server_that_stays_busy_is_not_asked_for_minutes(bad_server, target):
    url = bad_server.serves("/a", CONTENT, status=503)
    with pytest.raises(DataError, match="nothing new in 3 attempts"):
        fetched(target, url, attempts=8)
    assert len(bad_server.requests) == 3


@pytest.mark.parametrize("status", [408, 429, 500])
def test_a_server_that_is_busy_for_now_is_asked_again(bad_server, target, status):
    with pytest.raises(DataError, match=rf"nothing new in 2 attempts, the last: HTTP Error {status}"):
        fetched(target, bad_server.serves("/a", CONTENT, status=status), attempts=2)
    assert len(bad_server.requests) == 2


def test_each_pause_is_twice_as_long_up_to_a_minute(bad_server, target, monkeypatch):
    paused = []
    monkeypatch.setattr(fetch.time, "sleep", paused.append)
    target.parent.mkdir()
    (target.parent / "thing.zip.part").write_bytes(CONTENT[:10])
    url = bad_server.serves("/a", CONTENT, cuts=[10, *[0] * 5], fail_first=2)
    with pytest.raises(DataError, match="nothing new in 5 attempts"):
        fetched(target, url, attempts=5, backoff=10)
    assert paused == [20, 40, 10, 20, 40, 60, 60]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), MachineError, "part cannot be written: No space left"),
        (OSError(errno.EACCES, "Permission denied", "/a"), MachineError, "part cannot be written: Permission denied"),
        (
            ConnectionResetError(errno.ECONNRESET, "reset by peer"),
            DataError,
            "in 2 attempts.*reset by peer",
        ),
        (http.client.IncompleteRead(b""), DataError, "nothing new in 2 attempts, the last: IncompleteRead"),
    ],
)
def test_what_the_disk_refuses_is_the_machines_fault_and_a_cut_line_is_tried_again(
    bad_server, target, monkeypatch, error, kind, words
):
    def copy(*_):
        raise error

    monkeypatch.setattr(fetch, "_copy", copy)
    with pytest.raises(kind, match=words):
        fetched(target, bad_server.serves("/a", CONTENT), attempts=2)


def test_a_file_is_on_the_disk_before_it_gets_its_name(bad_server, target, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(fetch.os, "fsync", lambda file: (synced.append(target.exists()), fsync(file)))
    fetched(target, bad_server.serves("/a", CONTENT))
    assert synced == [False]


def test_on_a_terminal_each_file_has_a_bar(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(fetch, "Console", lambda stderr: console)
    with console_report() as report:
        for name in ("one.zip", "two.zip"):
            report(name, 5, 10)
            report(name, 10, 10)
    last = console.file.getvalue().split("one.zip")[-1]
    assert last.count("10/10 bytes") == 2
    assert "two.zip" in last
