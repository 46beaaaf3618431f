"""The keys of a run, each by itself: name, type, unit, meaning, role, default and bounds.

`Keys` is one frozen model without nesting. `ssd.config.rules` adds the rules that bind several keys; the result is
called `Config`. `ssd.config.roles` derives lists from this table: what a resumed run may change, what the runs of one
result may differ in, and what the closed division requires.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from ssd.config.paths import absolute_path

__all__ = ["COMPUTE", "EXCLUSIVE_KEYS", "PACE", "PLACE", "RULE", "SECTIONS", "Keys", "Role", "extra_of", "key"]

Role = Literal["place", "pace", "compute", "rule"]
PLACE: Role = "place"
"""Where the run is and which run it is: folders, addresses, the seed."""
PACE: Role = "pace"
"""How fast the host works and how often the run reports. No number that the run computes depends on it."""
COMPUTE: Role = "compute"
"""How the machine computes the run: devices, precision, kernels, libraries. Rounding may depend on it."""
RULE: Role = "rule"
"""What the run is: its model, hyper-parameters, target, and what is claimed of it."""

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
"""Headings of the help text. Each heading is given with the first key below it."""

EXCLUSIVE_KEYS = (("learning_rate", "base_learning_rate"), ("eval_interval", "eval_epochs"))
"""Pairs of keys that set the same thing in two ways. Setting one of them removes an inherited value of the other."""

# Upper bounds. They are far above any use. A larger value is a typing error, which would end the run later and with a
# message that is harder to understand.
MOST_STEPS = 10**9
MOST_EPOCHS = 10**6
MOST_IMAGES = 2**16
"""The most images that one process may hold at once."""
HIGHEST_RATE = 1e30
"""The largest learning rate. It is applied to float32 weights, whose largest value is 3.4e38. Large rates are allowed
because tests of a run that diverges use them."""
LONGEST_TEXT = 200


def key(
    default: Any, role: Role, meaning: str, unit: str = "", env: str = "", resumable: bool = False, **bounds: Any
) -> Any:
    """Declare a key of the config.

    default: the value where nothing sets the key. role: what the key decides, one of `Role`. meaning: one phrase for
    the help text. unit: the unit of the value. env: an environment variable that may set the key. resumable: whether a
    resumed run may change the key although the keys of its role are fixed.

    bounds: arguments of pydantic's `Field`, and `closed`, the value that MLPerf's closed division requires.
    """
    extra: dict[str, Any] = {"role": role, "unit": unit, "env": env, "resumable": resumable}
    if "closed" in bounds:
        extra["closed"] = bounds.pop("closed")
    return Field(default, description=meaning, json_schema_extra=extra, **bounds)


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """The arguments of `key` for a field: role, unit, env, resumable, and closed where it was given."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return extra


