"""What the roles of the keys come to: lists derived from the table of keys, so that a new key is in the right ones.

role      a resumed run may change it    runs of one result may differ in it    said at the start of a run
place     yes                            yes                                    no
pace      yes                            yes                                    no
compute   no                             no                                     yes
rule      no, but the run's length       no                                     no
"""

from __future__ import annotations

from typing import Any

from ssd.config.keys import COMPUTE, PACE, PLACE, Keys, Role, extra_of

__all__ = ["CLOSED_VALUES", "COMPUTE_KEYS", "PLACE_KEYS", "RESUMABLE_KEYS", "VARYING_KEYS"]


EXTRA = {name: extra_of(field) for name, field in Keys.model_fields.items()}


def _of_role(*roles: Role) -> tuple[str, ...]:
    return tuple(name for name, extra in EXTRA.items() if extra["role"] in roles)


COMPUTE_KEYS = _of_role(COMPUTE)
"""Keys by which one machine may compute the same run faster."""
PLACE_KEYS = frozenset(_of_role(PLACE))
"""Keys that mean nothing on another machine."""
VARYING_KEYS = frozenset(_of_role(PLACE, PACE))
"""Keys in which the runs of one result may differ: none changes what a run computes."""
RESUMABLE_KEYS = VARYING_KEYS | {name for name, extra in EXTRA.items() if extra["resumable"]}
"""Keys that a resumed run may set anew: the same, and how long the run goes on."""
CLOSED_VALUES: dict[str, Any] = {name: extra["closed"] for name, extra in EXTRA.items() if "closed" in extra}
"""Values that MLPerf's closed division requires whatever the round; each round's own limits stand in ssd.mlperf."""
