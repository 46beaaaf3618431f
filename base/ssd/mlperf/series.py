"""Makes the runs of a result one after the other, each with its own seed: `python -m ssd campaign`.

    FOLDER/campaign.json       the state: replaced as a whole before and after each run
    FOLDER/run_0, run_1, ...   the runs' folders, failed ones too
    FOLDER/result_0.txt ...    the logs of those that count, in the order they were made

A run counts when it reached the target. It also counts when it trained to its end without the target, or diverged: a
result without such runs would be better than the system. A run that was stopped from outside (killed, a lost host, a
wrong flag) does not count. Another run is made in its place, at once where that may help. The same command continues an
interrupted campaign.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ssd.errors import (
    EXIT_INTERNAL,
    EXIT_KILLED,
    EXIT_LOST_PEER,
    EXIT_MAX_STEPS,
    EXIT_NOT_CONVERGED,
    EXIT_NOT_FINITE,
    EXIT_REACHED,
    ConfigError,
    DataError,
    MachineError,
)
from ssd.mlperf.attempts import STATE, Attempt, State, load_state, save_state
from ssd.mlperf.events import CACHES_DROPPED_VARIABLE
from ssd.mlperf.expectations import Planned, plan_text
from ssd.mlperf.limits import RESULTS, forbidden_in_closed, need_ruleset, olympic_mean
from ssd.mlperf.runs import config_fingerprint, difference, fixed_keys, outcome, read_run, why_not_a_result

__all__ = ["Campaign", "Launch", "run_campaign"]

log = logging.getLogger(__name__)

Launch = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs `python -m ssd launch` with flags and environment, and returns its exit code."""

TIMED = "measure"
_RESULT_CODES = (EXIT_REACHED, EXIT_NOT_CONVERGED, EXIT_NOT_FINITE)
_FAILURES_IN_A_ROW = 2
"""The campaign stops after this many failed runs one after the other. The same command continues it."""


@dataclass(frozen=True)
class Campaign:
    """What to run. argv: the flags of each run, without seed and output. runs: how many runs must count.

    measure_steps: number of steps of a short run before the first, which tells how long the runs take. 0: none.
    """

    folder: Path
    argv: tuple[str, ...]
    planned: Planned
    ruleset: str
    runs: int = RESULTS
    measure_steps: int = 60


def run_campaign(
    campaign: Campaign,
    *,
    launch: Launch,
    drop_caches: Callable[[], str | None],
    draw_seed: Callable[[], int] = lambda: secrets.randbits(32),
    how_long: Callable[[Path | None], str] = lambda timed: "unknown",
) -> int:
    """Make the runs that are missing. Returns the exit code: 0 when all count and at most one did not converge.

    drop_caches: returns None when it dropped the machine's file caches, else the reason why it could not. how_long:
    what the runs take together, in words; it gets the folder of the timing run, or None. Raises ConfigError where the
    folder holds a campaign of another configuration or commit, and where the closed division forbids this
    configuration. Raises MachineError where another process works in the folder, and where the caches cannot be dropped
    before a closed run.
    """
    need_ruleset(campaign.ruleset)
    campaign.folder.mkdir(parents=True, exist_ok=True)
    with _alone(campaign.folder):
        state = _open_state(campaign)
        forbidden = forbidden_in_closed(campaign.planned.facts, campaign.ruleset)
        if campaign.planned.facts.division == "closed" and forbidden:
            log.info("%s", plan_text(campaign.planned, campaign.ruleset, campaign.runs, how_long(None)))
            raise ConfigError("the closed division forbids this configuration: " + "; ".join(forbidden))
        untimed = state.images_per_s is None and campaign.measure_steps and not state.counted
        if untimed and (code := _measure(campaign, state, launch)):
            return code
        failed, time = 0, how_long(campaign.folder / TIMED if state.images_per_s else None)
        log.info("%s", plan_text(campaign.planned, campaign.ruleset, campaign.runs, time))
        while len(state.counted) < campaign.runs:
            if _lost(state):
                return EXIT_NOT_CONVERGED
            code = _one_run(campaign, state, launch, drop_caches, draw_seed)
            failed = failed + 1 if code else 0
            if code and (failed == _FAILURES_IN_A_ROW or not _may_pass(code)):
                log.error("the campaign stops here; the same command goes on")
                return code
        return EXIT_NOT_CONVERGED if _lost(state) else _conclude(campaign, state)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Runs inherit it, because a run that outlives its campaign would slow the next one."""
    path = folder / "campaign.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MachineError(
                f"{folder}: another campaign works in this folder, or a run that outlived it; wait for it, end it "
                f"(`fuser {path}` names the process), or choose another folder"
            ) from error
        os.set_inheritable(file.fileno(), True)
        yield


def _open_state(campaign: Campaign) -> State:
    """The state from which the campaign continues."""
    config = json.loads(
        json.dumps(fixed_keys(campaign.planned.config) | {"commit": campaign.planned.commit}, default=str)
    )
    if not (campaign.folder / STATE).exists():
        return State(config)
    state = load_state(campaign.folder)
    if differ := sorted(key for key in config.keys() | state.config if config.get(key) != state.config.get(key)):
        changes = ", ".join(f"{key} was {state.config.get(key)} and is {config.get(key)}" for key in differ)
        raise ConfigError(
            f"{campaign.folder} holds a campaign of another configuration ({changes}); choose another folder"
        )
    for index, attempt in enumerate(state.attempts):
        if attempt.outcome == "running":
            state.attempts[index] = _left_running(campaign, state, attempt)
    for attempt in state.attempts:
        why = "counts" if attempt.outcome == "counts" else f"does not count: {attempt.reason}"
        log.info("%s (seed %d) %s", attempt.folder, attempt.seed, why)
    _keep(campaign.folder, state)
    return state


def _left_running(campaign: Campaign, state: State, attempt: Attempt) -> Attempt:
    """Judge a run whose end no campaign saw. Without summary.json the run did not end by itself: it was interrupted."""
    folder = campaign.folder / attempt.folder
    if not (folder / "summary.json").exists():
        return replace(attempt, outcome="failed", reason="interrupted")
    return _judge(campaign, state, replace(attempt, exit_code=read_run(folder).summary.get("exit_code")))


def _keep(folder: Path, state: State) -> None:
    """Save the state, and copy the logs that count to the campaign's folder."""
    for index, attempt in enumerate(state.counted):
        copied = folder / f"result_{index}.txt"
        if not copied.exists():
            shutil.copyfile(folder / attempt.folder / "result_0.txt", copied)
    save_state(folder, state)


