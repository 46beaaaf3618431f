"""From a command line to one frozen Config: every value, and where it came from.

Precedence, weakest first: default < TOML (`extends` first) < environment < command line. The environment is first the
variables of a Slurm step (ssd.config.slurm), then the variables that keys name. A resumed run starts with the keys that
its folder keeps; the flags with which that run was started still override files and environment (ssd.config.resume).

Each source is a layer. A later layer overrides an earlier one, key by key. Two keys that exclude each other count as
one: a layer that sets one of them removes the other that an earlier layer set. Setting both in one layer is an error.

This module does not import torch, so the launcher and the verb `config` read a config without delay.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ssd.config.describe import describe_allowed, environment_name
from ssd.config.files import Layer, config_name, read_chain
from ssd.config.flags import parse_flags, refuse_unknown
from ssd.config.folders import VENDOR_PATH, vendor_folder
from ssd.config.keys import EXCLUSIVE_KEYS
from ssd.config.resume import has_checkpoint, require_same_run, saved_file
from ssd.config.rules import Config
from ssd.config.slurm import step_values
from ssd.config.vendor_keys import config_in, config_of, own_keys, whose
from ssd.errors import ConfigError
from ssd.files import write_whole
from ssd.text import shortened

__all__ = [
    "Config",
    "Resolved",
    "read_resolved",
    "require_run_keys",
    "resolve",
    "resolved_json",
    "without_resume",
    "write_resolved",
]

DEFAULT = "default"
OF_A_RESUME = ("resume", "restart", "max_restarts", "resume_from")
"""Keys that say how one command goes on with a run. The run's folder does not keep them."""
COMMAND_LINE = "command line --"
ENVIRONMENT = "environment "


@dataclass(frozen=True)
class Resolved:
    """A run's config, and for each key where its value came from: "default", a file, a variable or a flag."""

    config: Config
    provenance: dict[str, str]

    def on_command_line(self, key: str) -> bool:
        """Whether the command line has the key's flag."""
        return self.provenance[key].startswith(COMMAND_LINE)


def resolve(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Resolved:
    """The config that flags and environment ask for. With `--resume --output RUN` it is the config of that run.

    With `restart` = auto and a checkpoint in `output`, it is what `--resume` gives. Raises ConfigError, which names
    key, value, source and remedy. For a resumed run it names the keys that differ and must not.
    """
    given, rest = _parse(argv, Config.model_fields)
    path = saved_file(given)
    saved = read_resolved(path, environ) if path else None
    before = saved.config if saved else Config.model_construct()
    name, named = (given.get(key, getattr(before, key)) for key in ("name", "config"))
    folder = vendor_folder(name, environ)
    kind = config_in(folder)
    of_vendor, rest = _parse(rest, own_keys(kind))
    refuse_unknown(rest, kind.model_fields, lambda flag: whose(flag, name, environ))
    flags = Layer(COMMAND_LINE + "{key}", given | of_vendor)
    layers = _environment_layers(environ, kind)
    if not saved or {"name", "config"} & given.keys():
        layers = [*read_chain(named, folder), *layers]
    if saved:
        layers = [_without_flags_of(saved, layer) for layer in layers]
    values, provenance = _merge([*layers, flags], saved, kind)
    values["config"] = config_name(str(values["config"]))
    resolved = Resolved(_validate(values, provenance, kind), provenance)
    if saved:
        require_same_run(saved.config, resolved.config)
    config = resolved.config
    if config.restart == "auto" and not config.resume and config.output and has_checkpoint(config.output):
        resumed = resolve([*argv, "--resume"], environ)
        return replace(
            resumed, provenance={**resumed.provenance, "resume": "restart = auto, and there is a checkpoint"}
        )
    return resolved


def without_resume(resolved: Resolved) -> Resolved:
    """The keys that a resumed run goes on with, as its folder keeps them. A later resume begins with these."""
    own = {key: Config.model_fields[key].default for key in OF_A_RESUME}
    provenance = {**resolved.provenance, **dict.fromkeys(OF_A_RESUME, DEFAULT)}
    return replace(resolved, config=resolved.config.model_copy(update=own), provenance=provenance)


def require_run_keys(config: Config) -> None:
    """Raise ConfigError where data_dir, backbone_path or an optional library is missing: what a run alone needs."""
    if config.data_dir is None and config.data_backend != "synthetic":
        raise ConfigError(
            "data_dir is not set: give --data_dir D or the variable SSD_DATA_DIR, a COCO folder with annotations/, "
            "train2017/ and val2017/ (`prepare` fetches or draws one); or data_backend = synthetic."
        )
    if config.pretrained and config.backbone_path is None:
        raise ConfigError(
            "backbone_path is not set and pretrained = true: give --backbone_path P/resnet34-333f7ec4.pth or the "
            "variable SSD_BACKBONE_PATH (`prepare` fetches the file); or --no-pretrained, to train from scratch."
        )
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard = true, and the library is not installed: pip install tensorboard, or take the key out. "
            "metrics.jsonl holds the same numbers."
        )


def _parse(argv: Sequence[str], keys: Mapping[str, FieldInfo]) -> tuple[dict[str, Any], list[str]]:
    """The keys in argv with their values, and the words that belong to none of these keys."""
    if not keys:
        return {}, list(argv)
    kinds = {key: field.annotation for key, field in keys.items()}
    return parse_flags(argv, kinds, {key: describe_allowed(field) for key, field in keys.items()})


