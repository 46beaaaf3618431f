"""Config: the keys of a run together, with the rules that bind several of them.

`ssd.config.resolve` makes a Config. One that breaks a bound or a rule cannot be made: pydantic raises ValidationError.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from ssd.config.keys import Keys
from ssd.config.roles import CLOSED_VALUES

__all__ = ["Config"]

Rule = tuple[tuple[str, ...], str]
"""The keys that together break a rule, and a sentence that says why and what to do."""


class Config(Keys):
    """Every key of a run, frozen. Each key is within its bounds, and no rule is broken."""

    @model_validator(mode="after")
    def _rules(self) -> Config:
        broken = list(_broken_rules(self))
        if broken:
            raise PydanticCustomError(
                "rules", "{text}", {"text": " ".join(sentence for _, sentence in broken), "broken": broken}
            )
        return self


def _broken_rules(config: Keys) -> Iterator[Rule]:
    """The combinations of keys with which no run is possible on any machine."""
    if config.nodes > 1 and config.master_addr is None:
        yield ("nodes", "master_addr"), "more than one host needs master_addr, the name or address of host 0."
    if config.node_rank >= config.nodes:
        yield ("node_rank", "nodes"), f"hosts count from 0: node_rank must be below nodes ({config.nodes})."
    if config.width != 1 and config.pretrained:
        yield ("width", "pretrained"), "a pretrained backbone has width 1: set pretrained = false, or width = 1."
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
    if config.decoded_cache is not None and config.data_backend in ("resident", "dali"):
        yield (
            ("decoded_cache", "data_backend"),
            f"data_backend = {config.data_backend} keeps no decoded images on the disk: set threads, or leave it out.",
        )
    if config.crop_op != "reference" and config.data_backend != "resident":
        yield (
            ("crop_op", "data_backend"),
            "only resident crops on the device: set data_backend = resident, or leave crop_op out.",
        )
    if config.cuda_graph:
        yield from _broken_graph_rules(config)
    elif config.graph_scope != "gradients":
        yield ("graph_scope", "cuda_graph"), "it says what CUDA graphs hold: set cuda_graph = true, or leave it out."
    if config.resume and config.output is None:
        yield ("resume", "output"), "to continue a run name its folder: output."
    if config.restart == "auto" and config.output is None:
        yield ("restart", "output"), "a command that goes on by itself needs the run's folder: output."
    if config.max_restarts and config.nodes > 1:
        yield (
            ("max_restarts", "nodes"),
            "a launcher restarts the processes of one host: on several, let the scheduler give the command again, with "
            "--restart auto.",
        )
    if config.resume_from != "newest" and not config.resume:
        yield ("resume_from", "resume"), "it says from where --resume goes on: give --resume too."
    if config.division == "closed":
        yield from _broken_closed_rules(config)


def _broken_graph_rules(config: Keys) -> Iterator[Rule]:
    """The broken rules of CUDA graphs: gradients have fixed addresses, and nothing in a graph asks the host."""
    if config.device == "cpu":
        yield ("cuda_graph", "device"), "CUDA graphs need a GPU: set cuda_graph = false."
    for name, value in (("ddp", "torch"), ("amp", "torch")):
        if getattr(config, name) != value:
            yield ("cuda_graph", name), f"cuda_graph needs {name} = {value}; or set cuda_graph = false."
    scope = config.graph_scope
    if scope != "gradients" and config.optimizer != "torch_fused":
        yield (
            ("graph_scope", "optimizer"),
            f"graph_scope = {scope} captures the optimizer: set optimizer = torch_fused, or graph_scope = gradients.",
        )
    if scope == "all" and config.detect_op == "reference":
        yield (
            ("graph_scope", "detect_op"),
            "the reference of detect waits for the device: name a kernel in detect_op, or set graph_scope = step.",
        )


def _broken_closed_rules(config: Keys) -> Iterator[Rule]:
    """The broken rules of the closed division in every round. The limits of each round are in ssd.mlperf."""
    for name, value in CLOSED_VALUES.items():
        if getattr(config, name) != value:
            yield (name, "division"), f"the closed division requires {name} = {value}; or set division = open."
    if config.data_backend == "synthetic":
        yield ("data_backend", "division"), "the closed division trains on real images; or set division = open."
    for name in ("submitter", "system"):
        if getattr(config, name) == "unknown":
            yield (name, "division"), f"the closed division requires {name}; or set division = open."