def _measure(campaign: Campaign, state: State, launch: Launch) -> int:
    """Time a few steps in a run that does not count. Returns its exit code when it failed, else 0."""
    folder = campaign.folder / TIMED
    shutil.rmtree(folder, ignore_errors=True)
    log.info("timing, steps: %d", campaign.measure_steps)
    flags = ["--max_steps", str(campaign.measure_steps), "--output", str(folder)]
    code = launch([*campaign.argv, *flags], os.environ)
    if code not in (EXIT_MAX_STEPS, EXIT_REACHED, EXIT_NOT_CONVERGED):
        log.error("the timing run in %s failed: %s", folder, outcome(code))
        return code
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    state.images_per_s = float(summary["images_per_s"] or 0) or None
    save_state(campaign.folder, state)
    return 0


def _one_run(
    campaign: Campaign,
    state: State,
    launch: Launch,
    drop_caches: Callable[[], str | None],
    draw_seed: Callable[[], int],
) -> int:
    """Make one run and record its outcome. Returns 0, or the exit code that ends the campaign for now."""
    environment = dict(os.environ)
    environment.pop(CACHES_DROPPED_VARIABLE, None)
    if reason := drop_caches():
        if campaign.planned.facts.division == "closed":
            raise MachineError(f"a closed run starts with the machine's caches dropped: {reason}")
        log.warning("the machine's caches are not dropped: %s; the log says so", reason)
    else:
        environment[CACHES_DROPPED_VARIABLE] = "1"
    used = {attempt.seed for attempt in state.attempts}
    seed = next(seed for seed in iter(draw_seed, None) if seed not in used)
    attempt = Attempt(f"run_{len(state.attempts)}", seed)
    state.attempts.append(attempt)
    save_state(campaign.folder, state)
    folder = campaign.folder / attempt.folder
    log.info("%s: run %d of %d, seed %d", folder, len(state.counted) + 1, campaign.runs, seed)
    code = launch([*campaign.argv, "--seed", str(seed), "--output", str(folder)], environment)
    attempt = _judge(campaign, state, replace(attempt, exit_code=code))
    state.attempts[-1] = attempt
    _keep(campaign.folder, state)
    if attempt.outcome == "failed":
        log.error("%s does not count: %s", folder, attempt.reason)
        return code or DataError.exit_code
    return 0


def _may_pass(code: int) -> bool:
    """Whether the same run may well succeed at the next try: not when configuration, data or machine forbid it."""
    return code in (EXIT_INTERNAL, EXIT_LOST_PEER) or code > EXIT_KILLED


def _lost(state: State) -> bool:
    """Whether no result can come of the runs any more: one of five may fail to converge."""
    unconverged = [attempt.folder for attempt in state.counted if attempt.exit_code != EXIT_REACHED]
    lost = len(unconverged) > 1
    if lost:
        log.error("%s did not converge, and one run may: no result can come of this campaign", ", ".join(unconverged))
    return lost


def _judge(campaign: Campaign, state: State, attempt: Attempt) -> Attempt:
    """Whether a run that ended counts, by its exit code, by what it left, and by the runs before it."""
    folder, code = campaign.folder / attempt.folder, attempt.exit_code
    if code not in _RESULT_CODES:
        return replace(attempt, outcome="failed", reason=outcome(code))
    try:
        run = read_run(folder)
        first = read_run(campaign.folder / state.counted[0].folder) if state.counted else run
    except DataError as error:
        return replace(attempt, outcome="failed", reason=str(error))
    if run.fingerprint != config_fingerprint(campaign.planned.config):
        return replace(attempt, outcome="failed", reason="it ran with another configuration than the campaign's")
    reason = why_not_a_result(run)
    if not reason and (differs := difference(run, first)):
        reason = f"it and {first.folder.name} {differs}"
    return replace(attempt, outcome="failed" if reason else "counts", reason=reason or "")


def _conclude(campaign: Campaign, state: State) -> int:
    """Say what the runs came to."""
    runs = [read_run(campaign.folder / attempt.folder) for attempt in state.counted]
    times = [run.log.minutes for run in runs if run.log.status == "success"]
    log.info("minutes to train: %s", ", ".join(f"{run.log.minutes or 0:.3f} ({run.log.status})" for run in runs))
    if campaign.runs == RESULTS:
        # A run that did not converge counts as the slowest, and is dropped as such.
        padded = [time for time in times if time is not None] + [float("inf")] * (RESULTS - len(times))
        log.info("score: %.3f minutes, the mean without the fastest and the slowest", olympic_mean(padded))
        log.info("next: python -m ssd package %s --out DIR", campaign.folder)
    else:
        log.info("no package can be made of this: it holds %d runs, and they are %d", RESULTS, campaign.runs)
    return EXIT_REACHED
