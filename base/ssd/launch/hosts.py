"""The hosts of a run: their launchers meet at a store on the first host, and watch each other until all have ended.

Processes of different hosts wait for each other in collectives, and a host that vanishes leaves them waiting: for how
long, and what they say then, depends on the backend. So the launchers, which never compute, tell each other that they
live and how their part ended. A host silent for `collective_timeout` is lost; one that failed says why to all others.

The store is the one that torchrun's agent opens at the same port: torch shares the server within a process.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

from torch.distributed import TCPStore

from ssd.config import Config
from ssd.errors import EXIT_LOST_PEER, ConfigError, LostPeerError, MachineError

__all__ = ["End", "Hosts"]

log = logging.getLogger(__name__)

LINGER = 5.0
"""Longest stay, in seconds, of a host that has ended: for its word to reach the others, and for theirs to reach it."""


@dataclass(frozen=True)
class End:
    """How a host's part of a run ended: exit code, and what went wrong (empty for an outcome).

    follows: it may be only what another host's end brought about, and is reported where no other cause is known.
    """

    code: int
    message: str = ""
    traceback: str = ""
    follows: bool = False


class Hosts:
    """This host among all, from their meeting to the last one's end. `names` are the hosts' own names, by node_rank.

    Two threads share it. The heartbeat (`_exchange`) alone writes `_ends`, `_heard`, `_answered` and `_told`; the keys
    of `_heard` never change. The launcher alone writes `_end` and `_stop`. Each write replaces one whole value.
    """

    def __init__(self, config: Config) -> None:
        """Wait until all have come. LostPeerError: some did not within collective_timeout. ConfigError: one twice.

        MachineError: the port is taken, or this host's name leads the others nowhere.
        """
        self.rank, self.timeout = config.node_rank, config.collective_timeout
        self.interval = min(1.0, self.timeout / 10)
        self.store, self.names = _meet(config)
        now = time.monotonic()
        self._answered = now  # when the store last did; None of its requests ends early where a link is cut
        self._heard = {rank: now for rank in range(config.nodes) if rank != self.rank}
        self._ends: dict[int, End] = {}  # replaced as a whole, never changed: other threads iterate over it
        self._end: End | None = None
        self._told, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._exchange, daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """Speak no more; whether that succeeded: where a link is cut, a request to the store may hang on.

        A thread inside torch must not outlive the interpreter: waking up then, it would abort the process.
        """
        self._stop.set()
        self._thread.join(2 * self.interval)
        return not self._thread.is_alive()

    def verdict(self) -> End | None:
        """Why this host should end too: another failed, or is lost. None while all is well."""
        failed = [(end.follows, rank, end) for rank, end in self._ends.items() if end.message]
        if failed:
            follows, rank, end = min(failed, key=lambda one: one[:2])
            return End(end.code, f"host {rank} ({self.names[rank]}) failed: {end.message}", follows=follows)
        lost = self._lost()
        if lost is None:
            return None
        return End(
            EXIT_LOST_PEER,
            f"host {lost} ({self.names[lost]}) was lost: no sign of life from its launcher for {self.timeout:g} s "
            "(collective_timeout) or its connection broke. Look for a host or a link that went down",
        )

    def agree(self, end: End) -> End:
        """Tell the others how this host ended, and stay a while; the end to report: this, or what brought it about."""
        self._end = end
        until = time.monotonic() + LINGER
        while time.monotonic() < until and not self._settled(end):
            time.sleep(0.05)
        cause = self.verdict()
        if end.follows and cause and not (cause.follows and end.code == EXIT_LOST_PEER):
            return cause
        return end

    def _settled(self, end: End) -> bool:
        """Whether nothing is left to wait for: all who need this host's word have it, and the cause is known."""
        told = self._told.is_set() and (self.rank != 0 or self._ends.keys() == self._heard.keys())
        cause = self.verdict()
        return told and (not end.follows or (cause is not None and not cause.follows))

    def _lost(self) -> int | None:
        """Rank of a host that was not heard from for `timeout`.

        If the store itself does not answer, that is host 0, which runs it.
        """
        oldest = time.monotonic() - self.timeout
        if self.rank != 0 and 0 not in self._ends and self._answered < oldest:
            return 0
        return next((rank for rank, at in self._heard.items() if rank not in self._ends and at < oldest), None)

    def _exchange(self) -> None:
        """Write a growing number, and this host's end, again and again, and read the others'; a thread of its own."""
        keys = {rank: f"host/{rank}" for rank in self._heard}
        last: dict[int, int] = {}
        for beat in count(1):
            if self._stop.is_set():
                return
            own = self._end
            try:
                said = own and [own.code, own.message, "", own.follows]
                self.store.set(f"host/{self.rank}", json.dumps([self.names[self.rank], beat, said]))
                answers = self.store.multi_get(list(keys.values()))
            except RuntimeError:  # the connection broke: the first host is gone
                self._answered = float("-inf")
                return
            self._answered = time.monotonic()
            for rank, answer in zip(keys, answers, strict=True):
                _, its_beat, its_end = json.loads(answer)
                if its_beat != last.get(rank):
                    last[rank], self._heard[rank] = its_beat, self._answered
                if its_end:
                    self._ends = {**self._ends, rank: End(*its_end)}
            if own:
                self._told.set()
            self._stop.wait(self.interval)


