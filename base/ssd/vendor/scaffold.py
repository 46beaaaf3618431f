"""The verb `vendors new NAME`: a vendor's first two files, which train the smoke config as they are.

    python -m ssd vendors new NAME [--folder DIR]

DIR is the folder that the vendor's own is made in, by default the repository's root; another one must be named in
SSD_VENDOR_PATH to be found. docs/porting.md goes on from here.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from ssd.config.folders import ROOT, VENDOR_PATH, display_path, searched_folders, vendor_folders
from ssd.errors import ConfigError
from ssd.text import shortened

__all__ = ["make_vendor", "new_command"]

VENDOR_PY = '''"""{name}: what differs from base, and nothing else."""

from __future__ import annotations

import ssd.vendor

__all__ = ["Vendor"]


class Vendor(ssd.vendor.Vendor):
    """Trains on the CPU until the two lines below name the accelerator."""

    device_type = "cpu"  # yours; import the library that registers it with torch above, if there is one
    backend = "gloo"  # yours; gloo goes through the host, and serves any device
'''
CONFIG = "X1x1x1"
CONFIG_TOML = """\
# 1 device, 1 host: the smoke run under a name of its own. Say here what hardware a config is for, and which published
# run's values it takes.
extends = "smoke"
"""


def new_command(name: str, folder: Path | None = None) -> int:
    """Write the files and say what to do next; the exit code. ConfigError for a name that will not do."""
    made = make_vendor(name, folder or ROOT)
    sys.stdout.write(_next_steps(made))
    return 0


def make_vendor(name: str, parent: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Make the folder `name` in `parent`, with vendor.py and a config; the folder.

    ConfigError where the name is no plain identifier in lower case, or where it is taken.
    """
    if not re.fullmatch("[a-z][a-z0-9_]{0,63}", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"{shortened(name)!r} cannot be a vendor's name: take lower-case letters, digits and _, a letter first, "
            "64 at most, for example acme."
        )
    taken = vendor_folders(environ).get(name)
    folder = parent.expanduser().resolve() / name
    if taken or folder.exists():
        raise ConfigError(
            f"the name {name!r} is taken: {display_path(taken or folder)} exists. Choose another, or change that one."
        )
    (folder / "config").mkdir(parents=True)
    (folder / "config" / f"{CONFIG}.toml").write_text(CONFIG_TOML, encoding="utf-8")
    (folder / "vendor.py").write_text(VENDOR_PY.format(name=name), encoding="utf-8")
    return folder


def _next_steps(folder: Path) -> str:
    """What was made, and the commands that come next, to be copied."""
    name, lines = folder.name, []
    if folder.parent not in (ROOT, *searched_folders()):
        path = os.pathsep.join(map(str, [*searched_folders(), folder.parent]))
        lines.append(f"  export {VENDOR_PATH}={path}")
    lines += [
        f"  python -m ssd check --name {name} --config smoke",
        f"  python -m ssd train --name {name} --config smoke",
        f"  python -m ssd vendors check {name}",
    ]
    return (
        f"made {display_path(folder / 'vendor.py')} and {display_path(folder / 'config' / CONFIG)}.toml\n"
        "next, from base/ (docs/porting.md tells the rest: kernels, keys of its own, telemetry):\n"
        + "\n".join(lines)
        + "\n"
    )
