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

__all__ = ["CLOSED_VALUES", "COMPUTE_KEYS", "PLACE_KEYS", "RESUMABLE_KEYS", "VARYING_KEYS"]


EXTRA = {name: extra_of(field) for name, field in Keys.model_fields.items()}


def _of_role(*roles: Role) -> tuple[str, ...]:
    return tuple(name for name, extra in EXTRA.items() if extra["role"] in roles)


COMPUTE_KEYS = _of_role(COMPUTE)
"""Keys that decide how the machine computes a run: devices, precision, kernels, libraries."""
PLACE_KEYS = frozenset(_of_role(PLACE))
"""Keys whose values have no meaning on another machine."""
VARYING_KEYS = frozenset(_of_role(PLACE, PACE))
"""Keys in which the runs of one result may differ. None of them changes what a run computes."""
RESUMABLE_KEYS = VARYING_KEYS | {name for name, extra in EXTRA.items() if extra["resumable"]}
"""Keys that a resumed run may set to other values: the varying keys, and the keys for the length of the run."""
CLOSED_VALUES: dict[str, Any] = {name: extra["closed"] for name, extra in EXTRA.items() if "closed" in extra}
"""Values that MLPerf's closed division requires in every round. The limits of each round are in ssd.mlperf."""
