"""Says in words what a key is and what it accepts, for messages and help texts. Everything is read from the model."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from ssd.config.keys import extra_of

__all__ = ["describe_allowed", "describe_kind", "environment_name", "unit_of"]


def unit_of(key: FieldInfo) -> str:
    """The unit of a key. "" where it has none."""
    return extra_of(key)["unit"]


def environment_name(key: FieldInfo) -> str:
    """The environment variable that may set a key. "" where there is none."""
    return extra_of(key)["env"]


def describe_kind(kind: Any) -> str:
    """A type as a command line's help shows it: `int`, `path`, `fp32|bf16|fp16`, `int int ...`."""
    if get_origin(kind) in (Union, UnionType):
        return "|".join(describe_kind(part) for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"{describe_kind(get_args(kind)[0])} " * 2 + "..."
    return {str: "text", Path: "path", bool: "true|false", float: "number", int: "int"}[kind]


def describe_allowed(key: FieldInfo) -> str:
    """What a key accepts, as text: its type and its bounds."""
    words = {annotated_types.Ge: "at least", annotated_types.Gt: "above", annotated_types.Le: "at most"}
    words[annotated_types.Lt] = "below"
    parts = [describe_kind(key.annotation)]
    for bound in key.metadata:
        for kind, word in words.items():
            if isinstance(bound, kind):
                parts.append(f"{word} {getattr(bound, kind.__name__.lower())}")
        if getattr(bound, "pattern", None):
            parts.append(f"of the form {bound.pattern}")
    return ", ".join(parts)
