"""Damages a file at random: as bytes, as words and lines of text, and as JSON whose values and keys are changed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, MutableMapping, MutableSequence
from typing import Any

__all__ = ["HOSTILE", "damaged"]

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**70), 10**400),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "nan", "\0", "\ud800", "\x1b[2J", "../x", "/etc/passwd", "a/../../x", "$(touch x)", "'\"<b>"),
    *("x" * 300, [], {}, [[]], [None], {"": None}, {"value": {}}),
)
"""Values that a file has in no place where it is right, or in few."""
WORDS = (
    *(json.dumps(value).encode() for value in HOSTILE),
    *(
        b"",
        b"=",
        b"--",
        b"[",
        b"]]",
        b"{",
        b'"',
        b"'''",
        b"\n\n",
        b"\r",
        b",",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\x00" * 8,
    ),
    *(
        b"9" * 5000,
        b"[" * 20000,
        b'{"a":' * 20000,
        b"1e999",
        b"-nan",
        b"0x10",
        b"1_000",
        b"\xf4\x90\x80\x80",
        b"\\u0000",
    ),
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with 1 to 4 changes, of which one may be in its JSON."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice((_bits, _cut, _splice, _word, _lines, _json, _json, _json_of_a_line))(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """A place in the content. Half of them lie near an end, where files keep what they say of themselves."""
    at = rng.randint(0, len(content))
    near = rng.randint(0, min(64, len(content)))
    return rng.choice((at, at, near, len(content) - near))


def _bits(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return bytes([rng.randrange(256)])
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 16))):
        changed[min(_place(content, rng), len(content) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    one, other = sorted((_place(content, rng), _place(content, rng)))
    return rng.choice((content[:one], content[other:], content[:one] + content[other:]))


def _splice(content: bytes, rng: random.Random) -> bytes:
    one, other = sorted((_place(content, rng), _place(content, rng)))
    at = _place(content, rng)
    return content[:at] + content[one : min(other, one + 4096)] + content[at:]


def _word(content: bytes, rng: random.Random) -> bytes:
    """A word of the text replaced by a hostile one, or a hostile word put somewhere."""
    at = _place(content, rng)
    end = at
    while end < len(content) and end - at < 40 and content[end : end + 1] not in b" ,:=\n\t\"'[]{}":
        end += 1
    return content[:at] + rng.choice(WORDS) + content[rng.choice((at, end)) :]


def _lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            lines[one], lines[other] = lines[other], lines[one]
        case 1:
            lines.insert(one, lines[other])
        case _:
            del lines[one]
    return b"\n".join(lines)


def _json(content: bytes, rng: random.Random) -> bytes:
    """One value or key of a JSON file changed; other content gets a word."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _word(content, rng)
    return json.dumps(_changed(tree, rng)).encode("utf-8", "surrogatepass")


def _json_of_a_line(content: bytes, rng: random.Random) -> bytes:
    """The same within one line of a file of records, behind what stands before its first brace."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    head, brace, rest = lines[at].partition(b"{")
    if not brace:
        return _word(content, rng)
    lines[at] = head + _json(brace + rest, rng)
    return b"\n".join(lines)


def _changed(tree: Any, rng: random.Random) -> Any:
    places = list(_places(tree))
    if not places:
        return rng.choice(HOSTILE)
    holder, key = rng.choice(places)
    changes: list[Callable[[], Any]] = [
        lambda: holder.__setitem__(key, rng.choice(HOSTILE)),
        lambda: holder.__setitem__(key, rng.choice(HOSTILE)),
        lambda: holder.__delitem__(key),
        lambda: holder.__setitem__(key, [holder[key]]),
        lambda: holder.__setitem__(key, str(holder[key])),
    ]
    if isinstance(holder, MutableMapping):
        changes.append(lambda: holder.__setitem__(str(rng.choice(HOSTILE)), holder.pop(key)))
    other_holder, other = rng.choice(places)
    changes.append(lambda: holder.__setitem__(key, json.loads(json.dumps(other_holder[other]))))
    rng.choice(changes)()
    return tree


def _places(tree: Any) -> Any:
    """Each (container, key) of a tree of JSON."""
    keys: Any = ()
    if isinstance(tree, MutableMapping):
        keys = list(tree)
    elif isinstance(tree, MutableSequence):
        keys = range(len(tree))
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
