"""The command line: one function a verb, each a few lines into the package; and what becomes of an error.

    python -m ssd --help

`main` returns the exit code (ssd.errors). torch is imported inside the verbs that need it: the others answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssd.config import Resolved, require_run_keys, resolve
from ssd.config.describe import describe_kind
from ssd.config.flags import parse_flags, refuse_unknown
from ssd.config.nearest import did_you_mean
from ssd.errors import EXIT_KILLED, ConfigError, SsdError, as_ssd_error
from ssd.text import visible

__all__ = ["main"]

HELP = ("-h", "--help")
RANK = "RANK"
"""Set by the launcher in the processes it starts."""


@dataclass(frozen=True)
class Flag:
    """A flag of one verb: its type as tyro takes it, and what it means."""

    kind: Any
    meaning: str


@dataclass(frozen=True)
class Verb:
    """summary: for the list of verbs. run: gets the words of the run's keys, and the values of the verb's own flags."""

    summary: str
    run: Callable[[list[str], dict[str, Any]], int]
    flags: dict[str, Flag] = field(default_factory=dict)
    takes_keys: bool = True
    parses_itself: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's. The exit code; messages go to standard error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except (SsdError, OSError) as error:
        known = as_ssd_error(error)
        if known is None:
            raise
        sys.stderr.write(f"error: {visible(str(known))}\n")
        return known.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_KILLED + 2


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in HELP:
        from ssd.config.help import show_usage

        show_usage({name: verb.summary for name, verb in VERBS.items()})
        return 0 if argv else ConfigError.exit_code
    name, rest = argv[0], argv[1:]
    if name not in VERBS:
        raise ConfigError(f"no verb is called {name!r}.{did_you_mean(name, VERBS)} Verbs: {', '.join(VERBS)}.")
    verb = VERBS[name]
    if verb.parses_itself:
        return verb.run(rest, {})
    if any(token in HELP for token in rest):
        return _show_help(name, verb)
    values, rest = _own_flags(verb, rest)
    if not verb.takes_keys:
        refuse_unknown(rest, verb.flags)
    return verb.run(rest, values)


def _own_flags(verb: Verb, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The flags that are the verb's own, and the words left for the keys of the run."""
    if not verb.flags:
        return {}, argv
    kinds = {name: flag.kind for name, flag in verb.flags.items()}
    return parse_flags(argv, kinds, {name: describe_kind(kind) for name, kind in kinds.items()})


def _show_help(name: str, verb: Verb) -> int:
    from ssd.config.help import show_keys, show_verb

    show_verb(name, verb.summary, {flag: one.meaning for flag, one in verb.flags.items()})
    if verb.takes_keys:
        show_keys()
    return 0


# Verbs that run


