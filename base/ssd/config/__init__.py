"""Configuration: the keys of a run, where their values come from, and what their names mean to a user. No torch.

keys.py        every key: type, unit, meaning, default, bounds; and the rules that bind several of them
resolved.py    default < TOML < environment < command line -> one frozen Config that knows each value's origin
files.py       named TOML configs, one extending another
flags.py       words of a command line -> values
help.py        help texts, made from the keys themselves
folders.py     where the repository, base/config and vendors' folders lie
slurm.py       what a step of Slurm says about a run's hosts
nearest.py     the known word nearest to a mistyped one
"""

from ssd.config.keys import Config
from ssd.config.resolved import Resolved, require_run_keys, resolve, write_resolved

__all__ = ["Config", "Resolved", "require_run_keys", "resolve", "write_resolved"]
