"""Configuration: the keys of a run, where their values come from, and what their names mean to a user. No torch.

keys.py        every key alone: type, unit, meaning, role, default, bounds
roles.py       lists derived from the roles: what a resume may change, what runs of one result may differ in
rules.py       Config: the keys together, with the rules that bind several of them
resolved.py    default < TOML < environment < command line -> one frozen Config that knows each value's origin
files.py       TOML configs by name or by path, one extending another
resume.py      the keys of a run that goes on, from its folder
verb.py        how a verb declares its flags and words
flags.py       words of a command line -> values
paths.py       which paths no file can have
describe.py    what a key accepts, in words
help.py        help texts, made from the keys themselves
folders.py     where the repository, base/config and vendors' folders lie
slurm.py       what a step of Slurm says about a run's hosts
nearest.py     the known word nearest to a mistyped one
"""

from ssd.config.resolved import Resolved, require_run_keys, resolve, write_resolved
from ssd.config.rules import Config

__all__ = ["Config", "Resolved", "require_run_keys", "resolve", "write_resolved"]
