"""The map of our parameters onto the 119 tensor names of closed round 1.1."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import yaml

from ssd.errors import ConfigError
from ssd.mlperf.tensors import mlperf_tensor_names
from ssd.model.ssd300 import SSD300


def names_of_the_rules() -> list[str]:
    """The 119 names, read from the official checker's own file."""
    text = (resources.files("mlperf_logging.compliance_checker") / "training_1.1.0/closed_ssd.yaml").read_text()
    end = next(entry["END"] for entry in yaml.load(text, yaml.BaseLoader) if "END" in entry)
    return re.findall(r"ssd0_\w+", end["CHECK"])


def test_our_131_parameters_map_onto_the_119_names(parameters: list[str]) -> None:
    names = mlperf_tensor_names(parameters)
    rules = names_of_the_rules()
    assert len(names) == 131
    assert len(rules) == 119
    assert sorted(set(names.values())) == sorted(rules)


def test_these_are_the_parameters_of_our_model(parameters: list[str]) -> None:
    assert sorted(name for name, _ in SSD300(width=0.0625).named_parameters()) == sorted(parameters)


def test_the_map_follows_the_order_in_which_the_rules_model_is_built(parameters: list[str]) -> None:
    names = mlperf_tensor_names(parameters)
    assert names["trunk.layer1.2.bn2.bias"] == "ssd0_resnetmlperf0_stage1_batchnorm5_beta"
    assert names["trunk.layer2.0.downsample.0.weight"] == "ssd0_resnetmlperf0_stage2_conv2_weight"
    assert names["trunk.layer2.1.conv1.weight"] == "ssd0_resnetmlperf0_stage2_conv3_weight"
    assert names["trunk.layer3.5.conv2.weight"] == "ssd0_resnetmlperf0_stage3_conv12_weight"
    assert names["extras.4.0.bias"] == "ssd0_expand_trans_conv4_bias"
    assert names["extras.4.2.bias"] == "ssd0_expand_conv4_bias"
    assert names["class_heads.3.weight"] == names["location_heads.3.weight"] == "ssd0_convpredictor3_conv0_weight"


@pytest.mark.parametrize(
    "name", ["trunk.layer4.0.conv1.weight", "trunk.fc.bias", "extras.0.4.weight", "heads.0.weight"]
)
def test_a_tensor_without_a_place_is_an_error_that_names_it(parameters: list[str], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        mlperf_tensor_names([*parameters, name])
