"""A hash of code, by which a kept page knows that what it was made from has changed."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["KERNELS", "code_digest"]

KERNELS = tuple(
    Path(__file__).parent / f"{name}.py" for name in ("augment", "encode", "loss", "detect", "crop", "select")
)
"""The files of the kernels and of how they are launched."""


def code_digest(files: Iterable[Path]) -> str:
    """16 hexadecimal digits of the files' Python code. Comments, docstrings and layout do not change them."""
    return hashlib.sha256("".join(map(_bare, files)).encode()).hexdigest()[:16]


def _bare(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
            setattr(node, "body", kept)  # noqa: B010  each kind of node has its own attribute
    return ast.dump(tree)
