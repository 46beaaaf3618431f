"""The arguments of the verbs results, package and campaign; each function takes them and gives the exit code.

cli.py registers the verbs. What they need of the rest of the package (resolving a config, launching a run) it hands
over as functions, so that this room imports nothing above it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from ssd.errors import EXIT_REACHED, ConfigError, DataError
from ssd.mlperf.campaign import STATE, Campaign, load_state, run_campaign
from ssd.mlperf.compliance import check_package
from ssd.mlperf.package import folder_name, make_package
from ssd.mlperf.plan import Planned
from ssd.mlperf.results import as_csv, as_json, as_table, find_logs, read_result
from ssd.mlperf.rules import DEFAULT_RULESET, RESULTS, RULESETS

__all__ = ["campaign_command", "package_command", "results_command"]

_OWN_KEYS = ("seed", "output", "resume", "max_steps")
"""Keys that a campaign sets itself."""


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are a ConfigError, as everywhere else, and flags may be written with - or _."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of exiting."""
        raise ConfigError(f"{self.prog}: {message}. `--help` lists the arguments.")


def results_command(argv: Sequence[str]) -> int:
    """`results PATH...`: result logs, anybody's, as one table. Raises DataError for a path without any."""
    parser = _Parser(
        "ssd results",
        description="Read MLPerf result logs of SSD, ours or others', and print one line a run.",
        epilog="Minutes are from run_start to run_stop; images/s is the whole system's, before its first evaluation.",
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a result log, or a folder of them")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV: a header and one line a log")
    form.add_argument("--json", action="store_true", help="print JSON: a flat list, one object a log")
    given = parser.parse_args(argv)
    results = [read_result(path, name) for path, name in find_logs(given.paths)]
    if given.json:
        sys.stdout.write(as_json(results))
    elif given.csv:
        sys.stdout.write(as_csv(results))
    else:
        # A pipe has no width: a row stays on its line.
        Console(file=sys.stdout, width=None if sys.stdout.isatty() else 240).print(as_table(results))
    return EXIT_REACHED


def package_command(argv: Sequence[str]) -> int:
    """`package RUNS... --out DIR`, or `package --check DIR`: 0 when the package passes every check, else not."""
    parser = _Parser(
        "ssd package",
        description=f"Make a package of {RESULTS} runs and check it, or check one that exists.",
        epilog="Edit systems/NAME.json as you like and check again: a check only reads.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="a campaign's folder, or five folders of runs"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the new package")
    parser.add_argument("--check", type=Path, metavar="DIR", help="check this package and make none")
    parser.add_argument("--ruleset", choices=RULESETS, default=DEFAULT_RULESET, help=f"default {DEFAULT_RULESET}")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the system description, as often as you like: --field cooling=air",
    )
    parser.add_argument("--fields", type=Path, metavar="FILE", help="a JSON file of such fields")
    given = parser.parse_args(argv)
    if given.check is not None:
        if given.runs or given.out or given.field or given.fields:
            parser.error("--check DIR goes with --ruleset alone")
        folder = given.check
    else:
        if not given.runs or given.out is None:
            parser.error("give the runs and --out DIR, or --check DIR")
        folder = make_package(
            _run_folders(given.runs), given.out, fields=_fields(given.fields, given.field), ruleset=given.ruleset
        )
    report = check_package(folder, given.ruleset)
    sys.stdout.write(f"{report}\n")
    return report.exit_code


def _run_folders(paths: Sequence[Path]) -> list[Path]:
    """The runs that paths name: a campaign stands for those of its runs that count."""
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
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read as JSON: {error}") from error
        if not isinstance(fields, dict) or any(not isinstance(value, str) for value in fields.values()):
            raise DataError(f"{file}: a JSON object is wanted, whose values are all strings")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--field {pair}: write NAME=VALUE")
        fields[name] = value
    return fields


def campaign_command(
    argv: Sequence[str],
    *,
    resolve: Callable[[Sequence[str]], Planned],
    launch: Callable[[Sequence[str], Mapping[str, str]], int],
    drop_caches: Callable[[Planned], str | None],
) -> int:
    """`campaign`: its own arguments, and any key of a run's config.

    resolve: flags -> what they configure, the backbone's SHA-256 and the numbers of images in its facts.
    launch: flags, environment -> exit code of `ssd launch`, in a process of its own.
    drop_caches: the vendor's; None when done, else why not.
    """
    parser = _Parser(
        "ssd campaign",
        description="Make the runs of a result, each with a seed of its own; go on where it was interrupted.",
        epilog="Every other flag is a key of a run's config (`ssd config` lists them): --name, --config, --data_dir,"
        " --backbone_path, --submitter, --system, --division ...",
        allow_abbrev=False,
    )
    parser.add_argument("--runs", type=int, default=RESULTS, help=f"runs that must count; a package holds {RESULTS}")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="folder of the campaign; default runs/campaign-SYSTEM-NAME-CONFIG"
    )
    parser.add_argument(
        "--measure_steps", type=int, metavar="N", help="steps timed before the first run; default 3 x log_freq, 0: none"
    )
    given, flags = parser.parse_known_args(argv)
    if given.runs < 1:
        parser.error(f"--runs {given.runs}: one run or more")
    for flag in flags:
        key = flag.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if flag.startswith("--") and key in _OWN_KEYS:
            raise ConfigError(f"--{key}: a campaign sets it itself, for every run; take it out")
    planned = resolve(flags)
    config, facts = planned.config, planned.facts
    for key in ("submitter", "system"):
        if config[key] == "unknown":
            raise ConfigError(f"--{key} is missing: the result logs name the {key}")
    if config.get("nodes", 1) > 1:
        raise ConfigError(
            f"nodes = {config['nodes']}: a campaign drops caches, draws seeds and starts runs on one host alone. Start "
            f"{RESULTS} runs with run_training.sh on every host instead, and package their folders (docs/submission.md)"
        )
    default = f"campaign-{folder_name(facts.system)}-{config['name']}-{config['config']}".replace("/", "_")
    campaign = Campaign(
        folder=given.folder or Path("runs") / default,
        argv=tuple(flags),
        planned=planned,
        ruleset=str(config["ruleset"]),
        runs=given.runs,
        measure_steps=3 * int(config["log_freq"]) if given.measure_steps is None else given.measure_steps,
    )
    return run_campaign(campaign, launch=launch, drop_caches=lambda: drop_caches(planned))
