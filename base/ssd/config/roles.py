"""Lists of keys that are derived from the keys' roles, so that a new key is in the right lists.

role      a resumed run may change it    runs of one result may differ in it    logged at the start of a run
place     yes                            yes                                    no
pace      yes                            yes                                    no
compute   no                             no                                     yes
rule      only the run's length          no                                     no
"""

from __future__ import annotations

from typing import Any

from ssd.config.keys import COMPUTE, PACE, PLACE, Keys, Role, extra_of

__all__ = [
    "CLOSED_VALUES",
    "COMPUTE_KEYS",
    "PLACE_KEYS",
    "VARYING_KEYS",
    "keys_of_role",
    "resumable_keys",
]


def keys_of_role(kind: type[Keys], *roles: Role) -> tuple[str, ...]:
    """The keys of a kind of config that have one of these roles. A vendor's own keys stand in a kind of their own."""
    return tuple(name for name, field in kind.model_fields.items() if extra_of(field)["role"] in roles)


def resumable_keys(kind: type[Keys]) -> frozenset[str]:
    """Keys that a resumed run may set to other values: the varying keys, and the keys for the length of the run."""
    length = {name for name, field in kind.model_fields.items() if extra_of(field)["resumable"]}
    return frozenset({*keys_of_role(kind, PLACE, PACE), *length})


COMPUTE_KEYS = keys_of_role(Keys, COMPUTE)
"""Keys that decide how the machine computes a run: devices, precision, kernels, libraries."""
PLACE_KEYS = frozenset(keys_of_role(Keys, PLACE))
"""Keys whose values have no meaning on another machine."""
VARYING_KEYS = frozenset(keys_of_role(Keys, PLACE, PACE))
"""Keys in which the runs of one result may differ. None of them changes what a run computes."""
CLOSED_VALUES: dict[str, Any] = {
    name: extra["closed"]
    for name, extra in ((name, extra_of(field)) for name, field in Keys.model_fields.items())
    if "closed" in extra
}
"""Values that MLPerf's closed division requires in every round. The limits of each round are in ssd.mlperf."""
