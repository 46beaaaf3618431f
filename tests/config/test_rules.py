"""Rules that bind several keys: each combination that breaks one is refused, and its neighbours are not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ssd.config.rules import Config

TWO_HOSTS = {"nodes": 2, "master_addr": "h"}
WHOLE = {"cuda_graph": True, "graph_scope": "step", "optimizer": "torch_fused"}
CLOSED = {"division": "closed", "submitter": "a", "system": "b"}


def broken(values: dict[str, Any]) -> list[tuple[str, ...]]:
    """The keys of each rule that a config with these values breaks."""
    try:
        Config(**values)
    except ValidationError as error:
        return [tuple(keys) for one in error.errors() for keys, _ in one["ctx"]["broken"]]
    return []


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"nodes": 2}, [("nodes", "master_addr")]),
        ({"nodes": 1}, []),
        ({"data_backend": "resident"}, []),
        ({"data_backend": "resident", "decoded_cache": "/x"}, [("decoded_cache", "data_backend")]),
        ({"data_backend": "dali", "decoded_cache": "/x"}, [("decoded_cache", "data_backend")]),
        ({"data_backend": "threads", "decoded_cache": "/x"}, []),
        (TWO_HOSTS, []),
        (TWO_HOSTS | {"node_rank": 1}, []),
        (TWO_HOSTS | {"node_rank": 2}, [("node_rank", "nodes")]),
        ({"width": 0.5}, [("width", "pretrained")]),
        ({"width": 0.5, "pretrained": False}, []),
        ({"width": 1, "pretrained": False}, []),
        ({"nproc_per_node": 4, "bn_group": 3}, [("bn_group", "nproc_per_node", "nodes")]),
        ({"nproc_per_node": 4, "bn_group": 8}, [("bn_group", "nproc_per_node", "nodes")]),
        (TWO_HOSTS | {"nproc_per_node": 4, "bn_group": 8}, []),
        ({"nproc_per_node": 4, "bn_group": 2}, []),
        ({"amp": "apex_o2", "precision": "bf16"}, [("amp", "precision")]),
        ({"amp": "apex_o2"}, []),
        ({"precision": "bf16"}, []),
        ({"amp": "apex_o2", "gradient_accumulation_steps": 2}, [("amp", "gradient_accumulation_steps")]),
        ({"ddp": "apex", "gradient_accumulation_steps": 2}, [("ddp", "gradient_accumulation_steps")]),
        ({"ddp": "apex", "gradient_accumulation_steps": 1}, []),
        ({"gradient_accumulation_steps": 2}, []),
        ({"ddp": "apex", "allreduce_dtype": "bf16"}, [("allreduce_dtype", "ddp")]),
        ({"allreduce_dtype": "bf16"}, []),
        ({"ddp": "apex"}, []),
        ({"crop_op": "triton"}, [("crop_op", "data_backend")]),
        ({"crop_op": "triton", "data_backend": "resident"}, []),
        ({"cuda_graph": True}, []),
        ({"cuda_graph": True, "device": "cuda"}, []),
        ({"cuda_graph": True, "device": "cpu"}, [("cuda_graph", "device")]),
        ({"cuda_graph": True, "nproc_per_node": 2, "bn_group": 2}, []),
        (WHOLE, []),
        (WHOLE | {"cuda_graph": False}, [("graph_scope", "cuda_graph")]),
        (WHOLE | {"optimizer": "torch"}, [("graph_scope", "optimizer")]),
        (WHOLE | {"graph_scope": "all"}, [("graph_scope", "detect_op")]),
        (WHOLE | {"graph_scope": "all", "detect_op": "triton"}, []),
        ({"cuda_graph": True, "ddp": "apex"}, [("cuda_graph", "ddp")]),
        ({"cuda_graph": True, "amp": "apex_o2"}, [("cuda_graph", "amp")]),
        ({"device": "cpu", "ddp": "apex"}, []),
        ({"resume": True}, [("resume", "output")]),
        ({"resume": True, "output": "/x"}, []),
        ({"restart": "auto"}, [("restart", "output")]),
        ({"restart": "auto", "output": "/x"}, []),
        ({"max_restarts": 1, "nodes": 2, "master_addr": "a"}, [("max_restarts", "nodes")]),
        ({"max_restarts": 1000}, []),
        ({"resume_from": "previous"}, [("resume_from", "resume")]),
        ({"resume_from": "previous", "resume": True, "output": "/x"}, []),
        ({"output": "/x"}, []),
        (CLOSED, []),
        ({"division": "closed"}, [("submitter", "division"), ("system", "division")]),
        (CLOSED | {"data_backend": "synthetic"}, [("data_backend", "division")]),
        (CLOSED | {"num_classes": 80}, [("num_classes", "division")]),
        ({"division": "open", "data_backend": "synthetic", "num_classes": 80}, []),
    ],
    ids=str,
)
def test_a_combination_is_refused_by_its_keys_or_allowed(values: dict[str, Any], keys: list[tuple[str, ...]]) -> None:
    assert broken(values) == keys


def test_all_broken_rules_are_said_at_once() -> None:
    with pytest.raises(ValidationError, match=r"master_addr.*\n?.*pretrained = false"):
        Config(nodes=2, width=0.5)


def test_keys_that_break_no_rule_are_a_config() -> None:
    assert Config.model_validate({"seed": 3}) == Config(seed=3)
