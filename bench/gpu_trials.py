"""The trials of bench/gpu_day.py: what is run on a card on its first day, each a command that a user can give."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_calls import NotHere, TrialFailed, call
from measure import ROOT

from ssd.errors import EXIT_KILLED, EXIT_MAX_STEPS, EXIT_REACHED

__all__ = ["PARTS", "Day", "NotHere", "TrialFailed"]

LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2, "fp16": 3e-2}
"""Largest relative difference of a step's loss from the eager reference's in fp32, over the first steps of one seed."""
TRITON = [f"--{op}_op=triton" for op in ("augment", "encode", "loss", "detect")]
REFERENCE = [f"--{op}_op=reference" for op in ("augment", "encode", "loss", "detect")]
WHOLE_STEP = ["--cuda_graph", "--graph_scope=step", "--optimizer=torch_fused"]
EVERYTHING = ["--cuda_graph", "--graph_scope=all", "--optimizer=torch_fused"]
PLAIN = [*REFERENCE, "--no-compile", "--no-cuda_graph", "--precision=fp32", "--optimizer=torch", "--no-pretrained"]


@dataclass(frozen=True)
class Day:
    """What is tried on: the vendor and its config, sizes, where things lie. small: on a CPU, to try the script."""

    name: str
    config: str
    out: Path
    data: Path | None
    small: bool

    @property
    def keys(self) -> list[str]:
        """Flags that every training run takes: one device, a seed, synthetic data."""
        keys = [f"--name={self.name}", f"--config={self.config}", "--nproc_per_node=1", "--nodes=1", "--seed=1"]
        keys += [f"--train_batch_size={2 if self.small else 32}", f"--synthetic_samples={8 if self.small else 256}"]
        keys += ["--width=0.125", "--num_classes=4"] if self.small else []
        # A small rate: two ways to compute one step must not be driven apart by the steps between.
        return [*keys, "--data_backend=synthetic", "--base_learning_rate=1e-4", "--warmup=0", *PLAIN]


Work = Callable[[float], dict[str, Any]]
"""A trial: gets the seconds left, returns figures."""


def ssd(*words: str) -> list[str]:
    """The package's command line."""
    return [sys.executable, "-m", "ssd", *words]


def train(day: Day, folder: str, left: float, *keys: str, codes: Sequence[int] = (EXIT_MAX_STEPS,)) -> Path:
    """Train as users do, through run_training.sh with the vendor's environment file; the run's folder."""
    output = day.out / folder
    if "--resume" not in keys:
        shutil.rmtree(output, ignore_errors=True)
    call(["bash", "run_training.sh", *day.keys, *keys, f"--output={output}"], left, codes, NVIDIA_TF32_OVERRIDE="0")
    return output


def losses(run: Path) -> list[float]:
    """The mean loss of each logged interval."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


# Part 1: every path against every other, from one seed


def correctness(day: Day) -> Iterator[tuple[str, Work]]:
    """Kernels against references; ways to compute a step against the eager reference; resume; a move to the CPU."""
    # Three steps: the second and third see the gradients of those before. Later, rounding alone drives two runs apart.
    steps = ["--max_steps=3", "--log_freq=1", "--checkpoint_interval=0"]
    on_card = not day.small
    yield "vendors check", lambda left: {"said": call(ssd("vendors", "check", day.name), left)[-1500:]}

    def eager(left: float) -> dict[str, Any]:
        return {"losses": losses(train(day, "eager", left, *steps))}

    yield "eager reference, fp32", eager
    paths: dict[str, tuple[str, list[str]]] = {"bf16": ("bf16", ["--precision=bf16"])}
    if on_card:
        paths |= {
            "kernels (triton), fp32": ("fp32", TRITON),
            "compiled, fp32": ("fp32", ["--compile"]),
            "compiled with combo_kernels, fp32": ("fp32", ["--compile", "--combo_kernels"]),
            "graph replayed, fp32": ("fp32", ["--cuda_graph"]),
            "kernels, compiled, graph, channels-last, bf16": (
                "bf16",
                [*TRITON, "--compile", "--cuda_graph", "--nhwc", "--precision=bf16", "--optimizer=torch_fused"],
            ),
            "whole step in the graph, fp32": ("fp32", WHOLE_STEP),
            "fp16 with loss scaling": ("fp16", ["--precision=fp16"]),
            "fp16, whole step in the graph": ("fp16", [*WHOLE_STEP, "--precision=fp16"]),
        }
    else:
        paths["channels-last, fp32"] = ("fp32", ["--nhwc"])
    for name, (precision, keys) in paths.items():
        yield f"{name} against eager", against_eager(day, name, precision, [*steps, *keys])
    yield "resume on the device", lambda left: resume(day, left)
    yield "a checkpoint evaluated on the CPU", lambda left: evaluate_on_cpu(day, left)
    for tool in ("memcheck", "racecheck"):
        yield f"compute-sanitizer {tool}", lambda left, tool=tool: sanitize(day, tool, left)  # type: ignore[misc]


def against_eager(day: Day, name: str, precision: str, keys: Sequence[str]) -> Work:
    """A run of the same seed; each loss within the precision's tolerance of the eager reference's."""

    def work(left: float) -> dict[str, Any]:
        if not (day.out / "eager" / "metrics.jsonl").exists():
            raise NotHere("the eager reference did not run")
        found = losses(train(day, name.replace(" ", "-").replace(",", ""), left, *keys))
        truth = losses(day.out / "eager")
        if len(found) != len(truth):
            raise TrialFailed(f"{len(found)} losses logged, the eager run has {len(truth)}")
        worst = max(abs(a - b) / abs(b) for a, b in zip(found, truth, strict=True))
        if not worst <= LOSS_TOLERANCE[precision]:
            raise TrialFailed(f"losses {found} differ from {truth} by {worst:.2g}")
        return {"largest_difference": worst}

    return work


def resume(day: Day, left: float) -> dict[str, Any]:
    """Four steps and two more after a resume end with the same loss as six in one go."""
    whole = losses(train(day, "whole", left, "--max_steps=6", "--log_freq=1"))
    train(day, "parts", left, "--max_steps=4", "--log_freq=1")
    parts = losses(train(day, "parts", left, "--max_steps=6", "--log_freq=1", "--resume"))
    if abs(parts[-1] - whole[-1]) > LOSS_TOLERANCE["fp32"] * abs(whole[-1]):
        raise TrialFailed(f"after the resume the losses are {parts}; in one go {whole}")
    return {"difference": abs(parts[-1] - whole[-1])}


def evaluate_on_cpu(day: Day, left: float) -> dict[str, Any]:
    """A checkpoint of the device gives a score on the CPU."""
    checkpoint = day.out / "whole" / "checkpoint.pt"
    if not checkpoint.exists():
        raise NotHere("no run left a checkpoint")
    sizes = ["--device=cpu", "--nproc_per_node=1", "--train_batch_size=2", "--eval_batch_size=2", *REFERENCE]
    said = call(ssd("evaluate", f"--checkpoint={checkpoint}", f"--name={day.name}", *sizes), left)
    return {"said": said[-300:]}


def sanitize(day: Day, tool: str, left: float) -> dict[str, Any]:
    """One case of one kernel under compute-sanitizer."""
    found = shutil.which("compute-sanitizer")
    if day.small or found is None:
        raise NotHere("compute-sanitizer is not on PATH" if not day.small else "needs a card")
    command = [found, f"--tool={tool}", "--error-exitcode=9", *ssd("vendors", "check", day.name, "--op", "encode")]
    return {"said": call(command, left)[-500:]}


# Part 2: rates, from synthetic data


def speed(day: Day) -> Iterator[tuple[str, Work]]:
    """The training rate of each path at each batch, and each kernel beside its reference."""
    rows = day.out / "rows.jsonl"
    paths = (
        {"eager": PLAIN}
        if day.small
        else {
            "eager, bf16": [*REFERENCE, "--no-compile", "--no-cuda_graph", "--precision=bf16"],
            "kernels, bf16": [*TRITON, "--no-compile", "--no-cuda_graph", "--precision=bf16"],
            "kernels, compiled, bf16": [*TRITON, "--compile", "--no-cuda_graph", "--precision=bf16"],
            "kernels, compiled, graph, bf16": [*TRITON, "--compile", "--cuda_graph", "--precision=bf16"],
            "the same, whole step and evaluation": [*TRITON, "--compile", *EVERYTHING, "--precision=bf16"],
            "kernels, compiled with combo_kernels": [*TRITON, "--compile", "--combo_kernels", "--precision=bf16"],
            "graph, pad_input, bf16": [*TRITON, "--compile", "--cuda_graph", "--precision=bf16", "--pad_input"],
        }
    )
    for batch in (2,) if day.small else (256, 120, 512):
        for name, keys in paths.items():
            yield f"{name}, batch {batch}", rate(day, rows, [*keys, f"--train_batch_size={batch}"])
    quick = ["--quick"] if day.small else []
    bench = [sys.executable, str(ROOT / "bench" / "ops.py"), f"--name={day.name}", f"--output={rows}", *quick]
    yield "kernels beside their references", lambda left: {"said": call(bench, left)[-1500:]}


def rate(day: Day, rows: Path, keys: Sequence[str]) -> Work:
    """One row of bench/train.py: images/s, share of the peak, share of a step by part."""
    sizes = ["--width=0.125", "--num_classes=4", "--quick"] if day.small else []
    command = [sys.executable, str(ROOT / "bench" / "train.py"), f"--name={day.name}", f"--config={day.config}"]

    def work(left: float) -> dict[str, Any]:
        before = rows.read_text().count("\n") if rows.exists() else 0
        call([*command, f"--output={rows}", *sizes, *keys], left)
        row = json.loads(rows.read_text().splitlines()[before])
        return {key: row[key] for key in ("images_per_s", "mfu", "share_of_step", "global_batch")}

    return work


# Part 3: whole runs, from JPEG files


def whole_runs(day: Day) -> Iterator[tuple[str, Work]]:
    """JPEGs through each loader, the demo to its target, and a run ended by a signal."""
    yield "the demo's data, drawn", lambda left: {"said": call(ssd("prepare", "--name=cpu"), left)[-300:]}
    demo = [f"--name={day.name}", "--config=demo", "--nproc_per_node=1", *REFERENCE]
    if day.data is not None:
        files = [f"--name={day.name}", f"--config={day.config}", f"--data_dir={day.data}", "--no-pretrained"]
        for workers in (2,) if day.small else (8, 12, 16):
            keys = ["--data_backend=threads", f"--num_workers={workers}"]
            yield f"JPEGs, {workers} threads", files_rate(day, [*files, *keys])
        for storage in ("rgb", "yuv420"):
            keys = ["--data_backend=resident", f"--resident_storage={storage}"]
            for crop in ("reference",) if day.small else ("reference", "triton"):
                trial = f"JPEGs, resident {storage}, crop by {crop}"
                yield trial, files_rate(day, [*files, *keys, f"--crop_op={crop}"])
    else:
        keys = [*demo, "--data_backend=threads"]
        yield "drawn JPEGs, threads (no --data was given)", files_rate(day, keys)

    def to_target(left: float) -> dict[str, Any]:
        output = day.out / "demo"
        shutil.rmtree(output, ignore_errors=True)
        # The demo takes minutes on quiet cores; a low target shows as much of the script.
        fast = ["--threshold=0.05"] if day.small else ["--compile", "--cuda_graph"]
        call(["bash", "run_training.sh", *demo, *fast, f"--output={output}"], left, (EXIT_REACHED,))
        return {"seconds_to_target": json.loads((output / "summary.json").read_text())["time_to_target_s"]}

    yield "ended by SIGTERM", lambda left: terminated(day, left)
    yield "the demo to its target", to_target


def files_rate(day: Day, keys: Sequence[str]) -> Work:
    """images/s of a short run that reads JPEG files."""
    sizes = ["--width=0.125", "--train_batch_size=2"] if day.small else []
    steps = ["--max_steps=10", "--log_freq=2"] if day.small else ["--max_steps=200", "--log_freq=20"]

    def work(left: float) -> dict[str, Any]:
        output = day.out / "files"
        shutil.rmtree(output, ignore_errors=True)
        call(["bash", "run_training.sh", *keys, *sizes, *steps, f"--output={output}"], left, (EXIT_MAX_STEPS,))
        summary = json.loads((output / "summary.json").read_text())
        return {"images_per_s": summary["images_per_s"], "seconds": summary["seconds"]}

    return work


def terminated(day: Day, left: float) -> dict[str, Any]:
    """A run that gets SIGTERM ends with 128 + 15, and its log says aborted."""
    output = day.out / "terminated"
    shutil.rmtree(output, ignore_errors=True)
    keys = [*day.keys, "--epochs=100000", "--eval_epochs=100000", "--log_freq=1", f"--output={output}"]
    environ = {**os.environ, "PYTHON": sys.executable}
    with subprocess.Popen(
        ["bash", "run_training.sh", *keys],
        cwd=ROOT / "base",
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as run:
        metrics = output / "metrics.jsonl"
        until = time.monotonic() + min(left - 5, 180)
        while time.monotonic() < until and not (metrics.exists() and '"loss"' in metrics.read_text()):
            if run.poll() is not None:
                raise TrialFailed(f"the run ended by itself with {run.returncode}")
            time.sleep(0.2)
        run.terminate()
        code = run.wait(timeout=60)
    if code not in (EXIT_KILLED + 15, -15):
        raise TrialFailed(f"exit code {code} instead of {EXIT_KILLED + 15}")
    if '"aborted"' not in (output / "result_0.txt").read_text():
        raise TrialFailed("the result log does not say aborted")
    return {"exit_code": code}


PARTS: Mapping[int, Callable[[Day], Iterator[tuple[str, Work]]]] = {1: correctness, 2: speed, 3: whole_runs}
