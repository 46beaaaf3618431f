"""The verbs results, package and campaign. Each function takes the values of the flags and returns the exit code.

ssd.verbs.table declares the flags. A campaign must resolve a config and launch runs. ssd.verbs.campaign passes
functions for that, so that this room imports nothing above it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from ssd.config.folders import runs_folder
from ssd.console import console
from ssd.errors import EXIT_REACHED, ConfigError, DataError
from ssd.mlperf.attempts import STATE, load_state
from ssd.mlperf.expectations import Planned
from ssd.mlperf.limits import DEFAULT_RULESET, RESULTS
from ssd.mlperf.notice import NOTICE
from ssd.mlperf.package import folder_name, make_package
from ssd.mlperf.package_check import check_package
from ssd.mlperf.result_table import as_csv, as_json, as_table, short_names
from ssd.mlperf.results import find_logs, read_result
from ssd.mlperf.series import Campaign, Launch, run_campaign
from ssd.mlperf.times import account_table
from ssd.text import visible

__all__ = ["campaign_command", "package_command", "refuse_own_keys", "require_names", "results_command"]

_OWN_KEYS = ("seed", "output", "resume", "restart", "max_restarts", "resume_from", "max_steps")
"""Keys that a campaign sets itself."""


def results_command(paths: Iterable[Path], *, csv: bool = False, json: bool = False) -> int:
    """`results PATH...`: one table of result logs, of this project or of others.

    Raises DataError for a path without result logs.
    """
    if csv and json:
        raise ConfigError("--csv and --json exclude each other: take one out.")
    results = [read_result(path, name) for path, name in find_logs(list(paths))]
    if json:
        sys.stdout.write(as_json(results))
    elif csv:
        sys.stdout.write(as_csv(results))
    else:
        screen, names = console(240), short_names(results)
        screen.print(as_table(results))
        screen.print()
        screen.print(account_table([(name, vars(one)) for name, one in zip(names, results, strict=True)]))
        for name, one in zip(names, results, strict=True):
            if one.unusual:
                screen.print(f"{escape(name)}: {escape(one.unusual)}", soft_wrap=True)
        screen.print(f"Computed from result logs. {NOTICE}", soft_wrap=True)
    return EXIT_REACHED


def package_command(
    runs: Iterable[Path],
    *,
    out: Path | None = None,
    check: Path | None = None,
    ruleset: str = DEFAULT_RULESET,
    field: Sequence[str] = (),
    fields: Path | None = None,
    as_json: bool = False,
) -> int:
    """`package RUN... --out DIR`, or `package --check DIR`. Returns 0 when the package passes all checks.

    field: fields of the system description as NAME=VALUE. fields: a JSON file of such fields.
    """
    runs = list(runs)
    if check is not None:
        if runs or out or field or fields:
            raise ConfigError("--check DIR goes with --ruleset alone: take the rest out.")
        folder = check
    else:
        if not runs or out is None:
            raise ConfigError("give the runs and --out DIR, or --check DIR. `package --help` shows the command line.")
        folder = make_package(_run_folders(runs), out, fields=_fields(fields, field), ruleset=ruleset)
    report = check_package(folder, ruleset)
    text = json.dumps(report.as_record(), indent=1) if as_json else visible(str(report))
    sys.stdout.write(f"{text}\n")
    return report.exit_code


def _run_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of the runs that `paths` name. A campaign stands for those of its runs that count."""
    folders = []
    for path in paths:
        if (path / STATE).is_file():
            folders += [path / attempt.folder for attempt in load_state(path).counted]
        else:
            folders.append(path)
    return folders


def _fields(file: Path | None, pairs: Sequence[str]) -> dict[str, str]:
    """Fields of the system description from a file and from NAME=VALUE, which wins."""
    fields: dict[str, str] = {}
    if file is not None:
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{file}: cannot be read as JSON: {error}") from error
        if not isinstance(fields, dict) or any(not isinstance(value, str) for value in fields.values()):
            raise DataError(f"{file}: a JSON object is wanted, whose values are all strings")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--field {pair}: write NAME=VALUE")
        fields[name] = value
    return fields


def refuse_own_keys(flags: Sequence[str]) -> None:
    """ConfigError for a key of a run that a campaign sets itself."""
    for flag in flags:
        key = flag.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if flag.startswith("--") and key in _OWN_KEYS:
            raise ConfigError(f"--{key}: a campaign sets it itself, for every run; take it out")


def require_names(config: Mapping[str, Any]) -> None:
    """ConfigError where a campaign's config does not name who made the runs, and on what."""
    for key in ("submitter", "system"):
        if config[key] == "unknown":
            raise ConfigError(f"--{key} is missing: the result logs name the {key}")


def campaign_command(
    flags: Sequence[str],
    runs: int,
    folder: Path | None,
    measure_steps: int | None,
    *,
    resolve: Callable[[Sequence[str]], Planned],
    launch: Launch,
    drop_caches: Callable[[Planned], str | None],
    how_long: Callable[[Planned, int, Path | None], str],
) -> int:
    """`campaign`: make `runs` runs in `folder`. Returns the exit code.

    flags: keys of a run's config with their values, handed on to every run. measure_steps: steps timed before the
    first run, by default three times log_freq.

    resolve: flags -> what they configure, the backbone's SHA-256 and the numbers of images in its facts.
    drop_caches: the vendor's; None when done, else why not. how_long: what a number of runs take together, a sentence;
    it gets the folder of a short run as well, or None.
    """
    refuse_own_keys(flags)
    planned = resolve(flags)
    config, facts = planned.config, planned.facts
    require_names(config)
    if config.get("nodes", 1) > 1:
        raise ConfigError(
            f"nodes = {config['nodes']}: a campaign drops caches, draws seeds and starts runs on one host alone. Start "
            f"{RESULTS} runs with run_training.sh on every host instead, and package their folders (docs/submission.md)"
        )
    default = f"campaign-{folder_name(facts.system)}-{config['name']}-{config['config']}".replace("/", "_")
    campaign = Campaign(
        folder=folder or runs_folder() / default,
        argv=tuple(flags),
        planned=planned,
        ruleset=str(config["ruleset"]),
        runs=runs,
        measure_steps=3 * int(config["log_freq"]) if measure_steps is None else measure_steps,
    )
    return run_campaign(
        campaign,
        launch=launch,
        drop_caches=lambda: drop_caches(planned),
        how_long=lambda timed: how_long(planned, runs, timed),
    )
