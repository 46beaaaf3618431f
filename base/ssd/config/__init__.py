"""Configuration: the keys of a run, where their values come from, and the flags of every verb. It needs no torch.

keys.py        each key by itself: type, unit, meaning, role, default, bounds
roles.py       lists derived from the roles: what a resume may change, what runs of one result may differ in
rules.py       Config: all keys together, with the rules that bind several of them
resolved.py    merges defaults, TOML files, environment and command line to one frozen Config with every value's origin
files.py       reads TOML configs by name or by path; a config may extend another
resume.py      takes the keys of a resumed run from its folder
verb.py        how a verb declares its flags and words
flags.py       turns the words of a command line into typed values
paths.py       refuses paths that no file can have
describe.py    says in words what a key accepts
help.py        help texts, made from the keys themselves
folders.py     where the repository, base/config and the vendors' folders lie
slurm.py       reads the hosts of a run from the variables of a Slurm step
nearest.py     finds the known word that is nearest to a mistyped one
vendor_keys.py the keys that a vendor adds, from keys.py of its folder
python_file.py runs a vendor's Python file by its path
"""

from ssd.config.keys import COMPUTE, PACE, PLACE, key
from ssd.config.resolved import Resolved, require_run_keys, resolve, write_resolved
from ssd.config.rules import Config
from ssd.config.vendor_keys import VendorKeys

__all__ = [
    "COMPUTE",
    "PACE",
    "PLACE",
    "Config",
    "Resolved",
    "VendorKeys",
    "key",
    "require_run_keys",
    "resolve",
    "write_resolved",
]
