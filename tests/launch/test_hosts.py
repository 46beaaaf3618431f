"""Launchers of several hosts, here all in this process: they meet, miss one another, and agree on how a run ended."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from ssd.config import Config
from ssd.errors import EXIT_BAD_DATA, EXIT_LOST_PEER, EXIT_MAX_STEPS, ConfigError, LostPeerError, MachineError
from ssd.launch import hosts
from ssd.launch.hosts import End, Hosts

OPEN: list[Hosts] = []


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hosts, "LINGER", 2.0)
    yield
    for one in OPEN:
        assert one.close()
    OPEN.clear()


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class StandIn:
    """A store where something happens before each answer."""

    def __init__(self, store, before: Callable[[], object]) -> None:
        self.set, self.store, self.before = store.set, store, before

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.before()
        return self.store.multi_get(keys)


def config(rank: int, port: int, timeout: float = 30.0, nodes: int = 2, address: str = "127.0.0.1") -> Config:
    return Config(
        nodes=nodes, node_rank=rank, master_addr=address, master_port=port, collective_timeout=timeout, pretrained=False
    )


def together(*calls: Callable[[], object]) -> list:
    """Results of the calls, or their errors, each in a thread of its own."""
    results: list[object] = [None] * len(calls)

    def run(place: int) -> None:
        try:
            results[place] = calls[place]()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def meet(port: int, nodes: int = 2, timeout: float = 30.0) -> list[Hosts]:
    met = together(*(lambda rank=rank: Hosts(config(rank, port, timeout, nodes)) for rank in range(nodes)))
    OPEN.extend(one for one in met if isinstance(one, Hosts))
    assert all(isinstance(one, Hosts) for one in met), met
    return met


def test_all_know_all_and_leave_in_peace(port: int) -> None:
    met = meet(port, 3)
    assert [one.names for one in met] == [[socket.gethostname()] * 3] * 3
    assert [one.verdict() for one in met] == [None] * 3
    outcome = End(EXIT_MAX_STEPS)
    assert together(*(lambda one=one: one.agree(outcome) for one in met)) == [outcome] * 3


@pytest.mark.slow
def test_the_cause_is_reported_by_all(port: int) -> None:
    """Host 2 fails; host 1 lost it, host 0 was cut off: both report what host 2 said."""
    met = meet(port, 3)
    ends = together(
        lambda: met[0].agree(End(137, "killed by signal 9", follows=True)),
        lambda: met[1].agree(End(EXIT_LOST_PEER, "lost process 2", follows=True)),
        lambda: met[2].agree(End(EXIT_BAD_DATA, "rank 2 on c: image 7 is corrupt")),
    )
    assert [end.code for end in ends] == [EXIT_BAD_DATA] * 3
    assert ends[2].message == "rank 2 on c: image 7 is corrupt"
    assert ends[0] == ends[1] == End(EXIT_BAD_DATA, f"host 2 ({met[0].names[2]}) failed: {ends[2].message}")


@pytest.mark.slow
def test_without_a_cause_each_says_what_it_saw(port: int) -> None:
    met = meet(port)
    cut_off = End(137, "killed by signal 9", follows=True)
    lost = [End(EXIT_LOST_PEER, f"lost process {rank}", follows=True) for rank in (1, 0)]
    assert together(lambda: met[0].agree(lost[0]), lambda: met[1].agree(lost[1])) == lost
    met = meet(port + 1 if port < 65535 else 20000)
    ends = together(lambda: met[0].agree(cut_off), lambda: met[1].agree(lost[1]))
    assert [end.code for end in ends] == [EXIT_LOST_PEER] * 2


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_host_is_lost(port: int, monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    """A launcher without a heartbeat; and, seen by host 1, a host 0 whose store does not answer any more."""
    met = meet(port, 2, timeout=1.0)
    other = met[1 - silent]
    hang = threading.Event()
    stopped = met[silent] if silent else other  # the store's hang is felt by whoever asks it
    monkeypatch.setattr(stopped, "store", StandIn(stopped.store, lambda: hang.wait(20)))
    until = time.monotonic() + 20
    while (verdict := other.verdict()) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert verdict is not None
    if silent == 0:
        assert not other.close(), "a request that hangs is told"
    hang.set()
    assert verdict.code == EXIT_LOST_PEER
    assert verdict.message.startswith(f"host {silent} ({socket.gethostname()}) was lost")


def test_a_broken_store_is_the_first_host_s(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second = meet(port)

    def broken() -> None:
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(second, "store", StandIn(second.store, broken))
    until = time.monotonic() + 20
    while (verdict := second.verdict()) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert verdict is not None
    assert verdict.message.startswith("host 0 ")


def test_a_host_that_never_comes(port: int) -> None:
    with pytest.raises(LostPeerError, match=rf"host 1, 2 of 3 did not come to 127.0.0.1:{port} within 1 s"):
        Hosts(config(0, port, 1.0, 3))


@pytest.mark.parametrize("address", ["127.0.0.1", "no-such-host.invalid"])
def test_a_first_host_that_never_comes(port: int, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    with pytest.raises(LostPeerError, match=f"could not reach host 0, {address}:{port}, within 1 s"):
        Hosts(config(1, port, 1.0, address=address))


@pytest.mark.slow
def test_two_launchers_with_one_rank(port: int) -> None:
    results = together(*(lambda rank=rank: Hosts(config(rank, port, 2.0, 3)) for rank in (0, 1, 1)))  # host 2 is late
    assert [type(one) for one in results[1:]].count(ConfigError) == 1
    assert "node_rank = 1: another launcher" in str(next(one for one in results if isinstance(one, ConfigError)))


def test_a_port_that_is_taken(port: int) -> None:
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(MachineError, match=f"master_port = {port} cannot be opened"):
            Hosts(config(0, port))


def test_a_name_that_leads_to_loopback(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Debian writes into /etc/hosts: gloo would tell the others 127.0.1.1."""
    known = {socket.gethostname(): "127.0.1.1", "node01": "10.0.0.1"}
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *_, **__: [(0, 0, 0, "", (known[name], 0))])
    with pytest.raises(MachineError, match="set GLOO_SOCKET_IFNAME"):
        Hosts(config(1, port, 1.0, address="node01"))