def _meet(config: Config) -> tuple[TCPStore, list[str]]:
    """Open the store on the first host, wait for all, and learn their names."""
    _require_reachable_name(config)
    until = time.monotonic() + config.collective_timeout
    limit = timedelta(seconds=config.collective_timeout)
    place = f"{config.master_addr}:{config.master_port}"
    server = None
    if config.node_rank == 0:
        try:
            server = TCPStore(
                "127.0.0.1", config.master_port, None, True, limit, wait_for_workers=False, multi_tenant=True
            )
        except RuntimeError as error:
            raise MachineError(
                f"master_port = {config.master_port} cannot be opened: {_first_line(error)}. If another run holds it, "
                "give every host another --master_port"
            ) from error
    log.info("host %d of %d, meeting the others at %s", config.node_rank, config.nodes, place)
    _await_first_host(config, until)
    try:
        store = server or TCPStore(str(config.master_addr), config.master_port, None, False, limit)
        if store.add(f"claimed/{config.node_rank}", 1) > 1:
            raise ConfigError(f"node_rank = {config.node_rank}: another launcher at {place} is this host already")
        store.set(f"host/{config.node_rank}", json.dumps([socket.gethostname(), 0, None]))
        keys = [f"host/{rank}" for rank in range(config.nodes)]
        while missing := [rank for rank, key in enumerate(keys) if not store.check([key])]:
            if time.monotonic() > until:
                raise LostPeerError(
                    f"host {', '.join(map(str, missing))} of {config.nodes} did not come to {place} within "
                    f"{config.collective_timeout:g} s (collective_timeout): is its launcher running, with its own "
                    "--node_rank?"
                )
            time.sleep(0.1)
        return store, [json.loads(answer)[0] for answer in store.multi_get(keys)]
    except RuntimeError as error:
        raise LostPeerError(f"the first host, {place}, was lost at the meeting: {_first_line(error)}") from error


def _await_first_host(config: Config, until: float) -> None:
    """Return when the first host listens. By plain sockets: torch would wait deaf to Ctrl-C, and warn at each try."""
    while True:
        try:
            socket.create_connection((str(config.master_addr), config.master_port), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise LostPeerError(
                    f"host {config.node_rank} could not reach the first host, {config.master_addr}:"
                    f"{config.master_port}, within {config.collective_timeout:g} s (collective_timeout): {error}. Is "
                    "its launcher running, and its --master_addr reachable from here?"
                ) from error
        time.sleep(0.2)


def _require_reachable_name(config: Config) -> None:
    """MachineError where gloo, which tells the others the address of this host's name, would tell them a loopback."""
    if os.environ.get("GLOO_SOCKET_IFNAME") or _is_loopback(str(config.master_addr)):
        return
    if _is_loopback(socket.gethostname()):
        raise MachineError(
            f"this host's name, {socket.gethostname()}, has no address but a loopback's, where the other hosts cannot "
            "reach it: set GLOO_SOCKET_IFNAME to the network interface that they can (ip -brief address), or correct "
            "/etc/hosts"
        )


def _is_loopback(name: str) -> bool:
    """Whether a name leads to this machine's loopback alone; for an unknown name gloo takes that too."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return name == socket.gethostname()
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