def _train(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.launch.worker import run_as_worker

    def work() -> int:
        resolved = resolve(argv)
        if RANK not in os.environ:  # else the launcher has looked already, and 8 workers would find its memory taken
            _require_runnable(resolved)
        from ssd.train import train

        return train(_with_output(resolved))

    return run_as_worker(work)


def _launch(argv: list[str], own: dict[str, Any]) -> int:
    resolved = _with_output(resolve(argv))
    _require_runnable(resolved)
    from ssd.launch.launcher import launch_workers

    worker = [sys.executable, "-m", "ssd", "train", *argv, "--output", str(resolved.config.output)]
    return launch_workers(resolved.config, worker)


def _require_runnable(resolved: Resolved) -> None:
    """Raise, before anything slow, for what a run lacks: keys first, then the machine."""
    require_run_keys(resolved.config)
    from ssd.vendor import load_vendor, require_machine

    require_machine(load_vendor(resolved.config.name), resolved)


def _with_output(resolved: Resolved) -> Resolved:
    """The run's folder, named by date where the user names none."""
    config = resolved.config
    if config.output is not None:
        return resolved
    folder = Path("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{config.name}-{config.config}").absolute()
    provenance = {**resolved.provenance, "output": "named by date"}
    return replace(resolved, config=config.model_copy(update={"output": folder}), provenance=provenance)


def _evaluate(argv: list[str], own: dict[str, Any]) -> int:
    checkpoint = _required(own, "checkpoint")
    resolved = resolve(argv)
    from ssd.verbs.trained import evaluate_command

    return evaluate_command(resolved, checkpoint)


def _detect(argv: list[str], own: dict[str, Any]) -> int:
    checkpoint, images = _required(own, "checkpoint"), _required(own, "images")
    from ssd.verbs.trained import detect_command

    return detect_command(checkpoint, images, own.get("output", Path("detections")), own.get("score", 0.3))


def _required(own: dict[str, Any], flag: str) -> Any:
    if not own.get(flag):
        raise ConfigError(f"--{flag} is missing.")
    return own[flag]


# Verbs that prepare and look


def _prepare(argv: list[str], own: dict[str, Any]) -> int:
    resolved = resolve(argv)
    from ssd.prepare.steps import DEMO, prepare
    from ssd.vendor import load_vendor

    if resolved.config.data_dir is None and load_vendor(resolved.config.name).device_type == "cpu":
        resolved = resolve([*argv, "--config", DEMO])  # a CPU trains the demo: the set it reads is drawn
    return prepare(resolved, own.get("from_dir"), own.get("decode_all", False), own.get("extensions_only", False))


def _check(argv: list[str], own: dict[str, Any]) -> int:
    resolved = resolve(argv)
    from ssd.verbs.check import preflight

    return preflight(_with_output(resolved))


def _config(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.config.help import show_config

    show_config(resolve(argv))
    return 0


def _vendors(argv: list[str], own: dict[str, Any]) -> int:
    """`vendors` lists them; `vendors new NAME` makes one; `vendors check NAME` holds its overrides to the reference."""
    if argv and (argv[0] in HELP or (argv[0] == "new" and any(token in HELP for token in argv))):
        return _show_help("vendors", VERBS["vendors"])
    if not argv:
        from ssd.config.help import show_vendors

        show_vendors()
        return 0
    if argv[0] == "new":
        from ssd.vendor.scaffold import new_command

        return new_command(argv[1:])
    if argv[0] == "check":
        from ssd.conformance import check_command

        return check_command(argv[1:])
    raise ConfigError(f"vendors {argv[0]}: say `vendors` alone, `vendors new NAME`, or `vendors check NAME`.")


def _plan(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.plan.command import plan_command, validate_command

    if own.get("validate"):
        return validate_command(own.get("rows"))
    if "rows" in own:
        raise ConfigError("--rows FILE goes with --validate.")
    return plan_command(
        resolve(argv).config,
        own.get("accelerators", "1,8,64"),
        accelerator=own.get("accelerator"),
        measured=own.get("measured", ()),
        target_minutes=own.get("target_minutes"),
        host_cores=own.get("host_cores"),
        as_json=own.get("json", False),
        page_file=own.get("page"),
    )


# Verbs of a submission


def _campaign(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.verbs.campaign import campaign

    return campaign(argv)


def _package(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.mlperf.commands import package_command

    return package_command(argv)


def _results(argv: list[str], own: dict[str, Any]) -> int:
    from ssd.mlperf.commands import results_command

    return results_command(argv)


CHECKPOINT = Flag(Path, "the checkpoint file")
VERBS = {
    "prepare": Verb(
        "fetch or draw data and check it, fetch the backbone, build the vendor's extensions",
        _prepare,
        {
            "from_dir": Flag(Path, "folder with COCO's archives and the backbone, for a machine without a network"),
            "decode_all": Flag(bool, "decode every image, where otherwise only the ends of its file are looked at"),
            "extensions_only": Flag(bool, "build the extensions and nothing else (for a container's image)"),
        },
    ),
    "train": Verb("train in this process (run_training.sh starts one a device)", _train),
    "launch": Verb("train with nproc_per_node processes on this host: what run_training.sh calls", _launch),
    "evaluate": Verb("evaluate a checkpoint on a COCO folder", _evaluate, {"checkpoint": CHECKPOINT}),
    "detect": Verb(
        "draw a checkpoint's detections on images",
        _detect,
        {
            "checkpoint": CHECKPOINT,
            "images": Flag(tuple[Path, ...], "image files, or folders of them"),
            "output": Flag(Path, "folder of the pictures (default detections)"),
            "score": Flag(float, "least score of a detection that is drawn (default 0.3)"),
        },
        takes_keys=False,
    ),
    "check": Verb("say what is known before a run, and how much it will do", _check),
    "plan": Verb(
        "predict the time to mAP 0.23 on any number of accelerators; `plan --validate`: how far off that is",
        _plan,
        {
            "accelerators": Flag(str, "numbers of accelerators, separated by commas (default 1,8,64)"),
            "accelerator": Flag(str, "their name, such as 'A100-SXM4-80GB (400W)' (default: this machine's)"),
            "measured": Flag(tuple[Path, ...], "folders of your own runs, which win over published rows"),
            "target_minutes": Flag(float, "also find the fewest accelerators that meet this time"),
            "host_cores": Flag(int, "cores of each host: a step is no faster than they can feed it"),
            "json": Flag(bool, "print JSON"),
            "page": Flag(Path, "write an HTML page with the curve to this file"),
            "validate": Flag(bool, "predict published systems, each without its submitter's rows; print the errors"),
            "rows": Flag(Path, "a CSV file of other systems for --validate (columns: docs/plan.md)"),
        },
    ),
    "config": Verb("print each key's value and where it came from", _config),
    "vendors": Verb(
        "list the vendors found; `vendors new NAME`: make one; `vendors check NAME`: hold its kernels to the reference",
        _vendors,
        takes_keys=False,
        parses_itself=True,
    ),
    "campaign": Verb("make the runs of a result, each with a seed of its own", _campaign, parses_itself=True),
    "package": Verb("make a submission package from runs, or check one", _package, parses_itself=True),
    "results": Verb("read result logs, anybody's, as one table", _results, parses_itself=True),
}
