"""Run the cases of a vendor's overrides by each means, stand-ins in processes of their own, and collect the rows.

Which cases are run is a `Plan`: the fixed ones, those of each batch, those drawn from a seed, and 200 calls of one.

A stand-in often changes a process for good (an emulator is chosen when its library is imported), so every op and means
but the hardware is run by a child: `python -m ssd.conformance`, two at a time. A child divides its cases between two
processes.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd.compute.device import Abilities
from ssd.config import resolve
from ssd.config.files import config_files
from ssd.config.folders import VENDOR_PATH
from ssd.config.nearest import did_you_mean
from ssd.conformance.case import Case
from ssd.conformance.cases import batch_cases, cases_of, random_cases, repeated_case, timed_case
from ssd.conformance.compare import Mismatch, Outcome, compare, outputs, tensors_of, to_device
from ssd.conformance.forks import forked
from ssd.conformance.inputs import altered, each_tensor
from ssd.conformance.reference import calls_of_reference
from ssd.conformance.rows import COMPILED_ONLY, EMULATOR, HARDWARE, Row, failed, in_words
from ssd.conformance.state import exchanged, functions
from ssd.conformance.trial import repeated, trial, unguarded
from ssd.errors import ConfigError
from ssd.ops import OP_NAMES, REFERENCE
from ssd.vendor import Override, Vendor
from ssd.vendor.overrides import RACES_CHECKED

__all__ = ["Plan", "run_conformance", "run_here"]

log = logging.getLogger(__name__)

CHILDREN = 2
"""Stand-ins at a time: the suite's promise is ten minutes on two cores."""
FORKS = 2
"""Processes that share the cases of one stand-in."""
CHILD_SECONDS = 600.0
"""Longest that one op may take by one means."""
TIMED_RUNS, WARM_UP_RUNS = 20, 3
REPEATS = 200
REPEATED = f"same bits in {REPEATS} calls"
ONE_CALL_ABOVE = 33
"""Batches above it are called once and not three times: what they show is a fault of size, and emulators are slow."""

Try = Callable[[Case, Callable[..., Any], torch.device], Outcome]
"""How a case is tried: a function of `ssd.conformance.trial`, or `compare`."""


@dataclass(frozen=True)
class Plan:
    """Which cases are run. seed: of the random cases. quick: only the few marked so. case: only the one so called."""

    seed: int = 0
    quick: bool = False
    case: str | None = None

    def flags(self) -> list[str]:
        """The command line of `python -m ssd.conformance` that means this plan."""
        flags = ["--seed", str(self.seed)] + ["--quick"] * self.quick
        return flags + (["--case", self.case] if self.case else [])

    def tries(self, op: str, largest: int, hardware: bool) -> list[tuple[Case, Try]]:
        """The cases of an op and how each is tried. largest: the largest batch of the vendor's configs.

        Without the hardware, batches are bounded and images are small: see `batch_cases`.
        """
        fixed = [(case, trial) for case in cases_of(op) if case.quick or not self.quick]
        tries: list[tuple[Case, Try]] = [*fixed]
        if not self.quick:
            for case in batch_cases(op, largest, hardware):
                once = not hardware and len(case.make()[0]) > ONE_CALL_ABOVE
                tries.append((case, compare if once else trial))
            tries += [(case, trial) for case in random_cases(op, self.seed)]
            tries.append((replace(repeated_case(op, hardware), name=REPEATED), partial(repeated, times=REPEATS)))
        return [(case, way) for case, way in tries if self.case in (None, case.name)]


