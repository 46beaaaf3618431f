"""The verbs of the command line: what each does, its own flags, its words, and the keys of a run that it reads.

A new verb is an entry here and a function in `ssd.cli`. Nothing heavy is imported: help and mistakes are said at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ssd.config import Config
from ssd.config.verb import Flag, Verb, Words, verb_of

__all__ = ["HELP", "VERBS", "leaves_nothing_else"]

ALL = tuple(Config.model_fields)
DATA = ("name", "config", "data_dir", "cache_dir")
MODEL_IN_USE = ("device", "precision", "nhwc", "compile", "detect_op", "nms_valid_thresh")

PLANNED = (
    "name",
    "config",
    "device",
    "nproc_per_node",
    "num_classes",
    "train_batch_size",
    "gradient_accumulation_steps",
    "width",
    "allreduce_dtype",
    "epochs",
    "eval_epochs",
    "eval_interval",
)
"""Keys that a plan reads. With --measure it reads those of a run."""
UNCHECKED = (
    *("node_rank", "master_addr", "master_port", "collective_timeout", "numa_binding", "resume", "seed", "prefetch"),
    *("restart", "max_restarts", "resume_from", "checkpoint_minutes", "step_timeout", "async_eval"),
    *("weight_decay_rate", "momentum", "lr_decay_epochs", "lr_decay_factor", "warmup_factor", "nms_valid_thresh"),
    *("corrupt_images", "threshold", "telemetry_interval", "log_freq", "checkpoint_interval", "submitter", "system"),
)
CHECKED = tuple(key for key in ALL if key not in UNCHECKED)
"""Keys by which a run may be able to start or not, or be longer. `check` takes the others too, as `prepare` does."""
OF_A_CAMPAIGN = ("seed", "output", "resume", "restart", "max_restarts", "resume_from", "max_steps")
"""Keys that a campaign sets itself."""

JSON = Flag(bool, "print JSON")
TRIED = Literal["augment", "encode", "loss", "detect", "crop", "model", "optimizer", "step", "evaluation"]
CHECKPOINT = Flag(Path, "the checkpoint file, or the folder of its run", required=True)
RULESET = Flag(
    Config.model_fields["ruleset"].annotation, "the round whose rules count", Config.model_fields["ruleset"].default
)

VERBS = {
    "prepare": Verb(
        "fetch or draw data and check it, fetch the backbone, build the vendor's extensions",
        {
            "from_dir": Flag(Path, "folder with COCO's archives and the backbone, for a machine without a network"),
            "decode_all": Flag(bool, "decode every image, where otherwise only the ends of its file are looked at"),
            "extensions_only": Flag(bool, "build the extensions and nothing else (for a container's image)"),
        },
        keys=(*DATA, "backbone_path", "decoded_cache", "num_workers"),
    ),
    "train": Verb("train in this process (run_training.sh starts one a device)", keys=ALL),
    "launch": Verb("train with nproc_per_node processes on this host: what run_training.sh calls", keys=ALL),
    "evaluate": Verb(
        "evaluate a checkpoint on a COCO folder",
        {"checkpoint": CHECKPOINT, "json": JSON},
        keys=(*DATA, "eval_images", "eval_batch_size", "num_workers", "prefetch", "coco_metric", *MODEL_IN_USE),
    ),
    "detect": Verb(
        "draw a checkpoint's detections on images, and print them",
        {
            "checkpoint": CHECKPOINT,
            "images": Flag(tuple[Path, ...], "image files, or folders of them", required=True),
            "output": Flag(Path, "folder of the pictures; a new one beside it if it has files", Path("detections")),
            "score": Flag(float, "least score of a detection that is drawn", 0.3, least=0, most=1),
            "name": Flag(str, "the vendor whose device it runs on (default: the CPU)"),
            "device": Flag(str, "torch device type instead of the vendor's"),
            "json": Flag(bool, "print COCO results: a flat list, one object a detection"),
        },
    ),
    "compare": Verb(
        "put runs and published systems side by side; or hold two runs to each other that must be the same",
        {
            "assert_equal": Flag(bool, "the two must be the same: say where they part (exit code 9), and by how much"),
            "tolerance": Flag(
                float,
                "for --assert-equal: largest difference of two numbers, relative to the larger; 0: to the bit",
                least=0,
                most=1,
            ),
            "html": Flag(Path, "write a page of the same tables to this file"),
            "json": JSON,
        },
        Words("SIDE", "a run, campaign, package, result log, or published system by name, as 'A100' or '1.1 Dell'"),
    ),
    "profile": Verb(
        "profile a few steps in one process: a trace, and where a step's time goes, in words",
        {
            "steps": Flag(int, "optimizer steps that are profiled", 5, least=1, most=1000),
            "nvtx": Flag(bool, "only mark the steps with NVTX ranges, for a vendor's own profiler to record"),
            "json": JSON,
        },
        keys=ALL,
    ),
    "bench": Verb(
        "measure each part of this machine for about two minutes: what limits a run, and what to set",
        {
            "reference": Flag(Path, "file of rows of a machine of this kind (default: the rows that were kept here)"),
            "quick": Flag(bool, "seconds, to see that it works; such figures say nothing"),
            "json": JSON,
        },
        keys=ALL,
    ),
    "report": Verb(
        "make a run's report.html and trace.json again, from its folder; or a page of a bare result log, anybody's",
        {
            "out": Flag(Path, "file of the page (default: report.html in the folder; beside a log, LOG.report.html)"),
            "no_pictures": Flag(bool, "leave the photos out, whose licences are not ours: for a page to publish"),
        },
        Words("RUN", "a run's folder, or a result log", Path, most=1),
    ),
    "check": Verb("say what is known before a run, and how much it will do", {"json": JSON}, keys=CHECKED),
    "plan": Verb(
        "predict the time to mAP 0.23 on any number of accelerators; `plan --validate`: how far off that is",
        {
            "accelerators": Flag(str, "numbers of accelerators, separated by commas", "1,8,64"),
            "accelerator": Flag(str, "their name, such as 'A100-SXM4-80GB (400W)' (default: this machine's)"),
            "measured": Flag(
                tuple[Path, ...], "folders of your own runs, or files of --measure; they win over rows", ()
            ),
            "measure": Flag(
                bool, "measure this machine first: short runs at two batches, an evaluation; kept as a file"
            ),
            "target_minutes": Flag(float, "also find the fewest accelerators that meet this time", least=0, most=1e9),
            "host_cores": Flag(
                int, "cores of each host: a step is no faster than they can feed it", least=1, most=65_536
            ),
            "storage_mb": Flag(float, "MB/s that each host reads images with, another limit", least=1, most=1e9),
            "link_gbit": Flag(float, "Gbit/s of each host's network, all adapters together", least=0.01, most=1e9),
            "latency_us": Flag(float, "microseconds of one hop of an all-reduce", least=0, most=1e6),
            "rank_spread": Flag(float, "standard deviation of ranks' step times, as a share", least=0, most=1),
            "json": JSON,
            "page": Flag(Path, "write an HTML page with the curve to this file"),
            "validate": Flag(bool, "predict published systems, each without its submitter's rows; print the errors"),
            "rows": Flag(Path, "a CSV file of other systems for --validate (columns: docs/plan.md)"),
        },
        keys=PLANNED,
    ),
    "config": Verb("print each key's value and where it came from", {"json": JSON}, keys=ALL),
    "vendors": Verb("list the vendors found, with their configs", {"json": JSON}),
    "vendors new": Verb(
        "make a vendor's first two files, which train as they are (docs/porting.md goes on)",
        {"folder": Flag(Path, "folder that the vendor's own is made in (default: the repository's root)")},
        Words("NAME", "the vendor's name", most=1),
    ),
    "vendors check": Verb(
        "hold a vendor's kernels to the reference, and its device to the CPU",
        {
            "config": Flag(str, "only the overrides that this config of the vendor asks for"),
            "op": Flag(TRIED, "only this op, or this part of a step", again=True),
            "means": Flag(str, "only by this means (hardware, emulator, ...)", again=True),
            "case": Flag(str, "only the case of this name, as a failure prints it"),
            "seed": Flag(int, "seed of the random cases (default: drawn, and printed)", least=0, most=2**32 - 1),
            "quick": Flag(bool, "a few cases an op"),
            "json": JSON,
        },
        Words("NAME", "the vendor's name", most=1),
    ),
    "completion": Verb(
        "print the script by which a shell completes verbs, flags and values",
        words=Words("SHELL", "bash, zsh or fish", most=1),
    ),
    "campaign": Verb(
        "make the runs of a result, each with a seed of its own; the same command goes on where it was interrupted",
        {
            "runs": Flag(int, "runs that must count; a package holds 5", 5, least=1, most=1000),
            "folder": Flag(Path, "folder of the campaign (default: campaign-SYSTEM-NAME-CONFIG where runs go)"),
            "measure_steps": Flag(
                int, "steps timed before the first run; 0: none (default: 3 x log_freq)", least=0, most=1_000_000
            ),
        },
        keys=tuple(key for key in ALL if key not in OF_A_CAMPAIGN),
    ),
    "package": Verb(
        "make a submission package from runs and check it, or check one that exists: a check only reads",
        {
            "out": Flag(Path, "folder of the new package"),
            "check": Flag(Path, "check this package and make none"),
            "ruleset": RULESET,
            "field": Flag(str, "NAME=VALUE: a field of the system description, as --field cooling=air", again=True),
            "fields": Flag(Path, "a JSON file of such fields"),
            "json": JSON,
        },
        Words("RUN", "a campaign's folder, or five folders of runs", Path, least=0),
    ),
    "results": Verb(
        "read result logs, anybody's, as one table of minutes from run_start to run_stop and images/s while training",
        {
            "csv": Flag(bool, "print CSV: a header and one line a log"),
            "json": Flag(bool, "print JSON: a flat list, one object a log"),
        },
        Words("PATH", "a result log, or a folder of them", Path),
    ),
}
"""Verbs by name. A name of two words is a verb of the first one's."""
PRINT_ALONE = ("evaluate", "plan", "config", "vendors", "completion", "results")
"""Verbs that leave no file, and whose exit code says nothing about what they print."""
HELP = ("-h", "--help")


def leaves_nothing_else(argv: Sequence[str]) -> bool:
    """Whether what a command line prints is all that it gives: without it the command has failed."""
    return (
        not argv or argv[0].startswith("-") or any(word in HELP for word in argv) or verb_of(argv, VERBS) in PRINT_ALONE
    )
