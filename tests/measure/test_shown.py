"""What `bench` found, as people and programs get it: whole lines, of a server and of a CPU."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from server import SERVER

from ssd.measure.disk import DiskRead
from ssd.measure.settings import Trial
from ssd.measure.shown import Found, as_json, config_lines, show

ROW = {"date": "2026-01-02", "images": "made", "keys": {"name": "acme", "config": "big"}, "commit": "c0ffee", "load": 1}
FOUND = Found(
    device="cuda",
    num_workers=1,
    figures=SERVER,
    disk=DiskRead(1, 2e9, 163e3, 0.25),
    trials=[Trial("nhwc", True, 1100.0, True), Trial("compile", True, None, False, "--quick")],
    chosen={"nhwc": True, "train_batch_size": 64},
    row=ROW,
    before=None,
    behind=(),
    kept=Path("kept.jsonl"),
)
HOST = replace(
    SERVER, devices=1, shares_cores=True, copy=None, all_reduce=None, all_reduce_s=None, step=50.0, decode_all=200.0
)


def words(text: str) -> list[str]:
    """The lines of a text, with one space where a table has several."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_server_without_an_earlier_row(capsys: pytest.CaptureFixture[str]) -> None:
    show(FOUND)
    assert words(capsys.readouterr().out) == words("""\
part                 measured                     how                                                  beside the reference
decoding, one core   200.0 images/s               made pictures of COCO's size; its CPU time
decoding, all cores  5000.0 images/s              32 threads
reading files        2000 MB/s, 9000 images/s     1 file by 1 thread; 25% were in memory
copy to the device   2.70 GB/s                    batches of uint8
steps without loader 1000.00 images/s             one device, 100 images a step
steps with loader    600.00 images/s              the same, on the images
evaluation           2000.00 images/s             one device: forward, detect, metric
all-reduce           1.00 GB/s, 100.0 ms          8 processes, all gradients, nothing beside it

training steps limit this host and its 8 devices: 4000.0 images/s; then decoding 5000, reading files 9000, copies to the device 80000.
One device takes 5 cores for decoding; this host has 32.
Cores like these for an accelerator of 500 images/s: 3, 1000 images/s: 5, 2500 images/s: 13, 5000 images/s: 25.
tried nhwc = true: 1100.00 images/s, kept
tried compile = true: --quick
No earlier row of such a machine with these keys: this one is kept in kept.jsonl.

# config/mine.toml of the vendor acme, measured on 2026-01-02
extends = "big"
nhwc = true
train_batch_size = 64
# Another batch is another run: its learning rate and warm-up must fit (base/config/batch-*.toml).
num_workers = 4
""")  # noqa: E501


def test_a_cpu_beside_an_earlier_row(capsys: pytest.CaptureFixture[str]) -> None:
    """A part at 95% of the row is not behind. One that either of them did not measure is not compared."""
    figures = {
        "decode_core": 400.0,
        "decode_all": 200.0,
        "read": 9001.0,
        "copy": 5.0,
        "step": 50 / 0.95,
        "evaluation": 0,
    }
    found = replace(
        FOUND,
        figures=HOST,
        disk=DiskRead(300, 2e9, 163e3, None),
        trials=[],
        chosen={},
        row={**ROW, "images": "of data_dir"},
        before={**ROW, "figures": figures},
        behind=[("decode_core", 0.5)],
    )
    show(found)
    said = words(capsys.readouterr().out)
    assert said[:12] == words("""\
part                 measured                     how                                                  beside the reference
decoding, one core   200.0 images/s               training images of data_dir; its CPU time            50% (behind)
decoding, all cores  200.0 images/s               32 threads                                           100%
reading files        2000 MB/s, 9000 images/s     300 files by 1 thread; whether they were in memory is unknown 100%
copy to the device   the device is the host       batches of uint8
steps without loader 50.00 images/s               one device, 100 images a step                        95%
steps with loader    600.00 images/s              the same, on the images
evaluation           2000.00 images/s             one device: forward, detect, metric
all-reduce           n/a                          one process: --nproc_per_node N measures it

training steps and decoding, on the same cores limit this host: 40.0 images/s; then reading files 9000.
One device takes 1 core for decoding; this host has 32.
""")  # noqa: E501
    assert said[13] == "Below 95% of the row of 2026-01-02 (load 1): decoding, one core (50%)."
    show(replace(found, behind=()))
    assert capsys.readouterr().out.splitlines()[13] == "Every part has at least 95% of the row of 2026-01-02 (load 1)."
    assert list(config_lines(found))[1:] == [
        "# config/mine.toml of the vendor acme, measured on 2026-01-02",
        'extends = "big"',
        "num_workers = 1",
    ]


def test_for_programs() -> None:
    before = {**ROW, "figures": {"step": 1.0}, "machine": "left out"}
    assert json.loads(as_json(replace(FOUND, before=before, behind=[("step", 0.5)]))) == {
        **ROW,
        "images_per_s_of_host": {
            "training steps": 4000.0,
            "decoding": 5000.0,
            "reading files": 9000.0,
            "copies to the device": 80_000.0,
        },
        "cores": 32,
        "all_reduce_s": 0.1,
        "read_from_memory": 0.25,
        "trials": [
            {"key": "nhwc", "value": True, "images_per_s": 1100.0, "kept": True, "why": ""},
            {"key": "compile", "value": True, "images_per_s": None, "kept": False, "why": "--quick"},
        ],
        "set": {"nhwc": True, "train_batch_size": 64, "num_workers": 4},
        "reference": {"date": "2026-01-02", "commit": "c0ffee", "load": 1, "figures": {"step": 1.0}},
        "behind": {"step": 0.5},
    }
    assert json.loads(as_json(FOUND))["reference"] is None