def run_conformance(
    vendor: Vendor,
    ops: Sequence[str] | None = None,
    means: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    plan: Plan = Plan(),
) -> list[Row]:
    """Rows of every override of a vendor, of `ops` and called one of `names` where given.

    means: None tries the hardware, and where it is absent every stand-in the override has; what was asked for and
    cannot be done here becomes a row "not run". ConfigError where nothing is left to try of what was asked for, and for
    a case that no op has.
    """
    overrides = _chosen(vendor, ops, names)
    _require_case(vendor, plan, {override.op for override in overrides})
    rows: list[Row] = []
    jobs: list[tuple[Override, str]] = []
    for override in overrides:
        has = list(override.means())
        wanted = means or ([HARDWARE] if HARDWARE in has else [*has, HARDWARE])
        jobs += [(override, one) for one in wanted if one in has]
        rows += [_not_run(override, one, has) for one in wanted if one not in has]
    # An emulator takes as long as the rest together, so it starts first.
    children = sorted((job for job in jobs if job[1] != HARDWARE), key=lambda job: job[1] != EMULATOR)
    with ThreadPoolExecutor(CHILDREN) as pool:
        results = list(pool.map(partial(_run_child, vendor, plan), children))
    for override, one in jobs:
        if one == HARDWARE:
            results.append(run_here(vendor, override, one, plan))
    rows += [row for result in results for row in result]
    return sorted(rows, key=lambda row: (OP_NAMES.index(row.op), row.override, row.means == HARDWARE, row.ok is None))


def _chosen(vendor: Vendor, ops: Sequence[str] | None, names: Sequence[str] | None) -> list[Override]:
    """The overrides that were asked for."""
    for op in ops or ():
        if op not in OP_NAMES:
            raise ConfigError(f"no op is called {op!r}. There are: {', '.join(OP_NAMES)}.")
    everything = list(vendor.overrides())
    chosen = [o for o in everything if (not ops or o.op in ops) and (not names or o.name in names)]
    if everything and not chosen:
        known = ", ".join(f"{o.op}_op = {o.name}" for o in everything)
        raise ConfigError(f"vendor {vendor.name} overrides none of what was asked for. It has: {known}.")
    return chosen


def _not_run(override: Override, means: str, has: Sequence[str]) -> Row:
    note = f"this machine has: {', '.join(has) or 'no means to run it'}"
    return Row(override.op, override.name, "all", means, None, note=note)


