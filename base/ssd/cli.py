"""The command line: one function a verb, each a few lines into the package; and what becomes of an error.

    python -m ssd --help

`main` returns the exit code (ssd.errors). torch is imported inside the verbs that need it: the others answer at once.
What a verb takes is declared in ssd.verbs.table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import ssd
from ssd.account.timeline import process_started
from ssd.config import require_run_keys, resolve
from ssd.config.verb import QUIET, read, verb_of
from ssd.console import is_quiet, set_up_logging
from ssd.errors import EXIT_KILLED, ConfigError, MachineError, as_ssd_error
from ssd.terminal import unfailing_streams
from ssd.text import visible
from ssd.verbs import given
from ssd.verbs.runnable import require_runnable, say_saved, set_variables, start_with_variables, with_output
from ssd.verbs.table import HELP, VERBS, leaves_nothing_else

__all__ = ["main", "run"]

RANK = "RANK"
"""Set by the launcher in the processes it starts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's. The exit code; messages go to standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    quiet = QUIET in words
    words = [word for word in words if word != QUIET]
    with unfailing_streams() as output:
        code = _code(words, quiet)
        if lost := output.lost():
            _say(f"error: standard output cannot be written ({lost}): what was printed there is not whole")
        return MachineError.exit_code if lost and code == 0 and leaves_nothing_else(words) else code


def _code(argv: Sequence[str], quiet: bool) -> int:
    """`run`, with its errors said; the exit code."""
    set_up_logging(quiet)
    try:
        return run(argv)
    except Exception as error:  # as_ssd_error tells which are a user's to mend; the others keep their traceback
        known = as_ssd_error(error)
        if known is None:
            raise
        _say(f"error: {visible(str(known))}")
        return known.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_KILLED + 2


