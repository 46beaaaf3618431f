"""What a mutant of a Python module is: one small change after which the program can still be run.

It is a changed operator, a condition that becomes its opposite, another truth value, or a statement that is left out:
the kinds that PIT makes by itself. Left alone are annotations, decorators, texts, paths, logging, OPTIONS, moments of
a clock, waits, and, as in PIT, numbers: most are choices, which a test could only repeat.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

OPTIONS = {"strict", "exist_ok", "missing_ok", "parents", "non_blocking", "flush", "daemon", "ensure_ascii", "frozen"}
OPTIONS |= {"highlight"}
"""Arguments of libraries that act only where something else is wrong already, not on a CPU, or on colours alone."""
CLOCKS = ("time.monotonic()", "time.perf_counter()", "time.time()")
"""No test can tell whether a moment counts as before or after itself."""
WAITS = ("time.sleep", "synchronize")
"""Without one of these calls the same happens sooner; on a CPU `synchronize` has nothing to wait for."""

PAIRS = "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, FloorDiv Mod, BitAnd BitOr, UAdd USub"
SWAPS = {one: other for pair in PAIRS.split(", ") for one, other in (pair.split(), pair.split()[::-1])}


def is_text(node: ast.expr) -> bool:
    """Whether a node is a text that stands there; what is added to it or divided by it is a text or a path."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def left_alone(tree: ast.Module) -> set[ast.AST]:
    """Nodes that no mutant changes."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", 0), getattr(node, "returns", 0), *getattr(node, "decorator_list", [])]
        if isinstance(node, ast.Call | ast.If):
            parts += [node] * ast.unparse(node).startswith(("log.", "if TYPE_CHECKING", "if __name__"))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(WAITS):
            parts.append(node)
        if isinstance(node, ast.Compare) and any(clock in ast.unparse(node) for clock in CLOCKS):
            found.add(node)
        if isinstance(node, ast.keyword) and node.arg in OPTIONS:
            parts.append(node)
        if isinstance(node, ast.BinOp) and any(is_text(part) for part in (node.left, node.right)):
            found.add(node)
        found |= {inner for part in parts if part for inner in ast.walk(part)}
    return found


def may_be_left_out(statement: ast.stmt, skipped: set[ast.AST]) -> bool:
    """Whether a statement does something, and the program without it can still be run."""
    if isinstance(statement, ast.Assign):
        return not isinstance(statement.targets[0], ast.Name | ast.Tuple)
    call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and statement.value not in skipped
    given = isinstance(statement, ast.Return) and statement.value is not None and ast.unparse(statement.value) != "None"
    return call or given or isinstance(statement, ast.Raise | ast.AugAssign | ast.Continue | ast.Break)


def mutations(tree: ast.Module) -> Iterator[tuple[ast.AST, str, ast.AST, str, object]]:
    """What to show: a node, and its change in words. What to do: a node, its field, and the field's new value."""
    skipped = left_alone(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        ops = node.ops if isinstance(node, ast.Compare) else [getattr(node, "op", None)]
        for place, name in enumerate(type(op).__name__ for op in ops):
            if name in SWAPS:
                new = [*ops[:place], getattr(ast, SWAPS[name])(), *ops[place + 1 :]]
                field, value = ("ops", new) if isinstance(node, ast.Compare) else ("op", new[0])
                yield node, f"{name} becomes {SWAPS[name]}", node, field, value
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            yield node.test, "becomes its opposite", node, "test", ast.UnaryOp(ast.Not(), node.test)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield node, f"becomes {not node.value}", node, "value", not node.value
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            for place, inner in enumerate(body if isinstance(body, list) else []):
                if may_be_left_out(inner, skipped):
                    yield inner, "is left out", node, name, [*body[:place], ast.Pass(), *body[place + 1 :]]


def mutant(text: str, number: int) -> tuple[str, str]:
    """What a mutant of a source is, line and change in words, and the mutant's source."""
    tree = ast.parse(text)
    shown, words, node, field, value = list(mutations(tree))[number]
    said = f"{shown.lineno}: {ast.unparse(shown).splitlines()[0]}: {words}"
    setattr(node, field, value)
    return said, ast.unparse(ast.fix_missing_locations(tree))