def test_a_verdict_can_be_asked_for_while_ends_come_in() -> None:
    """Two threads share the ends. Here the heartbeat takes in all of them while the launcher looks at the first."""
    nodes = 50
    one = object.__new__(Hosts)
    one.rank, one.timeout, one.interval, one.names = 0, 600.0, 0.0, ["a"] * nodes
    one._answered, one._end = time.monotonic(), None
    one._heard = dict.fromkeys(range(1, nodes), time.monotonic())
    one._told, one._stop = threading.Event(), threading.Event()
    answer = json.dumps(["a", 1, [EXIT_BAD_DATA, "image 7 is corrupt", "", False]]).encode()

    def multi_get(keys: list[str]) -> list[bytes]:
        one._stop.set()
        return [answer] * len(keys)

    class Looked:
        follows = False

        @property
        def message(self) -> str:
            together(one._exchange)
            return ""

    one.store = SimpleNamespace(set=lambda key, value: None, multi_get=multi_get)
    one._ends = {1: Looked()}  # type: ignore[dict-item]
    assert one.verdict() is None, "of what the look began with"
    assert one.verdict() == End(EXIT_BAD_DATA, "host 1 (a) failed: image 7 is corrupt")
    assert len(one._ends) == nodes - 1


ROOT, FOLLOWS = End(EXIT_BAD_DATA, "image 7 is corrupt"), End(EXIT_LOST_PEER, "lost rank 3", follows=True)


def test_an_end_is_a_root_cause_that_nobody_asked_for_unless_it_says_otherwise() -> None:
    assert (ROOT.follows, ROOT.asked) == (False, False)


@pytest.mark.parametrize(
    ("rank", "told", "heard", "end", "root", "settled"),
    [
        (1, True, {}, ROOT, None, True),
        (1, False, {}, ROOT, ROOT, False),
        (1, True, {}, FOLLOWS, ROOT, True),
        (1, True, {}, FOLLOWS, FOLLOWS, False),
        (1, True, {}, FOLLOWS, None, False),
        (1, False, {}, FOLLOWS, ROOT, False),
        (0, True, {1: 0.0}, ROOT, None, False),
        (0, True, {}, ROOT, None, True),
    ],
)
def test_a_host_leaves_when_all_know_its_end_and_its_cause_is_known(
    rank: int, told: bool, heard: dict[int, float], end: End, root: End | None, settled: bool
) -> None:
    one = object.__new__(Hosts)
    one.rank, one._told, one._ends, one._heard = rank, threading.Event(), {}, heard
    if told:
        one._told.set()
    one.verdict = lambda: root  # type: ignore[method-assign]
    assert one._settled(end) is settled


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1", "::1"], True),
        (["127.0.0.1", "10.0.0.1"], False),
        (["fe80::1%eth0"], False),
    ],
)
def test_a_name_is_a_loopback_where_all_its_addresses_are(
    addresses: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (one, 0)) for one in addresses])
    assert hosts._is_loopback("node01") is expected


def test_a_name_that_nobody_knows_is_a_loopback_where_it_is_this_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert hosts._is_loopback(socket.gethostname())
    assert not hosts._is_loopback(f"not-{socket.gethostname()}")


def test_an_interface_that_is_named_or_a_group_on_one_host_needs_no_look(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(hosts, "_is_loopback", lambda name: name != "node01")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    hosts._require_reachable_name(config(1, port, address="node01"))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    hosts._require_reachable_name(config(1, port, address="localhost"))
    with pytest.raises(MachineError, match="has no address but a loopback's"):
        hosts._require_reachable_name(config(1, port, address="node01"))
