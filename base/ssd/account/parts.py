"""The parts of a run's time. Every second of rank 0 belongs to exactly one of them: they add up to the wall clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AFTER", "BEFORE", "EVALUATION", "PARTS", "RUN", "Part", "evaluation_parts"]

BEFORE = "before run_start"
RUN = "run_start to run_stop"
AFTER = "after run_stop"
EVALUATION = "evaluation"


@dataclass(frozen=True)
class Part:
    """One part. title: for people. group: BEFORE, RUN or AFTER. meaning: what happens in it, one sentence."""

    title: str
    group: str
    meaning: str


PARTS = {
    "launcher": Part("launcher", BEFORE, "The launcher starts, checks the machine, and starts the processes."),
    "imports": Part("imports", BEFORE, "Python starts, imports the libraries, and reads the config."),
    "process_group": Part("process group", BEFORE, "The device is opened, and all processes meet."),
    "index": Part("index", BEFORE, "Annotations are read, and the evaluation images are looked at."),
    "kernels": Part("kernels", BEFORE, "The vendor's kernels are loaded."),
    "model": Part("model", BEFORE, "The network and its optimizer are built, and a checkpoint is restored."),
    "compile": Part("compile", BEFORE, "The model is compiled, or its step is captured as a graph."),
    "warm_up": Part("warm-up", BEFORE, "Steps on made-up data make the libraries choose their kernels."),
    "set_up": Part("other set-up", BEFORE, "The run's folder is made, logs are opened, hyper-parameters are logged."),
    "start": Part("start", RUN, "From run_start until the first batch is asked for."),
    "first_epoch_excess": Part(
        "first-epoch excess", RUN, "What the first epoch took longer than the median of the others."
    ),
    "data_wait": Part("data wait", RUN, "The loop waits for the next batch."),
    "step": Part(
        "step", RUN, "Forward, backward, communication and optimizer; the host launches them, and waits for the device."
    ),
    "eval_images": Part("evaluation: images", RUN, "The evaluation waits for the next images."),
    "eval_forward": Part("evaluation: forward", RUN, "The network runs on the validation images."),
    "eval_detect": Part("evaluation: detect", RUN, "Boxes are decoded, sorted and suppressed."),
    "eval_gather": Part("evaluation: gather", RUN, "Rank 0 waits for the other ranks, and takes their detections."),
    "eval_metric": Part("evaluation: metric", RUN, "COCO's metric is computed, on rank 0."),
    "checkpoint": Part("checkpoint", RUN, "The checkpoint is written, and reaches the disk."),
    "between": Part("between", RUN, "Between epochs: records are written, batch norm is averaged, batches are closed."),
    "end": Part("end", AFTER, "Detections are drawn, and the summary is written."),
}
"""Every part by its name in summary.json and metrics.jsonl, in the order in which a run first meets it."""


def evaluation_parts() -> tuple[str, ...]:
    """Names of the parts of an evaluation."""
    return tuple(name for name, part in PARTS.items() if part.title.startswith(EVALUATION))