def _environment_layers(environ: Mapping[str, str], kind: type[Config]) -> list[Layer]:
    """A layer for each variable that sets a key: first those of a Slurm step, then those that keys name.

    A value is read in the same way as a flag's value. An empty variable counts as unset.
    """
    named = [(environment_name(field), key) for key, field in kind.model_fields.items()]
    found = [*step_values(environ), *((name, key, environ[name]) for name, key in named if name and environ.get(name))]
    layers = []
    for variable, key, value in found:
        try:
            layers.append(Layer(f"{ENVIRONMENT}{variable}", _parse([f"--{key}={value}"], kind.model_fields)[0]))
        except ConfigError as error:
            raise ConfigError(f"environment variable {variable}: {error}") from error
    return layers


def _without_flags_of(saved: Resolved, layer: Layer) -> Layer:
    """A file's or the environment's layer without the keys that the saved run got by flags.

    A layer of Slurm stays as it is, because it describes the hosts of this step.
    """
    if layer.source.startswith(ENVIRONMENT + "SLURM_"):
        return layer
    return Layer(layer.source, {key: value for key, value in layer.values.items() if not saved.on_command_line(key)})


def _merge(
    layers: Sequence[Layer], saved: Resolved | None, kind: type[Config]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Value and provenance of every key. It starts with the saved run's keys or the defaults; later layers override."""
    values = {key: field.default for key, field in kind.model_fields.items()}
    provenance = dict.fromkeys(values, DEFAULT)
    if saved:  # its vendor's own keys are left out where another vendor is given
        values |= {key: value for key, value in saved.config.model_dump(mode="json").items() if key in values}
        provenance |= {key: origin for key, origin in saved.provenance.items() if key in values}
    for layer in layers:
        for key, value in layer.values.items():
            values[key] = value
            provenance[key] = layer.origin(key)
        for pair in EXCLUSIVE_KEYS:
            _exclude(pair, layer, values, provenance)
    return values, provenance


def _exclude(pair: tuple[str, str], layer: Layer, values: dict[str, Any], provenance: dict[str, str]) -> None:
    """Of two keys that exclude each other, keep the one that this layer sets."""
    named = [key for key in pair if layer.values.get(key) not in (None, ())]
    if len(named) == 2:
        raise ConfigError(
            f"{' and '.join(named)} exclude each other, and both are given "
            f"({', '.join(layer.origin(key) for key in named)}). Take one out."
        )
    for key in named:
        other = pair[1 - pair.index(key)]
        values[other] = Config.model_fields[other].default
        provenance[other] = f"not used: {key} is set ({layer.origin(key)})"


def _validate(values: dict[str, Any], provenance: Mapping[str, str], kind: type[Config]) -> Config:
    """Check types strictly (a quoted number is not a number), bounds and rules.

    The values go through JSON. Only there pydantic's strict mode accepts a list for a tuple, and text for a path.
    """
    try:
        return kind.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, values, provenance, kind.model_fields))) from None


def _explain(
    error: ValidationError, values: Mapping[str, Any], provenance: Mapping[str, str], fields: Mapping[str, FieldInfo]
) -> list[str]:
    """One line for each mistake: key, value, source, what is allowed."""
    lines = []
    for mistake in error.errors():
        if mistake["type"] == "rules":
            for keys, sentence in mistake["ctx"]["broken"]:
                given = ", ".join(f"{key} = {_shown(key, values)} ({provenance[key]})" for key in keys)
                lines.append(f"{given}: {sentence}")
            continue
        if not mistake["loc"]:  # the JSON is at fault: bytes that are not text in this locale, or nested lists
            for key, value in values.items():
                if isinstance(value, list | dict) and any(isinstance(part, list | dict) for part in value):
                    lines.append(f"{key} ({provenance[key]}): takes {describe_allowed(fields[key])}.")
                elif str(value) != str(value).encode(errors="replace").decode():
                    lines.append(f"{key}: not UTF-8; rename it, or set LC_ALL=C.UTF-8.")
            continue
        key = str(mistake["loc"][0])
        reason = mistake["msg"].removeprefix("Value error, ")
        reason = reason if mistake["type"] == "value_error" else f"takes {describe_allowed(fields[key])}"
        line = f"{key} = {_shown(key, values)} ({provenance[key]}): {reason}."
        if line not in lines:
            lines.append(line)
    return lines


def _shown(key: str, values: Mapping[str, Any]) -> str:
    return "not set" if values[key] is None else shortened(json.dumps(values[key], default=str))


def write_resolved(path: Path, resolved: Resolved) -> None:
    """Write what `resolved_json` says, atomically. `read_resolved` reads the file."""
    write_whole(path, resolved_json(resolved))


def resolved_json(resolved: Resolved) -> str:
    """Values and provenance as JSON, one key a line."""
    values = resolved.config.model_dump(mode="json")
    lines = [
        f"{json.dumps(key)}: {json.dumps({'value': value, 'from': resolved.provenance[key]}, ensure_ascii=False)}"
        for key, value in values.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_resolved(path: Path, environ: Mapping[str, str] = os.environ) -> Resolved:
    """Read what `write_resolved` wrote. A key that is missing, as in a run of an older version, gets its default.

    Raises ConfigError for any other file, and for a file with a key that this version or the run's vendor does not
    have.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        values = {key: entry["value"] for key, entry in entries.items()}
        provenance = {key: str(entry["from"]) for key, entry in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a resolved config of a run: {error}") from error
    kind = config_of(str(values.get("name")), environ)
    for key in values:
        if key not in kind.model_fields:
            made = f"by another version of vendor {values.get('name')}, or its folder is not found here ({VENDOR_PATH})"
            raise ConfigError(
                f"{path}: unknown key {key!r}: the run was made {made if '.' in key else 'by another version'}."
            )
    values = {key: values.get(key, field.default) for key, field in kind.model_fields.items()}
    provenance = {key: provenance.get(key, DEFAULT) for key in values}
    return Resolved(_validate(values, provenance, kind), provenance)