class Keys(BaseModel):
    """Every key of a run. A key has the original implementation's name where it has the same meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    # What runs, and where
    name: str = key("cpu", COMPUTE, "vendor: the folder that adapts the run to an accelerator")
    config: str = key("smoke", RULE, "named config of the vendor or of base/config, or the path of a TOML file")
    device: str | None = key(
        None, COMPUTE, "torch device type instead of the vendor's (cpu: a smoke run anywhere)", pattern="^[a-z]+$"
    )
    nproc_per_node: int = key(1, COMPUTE, "processes (accelerators) a node", "processes", ge=1, le=1024)
    nodes: int = key(1, COMPUTE, "hosts of the run", "hosts", ge=1, le=4096)
    node_rank: int = key(0, PLACE, "which of the hosts this is, from 0", ge=0, lt=4096)
    master_addr: str | None = key(None, PLACE, "name or address of host 0; needed when nodes > 1")
    master_port: int = key(29500, PLACE, "TCP port of the rendezvous on host 0", ge=1, le=65535)
    collective_timeout: float = key(600.0, PACE, "longest time to wait for other processes", "s", gt=0, le=604_800)
    step_timeout: float = key(
        180.0, PACE, "the same once steps begin; longer than rank 0 writes a checkpoint", "s", gt=0, le=604_800
    )
    numa_binding: Literal["none", "node", "socket", "exclusive", "core-complex"] = key(
        "none", PACE, "bind each process to the CPUs near its accelerator, as torchrun does (docs/launching.md)"
    )
    output: Path | None = key(None, PLACE, "folder of the run; default <date>-<name>-<config> where runs go (README)")
    resume: bool = key(False, PLACE, "continue the run in `output` from its last checkpoint", closed=False)
    restart: Literal["no", "auto"] = key(
        "no",
        PLACE,
        "auto: --resume where `output` has a checkpoint; else start anew, also after a run killed before one",
    )
    max_restarts: int = key(
        0, PLACE, "times that the launcher starts a lost run again from its last checkpoint; one host", ge=0, le=1000
    )
    resume_from: Literal["newest", "previous"] = key(
        "newest", PLACE, "which checkpoint --resume goes on from; previous: the one before, if the newest is damaged"
    )
    seed: int | None = key(None, PLACE, "seed of everything random; drawn and logged when not given", ge=0, lt=2**32)

    # Data
    data_dir: Path | None = key(None, PLACE, "COCO folder: annotations/, train2017/, val2017/", env="SSD_DATA_DIR")
    cache_dir: Path = key(
        Path("~/.cache/ssd"), PLACE, "folder of annotation indexes and built extensions", env="SSD_CACHE_DIR"
    )
    decoded_cache: Path | None = key(
        None,
        PLACE,
        "folder where data_backend threads keeps decoded images: 95 GB of COCO (docs/loaders.md)",
    )
    data_backend: Literal["threads", "resident", "dali", "synthetic"] = key(
        "threads", COMPUTE, "loader that makes the batches (docs/loaders.md)"
    )
    resident_storage: Literal["rgb", "yuv420"] = key(
        "rgb", COMPUTE, "how data_backend resident keeps pixels; yuv420 takes half and changes them a little"
    )
    use_nvjpeg: bool = key(False, COMPUTE, "data_backend dali decodes on the accelerator")
    num_workers: int = key(4, PACE, "decoding threads a process", "threads", ge=1, le=256)
    prefetch: int = key(2, PACE, "batches made ahead", "batches", ge=1, le=64)
    corrupt_images: Literal["stop", "skip"] = key(
        "stop", RULE, "an image that cannot be decoded: stop the run, or skip and count", closed="stop"
    )
    eval_images: Literal["with_boxes", "all"] = key(
        "with_boxes", RULE, "evaluate the 4,952 images with a box, or all 5,000"
    )
    synthetic_samples: int = key(64, RULE, "training images of data_backend synthetic", "images", ge=1, le=1_000_000)
    synthetic_batches: int = key(
        0,
        RULE,
        "micro-batches of data_backend synthetic that are made once and repeated; 0: all are made anew",
        ge=0,
        le=64,
    )

    # Model
    num_classes: int = key(81, RULE, "classes with background", ge=2, le=1024, closed=81)
    width: float = key(1.0, RULE, "channel multiplier; other than 1 is for demos and tests", gt=0, le=4, closed=1.0)
    pretrained: bool = key(True, RULE, "start the backbone from backbone_path; false trains from scratch", closed=True)
    backbone_path: Path | None = key(None, PLACE, "torchvision ResNet-34 checkpoint file", env="SSD_BACKBONE_PATH")
    nhwc: bool = key(False, COMPUTE, "channels-last memory layout")
    pad_input: bool = key(False, COMPUTE, "a fourth input channel of zeros, which some accelerators want for alignment")
    head_layout: Literal["separate", "joint"] = key(
        "separate", COMPUTE, "heads of a map one by one, or as one convolution of padded channels"
    )
    bn_group: int = key(
        1, COMPUTE, "processes that share batch-norm statistics; 1: each its own", "processes", ge=1, le=1024 * 4096
    )
    precision: Precision = key("fp32", COMPUTE, "arithmetic of the forward pass; fp16 comes with dynamic loss scaling")
    amp: Literal["torch", "apex_o2"] = key(
        "torch", COMPUTE, "library that mixes precisions; apex_o2 casts the model (docs/apex.md)"
    )
    compile: bool = key(False, COMPUTE, "compile backbone and heads by torch.compile, before run_start")
    combo_kernels: bool = key(
        False, COMPUTE, "with compile on a GPU: torch joins kernels that do not depend on each other in one launch"
    )
    cuda_graph: bool = key(False, COMPUTE, "capture the step as CUDA graphs, before run_start")
    graph_scope: Literal["gradients", "step", "all"] = key(
        "gradients", COMPUTE, "what the graphs hold; step: averaging and optimizer too; all: the evaluation as well"
    )

    # Optimizer and schedule
    train_batch_size: int = key(32, RULE, "images a process and micro-batch", "images", ge=1, le=MOST_IMAGES)
    gradient_accumulation_steps: int = key(1, RULE, "micro-batches a step", ge=1, le=1024)
    learning_rate: float = key(
        2.5e-3, RULE, "rate for 32 images, scaled to the global batch and rounded", ge=0, le=HIGHEST_RATE
    )
    base_learning_rate: float | None = key(
        None, RULE, "rate applied as it is; excludes learning_rate", ge=0, le=HIGHEST_RATE
    )
    weight_decay_rate: float = key(5e-4, RULE, "L2 weight decay, on every parameter", ge=0, le=1)
    momentum: float = key(0.9, RULE, "SGD momentum", ge=0, lt=1, closed=0.9)
    optimizer: Literal["torch", "torch_fused", "apex_fused_sgd"] = key(
        "torch", COMPUTE, "implementation of momentum SGD"
    )
    ddp: Literal["torch", "apex"] = key(
        "torch", COMPUTE, "library that averages gradients; apex delays it to the end (docs/apex.md)"
    )
    allreduce_dtype: Literal["fp32", "bf16"] = key(
        "fp32", COMPUTE, "what gradients are communicated as; the sums stay float32"
    )
    lr_decay_epochs: tuple[int, ...] = key((40, 50), RULE, "epochs at whose start the rate decays", "epochs")
    lr_decay_factor: float = key(0.1, RULE, "what the rate is multiplied by", gt=0, le=1)
    warmup: int = key(300, RULE, "warm-up, in optimizer steps", "steps", ge=0, le=MOST_STEPS)
    warmup_factor: int = key(0, RULE, "warm-up starts at rate * (1 - 2**-factor)", ge=0, le=30)
    epochs: int = key(80, RULE, "last epoch", "epochs", resumable=True, ge=1, le=MOST_EPOCHS)
    max_steps: int | None = key(
        None, RULE, "stop after so many optimizer steps", "steps", resumable=True, ge=1, le=MOST_STEPS, closed=None
    )

    # Evaluation and end
    threshold: float = key(0.23, RULE, "target mAP, met at >=, unrounded", gt=0, le=1, closed=0.23)
    eval_batch_size: int = key(160, COMPUTE, "images a process and evaluation batch", "images", ge=1, le=MOST_IMAGES)
    eval_epochs: tuple[int, ...] = key((), RULE, "evaluate after these epochs, and after the last", "epochs")
    eval_interval: int = key(
        5, RULE, "without eval_epochs: epochs from one evaluation to the next", "epochs", ge=1, le=MOST_EPOCHS
    )
    async_eval: bool = key(
        False, COMPUTE, "gather and score detections beside the next steps; a run may then train beyond its target"
    )
    nms_valid_thresh: float = key(0.05, RULE, "least score of a detection", ge=0, lt=1, closed=0.05)
    coco_metric: Literal["hotcoco", "pycocotools"] = key("hotcoco", COMPUTE, "library that computes mAP")

    # Kernels: "reference", or an override of the vendor by its name
    augment_op: str = key("reference", COMPUTE, "kernel of mirror, colour jitter and normalisation")
    encode_op: str = key("reference", COMPUTE, "kernel that matches ground truth with default boxes")
    loss_op: str = key("reference", COMPUTE, "kernel of the loss")
    detect_op: str = key("reference", COMPUTE, "kernel that decodes and suppresses detections")
    crop_op: str = key("reference", COMPUTE, "kernel of data_backend resident that crops and resizes")

    # Logs and checkpoints
    telemetry_interval: float = key(
        1.0, PACE, "time between two records of power, temperature, memory; 0: none", "s", ge=0, le=86_400
    )
    log_freq: int = key(20, PACE, "steps between two readings of the loss", "steps", ge=1, le=10_000)
    tensorboard: bool = key(
        False, PACE, "also write curves for TensorBoard, in `output`; needs the library (pip install tensorboard)"
    )
    record_norms: bool = key(
        False, PACE, "record the norm of each parameter every log_freq steps, for `compare --assert-equal`"
    )
    checkpoint_interval: int = key(
        5, PACE, "epochs between two checkpoints; 0: only at the end", "epochs", ge=0, le=MOST_EPOCHS
    )
    checkpoint_minutes: float = key(
        0.0, PACE, "time after which a checkpoint is due inside an epoch too; 0: none", "min", ge=0, le=100_000
    )
    keep_best: bool = key(False, PACE, "also keep checkpoint.best.pt, of the evaluation with the highest mAP so far")
    division: Literal["open", "closed"] = key("open", RULE, "MLPerf division of the result")
    ruleset: Literal["0.7.0", "1.0.0", "1.1.0"] = key("1.1.0", RULE, "MLPerf rules the log is written for")
    submitter: str = key("unknown", RULE, "organisation in the result log")
    system: str = key("unknown", RULE, "system's name in the result log")

    @field_validator("*", mode="after")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Require that every text is short and printable, because it appears on terminals, in logs and file names."""
        if isinstance(value, str) and not (value.isprintable() and 1 <= len(value) <= LONGEST_TEXT):
            raise ValueError(f"must be 1 to {LONGEST_TEXT} printable characters")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        """Make a path absolute and expand `~`, because a run may be resumed from another current folder."""
        return absolute_path(value) if isinstance(value, Path) else value

    @field_validator("lr_decay_epochs", "eval_epochs")
    @classmethod
    def _ascending(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in zip((0, *epochs), epochs, strict=False)):
            raise ValueError("must be whole numbers from 1 on, each larger than the one before")
        if epochs and epochs[-1] > MOST_EPOCHS:
            raise ValueError(f"epochs are at most {MOST_EPOCHS}")
        return epochs

    @property
    def world_size(self) -> int:
        """The number of processes of the run over all hosts."""
        return self.nproc_per_node * self.nodes

    @property
    def global_batch(self) -> int:
        """The number of images of one optimizer step over all processes."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps
