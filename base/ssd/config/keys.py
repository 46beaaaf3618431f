"""The keys of a run: name, type, unit, meaning, default and bounds of each, and the rules that bind several of them.

One frozen model, flat. `ssd.config.resolve` fills it; a Config that breaks a bound or a rule cannot be made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["EXCLUSIVE_KEYS", "SECTIONS", "Config", "describe_allowed", "describe_kind", "environment_name", "unit_of"]

Precision = Literal["fp32", "bf16", "fp16"]

SECTIONS = {
    "name": "What runs, and where",
    "data_dir": "Data",
    "num_classes": "Model",
    "train_batch_size": "Optimizer and schedule",
    "threshold": "Evaluation and end",
    "augment_op": "Kernels",
    "telemetry_interval": "Logs and checkpoints",
}
"""Headings of the help text, each by the first key that stands under it."""

EXCLUSIVE_KEYS = (("learning_rate", "base_learning_rate"), ("eval_interval", "eval_epochs"))
"""Pairs that say one thing in two ways: naming one of them un-sets an inherited other."""


def key(default: Any, meaning: str, unit: str = "", env: str = "", **bounds: Any) -> Any:
    """A key of the config: its default, what it means, its unit, the variable that may set it, and its bounds."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "env": env}, **bounds)


class Config(BaseModel):
    """Every key of a run. Names are the original's where the meaning is the same."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    # What runs, and where
    name: str = key("cpu", "vendor: the folder that adapts the run to an accelerator")
    config: str = key("smoke", "named config: a TOML file of the vendor, or of base/config")
    device: str | None = key(
        None, "torch device type, overriding the vendor's (cpu: a smoke run on any machine)", pattern="^[a-z]+$"
    )
    nproc_per_node: int = key(1, "processes (accelerators) a node", "processes", ge=1, le=1024)
    nodes: int = key(1, "hosts of the run", "hosts", ge=1, le=4096)
    node_rank: int = key(0, "which of the hosts this is, from 0", ge=0)
    master_addr: str | None = key(None, "name or address of the first host; needed when nodes > 1")
    master_port: int = key(29500, "TCP port of the rendezvous on the first host", ge=1, le=65535)
    collective_timeout: float = key(600.0, "longest wait for the other processes", "s", gt=0)
    numa_binding: Literal["none", "node", "socket", "exclusive", "core-complex"] = key(
        "none", "bind each process to the CPUs near its accelerator, as torchrun does (docs/launching.md)"
    )
    output: Path | None = key(None, "folder of the run; default runs/<date>-<name>-<config>")
    resume: bool = key(False, "continue the run in `output` from its last checkpoint")
    seed: int | None = key(None, "seed of everything random; drawn and logged when not given", ge=0, lt=2**32)

    # Data
    data_dir: Path | None = key(None, "COCO folder: annotations/, train2017/, val2017/", env="SSD_DATA_DIR")
    cache_dir: Path = key(
        Path("~/.cache/ssd"), "folder of annotation indexes and built extensions", env="SSD_CACHE_DIR"
    )
    data_backend: Literal["threads", "resident", "dali", "synthetic"] = key(
        "threads", "who makes the batches (docs/loaders.md)"
    )
    resident_storage: Literal["rgb", "yuv420"] = key(
        "rgb", "how data_backend resident keeps pixels; yuv420 takes half and changes them a little"
    )
    use_nvjpeg: bool = key(False, "data_backend dali decodes on the accelerator")
    num_workers: int = key(4, "decoding threads a process", "threads", ge=1, le=256)
    prefetch: int = key(2, "batches made ahead", "batches", ge=1, le=64)
    corrupt_images: Literal["stop", "skip"] = key(
        "stop", "an image that cannot be decoded: stop the run, or skip and count"
    )
    eval_images: Literal["with_boxes", "all"] = key("with_boxes", "evaluate the 4,952 images with a box, or all 5,000")
    synthetic_samples: int = key(64, "training images of data_backend synthetic", "images", ge=1)

    # Model
    num_classes: int = key(81, "classes with background", ge=2, le=1024)
    width: float = key(
        1.0, "channel multiplier; other than 1 is for demos and tests, never for a closed submission", gt=0, le=4
    )
    pretrained: bool = key(True, "start the trunk from backbone_path; false trains from scratch")
    backbone_path: Path | None = key(None, "torchvision ResNet-34 checkpoint file", env="SSD_BACKBONE_PATH")
    nhwc: bool = key(False, "channels-last memory layout")
    pad_input: bool = key(False, "a fourth input channel of zeros, which some accelerators want for alignment")
    bn_group: int = key(1, "processes that share batch-norm statistics; 1: each its own", "processes", ge=1)
    precision: Precision = key("fp32", "arithmetic of the forward pass; fp16 comes with dynamic loss scaling")
    amp: Literal["torch", "apex_o2"] = key("torch", "who mixes precision; apex_o2 casts the model (docs/apex.md)")
    compile: bool = key(False, "compile trunk and heads by torch.compile, before run_start")
    cuda_graph: bool = key(False, "record the step as CUDA graphs, before run_start")

    # Optimizer and schedule
    train_batch_size: int = key(32, "images a process and micro-batch", "images", ge=1)
    gradient_accumulation_steps: int = key(1, "micro-batches a step", ge=1)
    learning_rate: float = key(2.5e-3, "rate for 32 images, scaled to the global batch and rounded", ge=0)
    base_learning_rate: float | None = key(None, "rate applied as it is; excludes learning_rate", ge=0)
    weight_decay_rate: float = key(5e-4, "L2 weight decay, on every parameter", ge=0)
    momentum: float = key(0.9, "SGD momentum", ge=0, lt=1)
    optimizer: Literal["torch", "torch_fused", "apex_fused_sgd"] = key("torch", "implementation of momentum SGD")
    ddp: Literal["torch", "apex"] = key("torch", "who averages gradients; apex delays it to the end (docs/apex.md)")
    allreduce_dtype: Literal["fp32", "bf16"] = key("fp32", "what gradients are communicated as; the sums stay float32")
    lr_decay_epochs: tuple[int, ...] = key((40, 50), "epochs at whose start the rate decays", "epochs")
    lr_decay_factor: float = key(0.1, "what the rate is multiplied by", gt=0, le=1)
    warmup: int = key(300, "warm-up, in optimizer steps", "steps", ge=0)
    warmup_factor: int = key(0, "warm-up starts at rate * (1 - 2**-factor)", ge=0, le=30)
    epochs: int = key(80, "last epoch", "epochs", ge=1)
    max_steps: int | None = key(None, "stop after so many optimizer steps, with its own exit code", "steps", ge=1)

    # Evaluation and end
    threshold: float = key(0.23, "target mAP, met at >=, unrounded", gt=0, le=1)
    eval_batch_size: int = key(160, "images a process and evaluation batch", "images", ge=1)
    eval_epochs: tuple[int, ...] = key((), "evaluate after these epochs, and after the last", "epochs")
    eval_interval: int = key(
        5, "without eval_epochs: evaluate after every so many epochs, and after the last", "epochs", ge=1
    )
    nms_valid_thresh: float = key(0.05, "least score of a detection", ge=0, lt=1)
    coco_metric: Literal["hotcoco", "pycocotools"] = key("hotcoco", "library that computes mAP")

    # Kernels: "reference", or an override of the vendor by its name
    augment_op: str = key("reference", "who runs mirror, colour jitter and normalisation")
    encode_op: str = key("reference", "who matches ground truth with default boxes")
    loss_op: str = key("reference", "who computes the loss")
    detect_op: str = key("reference", "who decodes and suppresses detections")

    # Logs and checkpoints
    telemetry_interval: float = key(1.0, "time between two records of power, temperature, memory; 0: none", "s", ge=0)
    log_freq: int = key(20, "steps between two readings of the loss", "steps", ge=1)
    checkpoint_interval: int = key(5, "epochs between two checkpoints; 0: only at the end", "epochs", ge=0)
    division: Literal["open", "closed"] = key("open", "MLPerf division of the result")
    ruleset: Literal["0.7.0", "1.0.0", "1.1.0"] = key("1.1.0", "MLPerf rules the log is written for")
    submitter: str = key("unknown", "organisation in the result log")
    system: str = key("unknown", "system's name in the result log")

    @field_validator("output", "data_dir", "cache_dir", "backbone_path")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """`~` expanded, and relative to the folder the command was given in: a run may be resumed from another."""
        try:
            return None if path is None else Path(os.path.abspath(path.expanduser()))
        except RuntimeError as error:  # ~somebody who has no home
            raise ValueError(str(error)) from error

    @field_validator("lr_decay_epochs", "eval_epochs")
    @classmethod
    def _ascending(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in zip((0, *epochs), epochs, strict=False)):
            raise ValueError("must be whole numbers from 1 on, each larger than the one before")
        return epochs

    @model_validator(mode="after")
    def _rules(self) -> Config:
        broken = list(_broken_rules(self))
        if broken:
            raise PydanticCustomError(
                "rules", "{text}", {"text": " ".join(sentence for _, sentence in broken), "broken": broken}
            )
        return self

    @property
    def world_size(self) -> int:
        """Processes of the run over all hosts."""
        return self.nproc_per_node * self.nodes

    @property
    def global_batch(self) -> int:
        """Images of one optimizer step."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps


Rule = tuple[tuple[str, ...], str]
"""Keys that together break a rule, and the sentence that says why and what to do."""


def _broken_rules(config: Config) -> Iterator[Rule]:
    """Combinations that cannot be run, whatever the machine."""
    if config.nodes > 1 and config.master_addr is None:
        yield ("nodes", "master_addr"), "more than one host needs master_addr, the name or address of the first."
    if config.node_rank >= config.nodes:
        yield ("node_rank", "nodes"), f"hosts count from 0: node_rank must be below nodes ({config.nodes})."
    if config.width != 1 and config.pretrained:
        yield ("width", "pretrained"), "a pretrained trunk has width 1: set pretrained = false, or width = 1."
    if config.world_size % config.bn_group:
        yield (
            ("bn_group", "nproc_per_node", "nodes"),
            f"bn_group must divide the processes of the run ({config.world_size}).",
        )
    if config.amp == "apex_o2" and config.precision != "fp32":
        yield ("amp", "precision"), "apex_o2 casts the model itself: set precision = fp32, or amp = torch."
    if config.gradient_accumulation_steps > 1:
        for name, value in (("amp", "apex_o2"), ("ddp", "apex")):
            if getattr(config, name) == value:
                yield (
                    (name, "gradient_accumulation_steps"),
                    f"{name} = {value} cannot accumulate gradients: set {name} = torch, or accumulate 1.",
                )
    if config.allreduce_dtype != "fp32" and config.ddp == "apex":
        yield ("allreduce_dtype", "ddp"), "only torch's DDP communicates in bf16: set ddp = torch."
    if config.cuda_graph:
        yield from _broken_graph_rules(config)
    if config.resume and config.output is None:
        yield ("resume", "output"), "to continue a run name its folder: output."
    if config.division == "closed":
        yield from _broken_closed_rules(config)


def _broken_graph_rules(config: Config) -> Iterator[Rule]:
    """A recorded step holds no collective, and its gradients lie at fixed addresses."""
    if config.device == "cpu":
        yield ("cuda_graph", "device"), "CUDA graphs need a GPU: set cuda_graph = false."
    for name, value in (("bn_group", 1), ("ddp", "torch"), ("amp", "torch")):
        if getattr(config, name) != value:
            yield ("cuda_graph", name), f"cuda_graph needs {name} = {value}; or set cuda_graph = false."


def _broken_closed_rules(config: Config) -> Iterator[Rule]:
    """What rules a closed result out from the start; each round's own numbers stand in ssd.mlperf."""
    required = {
        "width": 1.0,
        "num_classes": 81,
        "pretrained": True,
        "threshold": 0.23,
        "nms_valid_thresh": 0.05,
        "momentum": 0.9,
        "max_steps": None,
        "resume": False,
        "corrupt_images": "stop",
    }
    for name, value in required.items():
        if getattr(config, name) != value:
            yield (name, "division"), f"the closed division requires {name} = {value}; or set division = open."
    if config.data_backend == "synthetic":
        yield ("data_backend", "division"), "the closed division trains on real images; or set division = open."
    for name in ("submitter", "system"):
        if getattr(config, name) == "unknown":
            yield (name, "division"), f"the closed division requires {name}; or set division = open."


def unit_of(name: str) -> str:
    """Unit of a key, empty where it has none."""
    return _extra(name)["unit"]


def environment_name(name: str) -> str:
    """The environment variable that may set a key, empty where there is none."""
    return _extra(name)["env"]


def _extra(name: str) -> dict[str, Any]:
    extra = Config.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra


def describe_kind(kind: Any) -> str:
    """A type in words of a command line: `int`, `path`, `fp32|bf16|fp16`, `int int ...`."""
    if get_origin(kind) in (Union, UnionType):
        return "|".join(describe_kind(part) for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"{describe_kind(get_args(kind)[0])} " * 2 + "..."
    return {str: "text", Path: "path", bool: "true|false", float: "number", int: "int"}[kind]


def describe_allowed(name: str) -> str:
    """What a key accepts, in words: its type and its bounds."""
    words = {annotated_types.Ge: "at least", annotated_types.Gt: "above", annotated_types.Le: "at most"}
    words[annotated_types.Lt] = "below"
    parts = [describe_kind(Config.model_fields[name].annotation)]
    for bound in Config.model_fields[name].metadata:
        for kind, word in words.items():
            if isinstance(bound, kind):
                parts.append(f"{word} {getattr(bound, kind.__name__.lower())}")
        if getattr(bound, "pattern", None):
            parts.append(f"of the form {bound.pattern}")
    return ", ".join(parts)
