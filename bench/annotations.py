"""An annotation file of COCO's size: read for the first time and from the cache, beside pycocotools.

    python bench/annotations.py [--rounds 3] [--quick]

Each reading is a process of its own, in turn, because a process keeps the memory it once had. A time is the CPU's of
that process, from after its imports on. Memory is the most that the process held; of the reading from the cache, how
much more it held than before. The file is made (bench/coco_sized.py), and removed at the end.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coco_sized import BOXES, IMAGES, write_annotations
from measure import ROOT, bounded, compared, parser, write_row

from ssd.vendor import load_vendor

READ = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
path, cache = Path(sys.argv[2]), Path(sys.argv[3])
{imports}

def held(what):  # MB; ru_maxrss would count the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024 / 1e6
before, start, begun = held("VmRSS"), time.process_time(), time.perf_counter()
{read}
seconds, wall = time.process_time() - start, time.perf_counter() - begun
print(json.dumps(dict(cpu_s=seconds, wall_s=wall, peak_mb=held("VmHWM"), more_mb=held("VmHWM") - before)))
"""
OURS = "from ssd.data.index_cache import load_index"
READINGS = {
    "pycocotools": ("from pycocotools.coco import COCO", "import os; sys.stdout = open(os.devnull, 'w'); COCO(path); "
                    "sys.stdout = sys.__stdout__"),
    "first": (OURS, "load_index(path, cache / 'new')"),
    "cached": (OURS, "load_index(path, cache / 'kept')"),
}  # fmt: skip
"""The imports of each reading, and the reading."""


def main(argv: Sequence[str] | None = None) -> int:
    """One row."""
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=3)
    asked = flags.parse_args(argv)
    images, boxes = (500, 4000) if asked.quick else (IMAGES, BOXES)
    with tempfile.TemporaryDirectory(prefix="ssd-bench-") as folder:
        path = Path(folder, "instances.json")
        write_annotations(path, images, boxes)
        size = path.stat().st_size / 1e6
        found = measured(path, Path(folder), 1 if asked.quick else asked.rounds)
    median = {name: {key: statistics.median(values) for key, values in one.items()} for name, one in found.items()}
    row = {
        "images": images,
        "boxes": boxes,
        "file_mb": round(size, 1),
        "processes": 1,
        **{f"{name}_{key}": round(value, 4) for name, one in median.items() for key, value in one.items()},
    }
    seconds = {name: one["cpu_s"] for name, one in found.items()}
    peer = f"pycocotools {version('pycocotools')}"
    items = [
        compared(
            f"annotations of {size:.0f} MB, first read (CPU s)",
            seconds,
            "first",
            "pycocotools",
            least=6,
            peer=peer,
            limit="msgspec's parsing and the sorting of ids",
        ),
        bounded(
            "its memory",
            median["first"]["peak_mb"],
            "MB",
            most=1000,
            limit="the file's bytes and its parsed entries",
            peer=peer,
            theirs=f"{median['pycocotools']['peak_mb']:.0f} MB",
        ),
        bounded("annotations from the cache (CPU)", median["cached"]["cpu_s"], "s", most=0.1, limit="the checksum"),
        bounded("its memory, more than before", median["cached"]["more_mb"], "MB", most=50, limit="mapped arrays"),
    ]
    write_row("annotations", asked, load_vendor("cpu"), row, items)
    return 0


def measured(path: Path, folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """The figures of each reading, by round. The caches lie in `folder`."""
    # A file that has just changed gets no stamp, so the kept cache believes that this one is old.
    read("import ssd.data.index_cache as c; c.FRESH_NS = -(10**18)", "c.load_index(path, cache / 'kept')", path, folder)
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in READINGS}
    for _ in range(rounds):
        for name, (imports, code) in READINGS.items():
            for file in (folder / "new").glob("*"):
                file.unlink()
            for key, value in read(imports, code, path, folder).items():
                found[name][key].append(value)
    return found


def read(imports: str, code: str, path: Path, folder: Path) -> dict[str, Any]:
    """The figures of one reading, in a process of its own."""
    program = READ.format(imports=imports, read=code)
    command = [sys.executable, "-c", program, str(ROOT / "base"), str(path), str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
