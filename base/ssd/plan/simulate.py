"""What no row has measured, on paper: an all-reduce over the network, and waiting for the slowest of many ranks.

    all-reduce = 2 log2(hosts) alpha + 2 (hosts - 1) / hosts x gradient bytes / beta     (a tree for the latency)
    slowest    = step x spread x the expected maximum of N standard normal numbers

A step computes while it communicates, so the all-reduce is what a step takes longer at most. The paper's sum is set
beside what the fit says of `hosts`, which holds both, as they were on published systems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from ssd.plan.constants import stated

__all__ = ["Machine", "all_reduce_ms", "slowest_of"]


@dataclass(frozen=True)
class Machine:
    """What a user states of hosts and network; None: the value of base/published/constants.json, or no limit.

    host_cores: of each host. storage_mb: MB/s that each host reads images with. link_gbit: Gbit/s of each host's
    network. latency_us: of one hop of an all-reduce. rank_spread: the standard deviation of ranks' step times, as a
    share of their mean.
    """

    host_cores: int | None = None
    storage_mb: float | None = None
    link_gbit: float | None = None
    latency_us: float | None = None
    rank_spread: float | None = None


def all_reduce_ms(machine: Machine, width: float, dtype_bytes: int, nodes: int) -> float:
    """Milliseconds of one all-reduce of the gradients over the hosts, by alpha and beta; 0 on one host."""
    if nodes == 1:
        return 0.0
    link = stated("link_gbit") if machine.link_gbit is None else machine.link_gbit
    hop = stated("latency_us") if machine.latency_us is None else machine.latency_us
    size = stated("parameters") * width**2 * dtype_bytes
    return 2 * math.log2(nodes) * hop / 1000 + 2 * (nodes - 1) / nodes * size / (link * 1e9 / 8) * 1000


def slowest_of(machine: Machine, ranks: int) -> float:
    """By how large a share of the step the slowest of `ranks` is expected to be late.

    The expected maximum of N normal numbers is Blom's approximation (1958), within 1% from 4 ranks on.
    """
    spread = stated("rank_spread") if machine.rank_spread is None else machine.rank_spread
    return spread * NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)) if ranks > 1 else 0.0