def _say(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{text}\n")


def run(argv: Sequence[str]) -> int:
    """The same, but an error is raised as it is."""
    if not argv or argv[0] in HELP:
        from ssd.config.help import show_usage

        show_usage({name: verb.summary for name, verb in VERBS.items()})
        return 0 if argv else ConfigError.exit_code
    if argv[0] == "--version":
        sys.stdout.write(f"ssd {ssd.__version__}\n")
        return 0
    name = verb_of(argv, VERBS)
    rest = list(argv[len(name.split()) :])
    try:
        Path.cwd()
    except FileNotFoundError as error:  # some builds of torch end the process when they are imported there
        raise ConfigError("the folder that this command was given in has been removed: go to another.") from error
    if any(token in HELP for token in rest):
        from ssd.config.help import show_verb

        show_verb(name, VERBS[name], [word for word in rest if word not in HELP])
        return 0
    return RUN[name](*read(VERBS[name], rest))


# Verbs that run


def _train(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.launch.worker import run_as_worker

    config = None

    def work() -> int:
        nonlocal config
        resolved = resolve(argv)
        if RANK not in os.environ:  # else the launcher has looked already, and 8 workers would find its memory taken
            require_runnable(resolved)
        resolved = with_output(resolved)
        config = resolved.config
        from ssd.train import train

        return train(resolved, process_started())

    code = run_as_worker(work)
    if config is not None and os.environ.get(RANK, "0") == "0":
        say_saved(config, code)
    return code


def _launch(argv: list[str], own: dict[str, Any]) -> int:
    resolved = with_output(resolve(argv))
    set_variables(resolved.config, argv)
    require_runnable(resolved)
    from ssd.launch.processes import launch_workers

    worker = [sys.executable, "-m", "ssd", "train", *argv, "--output", str(resolved.config.output)]
    worker += [QUIET] if is_quiet() else []
    code = launch_workers(resolved.config, worker)
    say_saved(resolved.config, code)
    return code


def _evaluate(argv: list[str], own: dict[str, Any]) -> int:
    resolved = resolve(argv)
    given.require_checkpoint(own["checkpoint"])
    if resolved.on_command_line("data_dir"):
        given.require_data_dir(resolved.config)
    from ssd.verbs.evaluate import evaluate_command

    return evaluate_command(resolved, own["checkpoint"], as_json=own["json"])


def _detect(argv: list[str], own: dict[str, Any]) -> int:
    given.require_checkpoint(own["checkpoint"])
    given.require_some(own["images"])
    if own["name"]:
        given.require_vendor(own["name"], None)
    from ssd.verbs.detect import detect_command

    return detect_command(as_json=own.pop("json"), **own)


def _compare(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.verbs.compare import compare_command

    return compare_command(argv, **own)


def _profile(argv: list[str], own: dict[str, Any]) -> int:
    resolved = resolve(argv)
    require_run_keys(resolved.config)
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else torch's profiler writes of devices that are not here
    from ssd.verbs.profile import profile_command

    return profile_command(with_output(resolved), as_json=own.pop("json"), **own)


def _bench(argv: list[str], own: dict[str, Any]) -> int:
    resolved = resolve(argv)
    given.require_data_dir(resolved.config)
    start_with_variables(resolved.config.name, "bench", argv, own)
    from ssd.verbs.bench import bench_command

    return bench_command(resolved, argv, json_wanted=own.pop("json"), **own)


# Verbs that prepare and look


def _prepare(argv: list[str], own: dict[str, Any]) -> int:
    resolved = resolve(argv)
    given.require_from_dir(own["from_dir"])
    from ssd.prepare.steps import DEMO, prepare
    from ssd.vendor import load_vendor

    if resolved.config.data_dir is None and load_vendor(resolved.config.name).device_type == "cpu":
        resolved = resolve([*argv, "--config", DEMO])  # a CPU trains the demo: the set it reads is drawn
    return prepare(resolved, **own)


def _report(argv: list[Path], own: dict[str, Any]) -> int:
    from ssd.verbs.report import report_command

    return report_command(*argv, **own)


def _check(argv: list[str], own: dict[str, Any]) -> int:
    resolved = resolve(argv)
    from ssd.verbs.check import preflight

    return preflight(with_output(resolved), as_json=own["json"])


def _config(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.config.help import show_config

    show_config(resolve(argv), as_json=own["json"])
    return 0


def _vendors(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.config.help import show_vendors

    show_vendors(as_json=own["json"])
    return 0


def _vendors_new(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.vendor.scaffold import new_command

    return new_command(argv[0], own["folder"])


def _vendors_check(argv: list[str], own: dict[str, Any]) -> int:
    given.require_vendor(argv[0], own["config"])
    from ssd.conformance import check_command

    return check_command(*argv, as_json=own.pop("json"), **own)


def _plan(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.plan.arguments import require_plan

    resolved = resolve(argv)
    require_plan(own, resolved.config.nodes)
    validate, rows, as_json = own.pop("validate"), own.pop("rows"), own.pop("json")
    from ssd.plan.command import plan_command, validate_command

    if validate:
        return validate_command(rows, as_json=as_json)
    if own.pop("measure"):
        from ssd.verbs.measure import measure

        own["measured"] = (measure(resolved, argv),)
    from ssd.plan.simulate import Machine

    stated = {field.name: own.pop(field.name) for field in fields(Machine)}
    return plan_command(resolved.config, as_json=as_json, page_file=own.pop("page"), machine=Machine(**stated), **own)


def _completion(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.verbs.completion import completion_command

    return completion_command(argv[0], VERBS)


# Verbs of a submission


def _campaign(argv: list[str], own: dict[str, Any]) -> int:
    given.require_campaign(argv)
    from ssd.verbs.campaign import campaign

    return campaign(argv, **own)


def _package(argv: list[Path], own: dict[str, Any]) -> int:
    from ssd.mlperf.commands import package_command

    return package_command(argv, as_json=own.pop("json"), **own)


def _results(argv: list[Path], own: dict[str, Any]) -> int:
    from ssd.mlperf.commands import results_command

    return results_command(argv, **own)


RUN: dict[str, Callable[[list[Any], dict[str, Any]], int]] = {
    "prepare": _prepare,
    "train": _train,
    "launch": _launch,
    "evaluate": _evaluate,
    "detect": _detect,
    "compare": _compare,
    "profile": _profile,
    "bench": _bench,
    "report": _report,
    "check": _check,
    "plan": _plan,
    "config": _config,
    "vendors": _vendors,
    "vendors new": _vendors_new,
    "vendors check": _vendors_check,
    "completion": _completion,
    "campaign": _campaign,
    "package": _package,
    "results": _results,
}
"""The function of each verb. It gets keys of a run as words, or plain words; and the values of the verb's flags."""