def _run_child(vendor: Vendor, plan: Plan, job: tuple[Override, str]) -> list[Row]:
    """Rows of one override by one means, run in a process of its own; a process that fails is a row that fails."""
    override, means = job
    command = [sys.executable, "-m", "ssd.conformance", vendor.name, override.op, override.name, means]
    environ = dict(os.environ)
    parents = [p for p in environ.get(VENDOR_PATH, "").split(os.pathsep) if p]
    environ[VENDOR_PATH] = os.pathsep.join(str(Path(p).expanduser().resolve()) for p in parents)
    # From base/, so that the package is found and the repository's root, with its folder `nvidia`, is not on sys.path.
    base = Path(__file__).resolve().parents[2]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command + plan.flags(), cwd=base, env=environ, capture_output=True, text=True, timeout=CHILD_SECONDS
        )
    except subprocess.TimeoutExpired:
        return [_failed(override, means, f"not finished after {CHILD_SECONDS:.0f} s")]
    log.info("%s %s by %s: %.0f s", override.op, override.name, means, time.perf_counter() - start)
    if done.returncode != 0:
        return [_failed(override, means, f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")]
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def _failed(override: Override, means: str, note: str, case: str = "all") -> Row:
    return failed(override.op, override.name, means, note, case)


def run_here(vendor: Vendor, override: Override, means: str, plan: Plan, processes: int = 1) -> list[Row]:
    """Rows of one override by one means. What an override raises becomes a row that fails.

    processes: how many share the cases; 1 is this one alone, as the hardware must be.
    """
    device = torch.device(vendor.device_type if means == HARDWARE else "cpu")
    before = functions()
    try:
        function: Callable[..., Any] = override.load(means)
        if means == COMPILED_ONLY:
            return [Row(override.op, override.name, what, means, True) for what in function()]
    except Exception as error:  # a compiler's errors have no common class
        return [_failed(override, means, in_words(error))]
    if others := exchanged(before):
        return [_failed(override, means, f"loading the override exchanged {', '.join(others)}")]
    tries = plan.tries(override.op, _largest_batch(vendor), means == HARDWARE)
    if means == RACES_CHECKED:
        tries = [(case, unguarded) for case, _ in tries if case.name != REPEATED]

    def row(number: int) -> Row:
        case, way = tries[number]
        return _run_case(override, means, case, function, device, way)

    if processes == 1:
        rows = [row(number) for number in range(len(tries))]
    else:
        ended = "the override ended its process"
        found = zip(forked(row, len(tries), processes), tries, strict=True)
        rows = [one or _failed(override, means, ended, case.name) for one, (case, _) in found]
    timed = timed_case(override.op)
    if means == HARDWARE and not plan.quick and plan.case in (None, timed.name):
        rows.append(_time_case(override, means, timed, function, device))
    return rows


def _largest_batch(vendor: Vendor) -> int:
    """The largest train_batch_size of all of the vendor's own configs, whichever is asked for; 1 where it has none."""
    names = config_files(vendor.folder / "config")
    flags = ["--master_addr", "localhost"]  # a config for several hosts asks for one; it changes no batch
    configs = [resolve(["--name", vendor.name, "--config", name, *flags]).config for name in names]
    return max((config.train_batch_size for config in configs), default=1)


def _require_case(vendor: Vendor, plan: Plan, ops: set[str]) -> None:
    """ConfigError for a case that none of the ops has; the message names the nearest one."""
    if plan.case is None:
        return
    every = replace(plan, case=None)
    known = [
        case.name for op in sorted(ops) for hardware in (False, True)
        for case, _ in every.tries(op, _largest_batch(vendor), hardware)
    ]  # fmt: skip
    known += [timed_case(op).name for op in ops]
    if plan.case not in known:
        raise ConfigError(
            f"no case is called {plan.case!r}.{did_you_mean(plan.case, known)} Random cases depend on --seed: the "
            "table of `vendors check` shows every name."
        )


def _run_case(
    override: Override, means: str, case: Case, function: Callable[..., Any], device: torch.device, way: Try = trial
) -> Row:
    """One case's row."""
    before = functions()
    try:
        with calls_of_reference(case.op) as calls:
            outcome = way(case, function, device)
        if others := exchanged(before):
            raise Mismatch(f"the override exchanged {', '.join(others)}")
    except Mismatch as mismatch:
        return _failed(override, means, str(mismatch), case.name)
    except Exception as error:  # whatever a kernel does, the other cases are still worth knowing
        return _failed(override, means, in_words(error), case.name)
    note = f"{outcome.output}; this override calls the reference op itself" if calls else outcome.output
    return Row(override.op, override.name, case.name, means, outcome.ok, outcome.error, outcome.tolerance, note=note)


def _time_case(override: Override, means: str, case: Case, function: Callable[..., Any], device: torch.device) -> Row:
    """A row that compares on a real batch, and times the override and the reference on the device."""
    row = _run_case(override, means, case, function, device)
    if not row.ok:
        return row
    seconds = [_seconds(case, run, device) for run in (function, getattr(REFERENCE, case.op))]
    return Row(**asdict(row) | {"seconds": seconds[0], "reference_seconds": seconds[1]})


def _seconds(case: Case, function: Callable[..., Any], device: torch.device) -> float:
    """Median time of a call, its work on the device included.

    Two sets of values lie in the same memory in turn: a result that was kept from an earlier call is of no use.
    """
    synchronize = Abilities(device).synchronize
    values = [to_device(one, device) for one in (case.make(), altered(case.op, case.make()))]
    inputs = each_tensor(to_device(case.make(), device), Tensor.clone)  # not the table of default boxes itself
    times = []
    for number in range(WARM_UP_RUNS + TIMED_RUNS):
        for mine, new in zip(tensors_of(inputs), tensors_of(values[number % 2]), strict=True):
            mine.data.copy_(new)
        synchronize()
        start = time.perf_counter()
        outputs(case, function, inputs)
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP_RUNS:])
