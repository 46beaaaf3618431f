"""The hosts of a run: their launchers meet at a store on host 0, and watch each other until all have ended.

Processes of different hosts wait for each other in collectives. If a host vanishes, the processes of the others hang.
How long they hang, and which error they raise then, depends on the backend. So the launchers, which never compute, send
each other a heartbeat and how their part of the run ended. A host without a heartbeat for `collective_timeout` counts
as lost. A host that failed tells all others why.

The store is also the one that torchrun's agent opens at the same port: torch shares the server within a process.
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
"""The longest time, in seconds, that the launcher of a host that has ended waits to exchange ends with the others."""


@dataclass(frozen=True)
class End:
    """How a host's part of a run ended.

    code: the exit code. message: what went wrong; "" for an outcome. traceback: that of a defect, else "". follows:
    whether it may be only a consequence of another host's end. Such an end is reported where no root cause is known.
    asked: whether a signal to the launcher asked for it.
    """

    code: int
    message: str = ""
    traceback: str = ""
    follows: bool = False
    asked: bool = False


class Hosts:
    """This host among all hosts, from their meeting until the last one has ended.

    names: the host names by node_rank. Two threads share this object. The heartbeat's thread (`_exchange`) owns
    `_ends`, `_heard`, `_answered` and `_told`; the keys of `_heard` never change. The launcher's thread owns `_end` and
    `_stop`. Each write replaces one whole value.
    """

    def __init__(self, config: Config) -> None:
        """Wait until the launchers of all hosts are at the store, and start the heartbeat.

        Raises LostPeerError where some do not come within collective_timeout. Raises ConfigError where two have the
        same node_rank. Raises MachineError where the port is taken, or where other hosts cannot reach this host by its
        name.
        """
        self.rank, self.timeout = config.node_rank, config.collective_timeout
        self.interval = min(1.0, self.timeout / 10)
        self.store, self.names = _meet(config)
        now = time.monotonic()
        self._answered = now  # when the store last answered: a request hangs where the link is cut
        self._heard = {rank: now for rank in range(config.nodes) if rank != self.rank}
        self._ends: dict[int, End] = {}  # replaced as a whole, never changed: another thread iterates over it
        self._end: End | None = None
        self._told, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._exchange, daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """End the heartbeat. Returns whether its thread has ended: a request to the store hangs where the link is cut.

        Where it has not ended, leave the process by os._exit. A thread inside torch that returns after the interpreter
        has ended would abort the process.
        """
        self._stop.set()
        self._thread.join(2 * self.interval)
        return not self._thread.is_alive()

    def verdict(self) -> End | None:
        """Why this host should end too: another host failed or is lost. None while there is no reason."""
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
        """Tell the other hosts how this one ended, and wait up to LINGER seconds for their ends.

        Returns the end to report. It is `end`, or the root cause on another host if `end` is its consequence.
        """
        self._end = end
        until = time.monotonic() + LINGER
        while time.monotonic() < until and not self._settled(end):
            time.sleep(0.05)
        root = self.verdict()
        if end.follows and root and not (root.follows and end.code == EXIT_LOST_PEER):
            return root
        return end

    def _settled(self, end: End) -> bool:
        """Whether this host may leave: the others know how it ended, and the root cause of its end is known.

        Host 0 leaves last, because the store lives there.
        """
        told = self._told.is_set() and (self.rank != 0 or self._ends.keys() == self._heard.keys())
        root = self.verdict()
        return told and (not end.follows or (root is not None and not root.follows))

    def _lost(self) -> int | None:
        """The rank of a host without a heartbeat for `timeout` seconds. None where there is no such host.

        If the store itself does not answer, that is host 0, because the store lives there.
        """
        oldest = time.monotonic() - self.timeout
        if self.rank != 0 and 0 not in self._ends and self._answered < oldest:
            return 0
        return next((rank for rank, at in self._heard.items() if rank not in self._ends and at < oldest), None)

    def _exchange(self) -> None:
        """The heartbeat: write a growing number and this host's end, and read those of the others, again and again.

        It runs in a thread of its own.
        """
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
            except RuntimeError:  # the connection broke, so host 0 is gone
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
    """Open the store on host 0 and wait until all hosts are there. Returns the store and the hosts' names."""
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
    _await_host_0(config, until)
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
        raise LostPeerError(f"host 0, {place}, was lost while the hosts met: {_first_line(error)}") from error


def _await_host_0(config: Config, until: float) -> None:
    """Return when host 0 listens. Raises LostPeerError where it does not within collective_timeout.

    It tries with plain sockets, because torch ignores Ctrl-C while it waits and prints a warning at each try.
    """
    while True:
        try:
            socket.create_connection((str(config.master_addr), config.master_port), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise LostPeerError(
                    f"host {config.node_rank} could not reach host 0, {config.master_addr}:"
                    f"{config.master_port}, within {config.collective_timeout:g} s (collective_timeout): {error}. Is "
                    "its launcher running, and its --master_addr reachable from here?"
                ) from error
        time.sleep(0.2)


def _require_reachable_name(config: Config) -> None:
    """Raise MachineError where the name of this host has a loopback address only.

    Gloo tells the other hosts the address of this name, and they could not reach a loopback address.
    """
    if os.environ.get("GLOO_SOCKET_IFNAME") or _is_loopback(str(config.master_addr)):
        return
    if _is_loopback(socket.gethostname()):
        raise MachineError(
            f"this host's name, {socket.gethostname()}, has no address but a loopback's, where the other hosts cannot "
            "reach it: set GLOO_SOCKET_IFNAME to the network interface that they can (ip -brief address), or correct "
            "/etc/hosts"
        )


def _is_loopback(name: str) -> bool:
    """Whether a name has loopback addresses only. Gloo also uses the loopback where its host's name is unknown."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return name == socket.gethostname()
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
