"""Settings are tried one after the other, each on top of those that helped."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssd.compute.device import Abilities
from ssd.config import Config
from ssd.measure import settings
from ssd.measure.settings import Option, Trial, options, search

CPU = Abilities(torch.device("cpu"))


def test_what_helps_is_kept_and_the_next_is_tried_with_it() -> None:
    asked: list[Mapping[str, Any]] = []

    def rate(changed: Mapping[str, Any]) -> float:
        asked.append(changed)
        if changed.get("train_batch_size") == 64:
            raise torch.OutOfMemoryError
        return {"nhwc": 110.0, "precision": 112.0, "compile": 140.0}[list(changed)[-1]]

    tries = [
        Option("nhwc", True),
        Option("precision", "bf16"),
        Option("precision", "fp16", "this device lacks it"),
        Option("compile", True),
        Option("train_batch_size", 64),
    ]
    chosen, trials = search(Config(pretrained=False), 100.0, iter(tries), rate)
    assert chosen == {"nhwc": True, "compile": True}
    assert asked[1:3] == [{"nhwc": True, "precision": "bf16"}, {"nhwc": True, "compile": True}]
    assert trials == [
        Trial("nhwc", True, 110.0, True),
        Trial("precision", "bf16", 112.0, False),
        Trial("precision", "fp16", None, False, "this device lacks it"),
        Trial("compile", True, 140.0, True),
        Trial("train_batch_size", 64, None, False, "the device has not the memory"),
    ]


def test_what_a_config_and_a_cpu_rule_out_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "native_units", dict)
    found = list(options(Config(pretrained=False, train_batch_size=4), CPU))
    assert [(one.key, one.value, bool(one.refused)) for one in found] == [
        ("nhwc", True, False),
        ("precision", "bf16", True),
        ("compile", True, True),
        ("train_batch_size", 8, False),
        ("train_batch_size", 2, False),
    ]
    monkeypatch.setattr(settings, "native_units", lambda: {"bf16": "amx_bf16"})
    assert [one.refused for one in options(Config(pretrained=False), CPU) if one.key == "precision"] == [""]
    chosen = Config(pretrained=False, precision="bf16", compile=True, nhwc=True, train_batch_size=1)
    assert [(one.key, one.value) for one in options(chosen, CPU)] == [("nhwc", False), ("train_batch_size", 2)]


def device(**has: bool) -> Any:
    """An accelerator with these abilities: channels_last, compiles, bf16, fp16."""
    return SimpleNamespace(
        is_host=False,
        channels_last=has.get("channels_last", False),
        compiles=has.get("compiles", False),
        autocast=lambda precision: has.get(precision, False),
    )


def tried(abilities: Any, quick: bool = False, **keys: Any) -> list[tuple[str, Any, str]]:
    return [(one.key, one.value, one.refused) for one in options(Config(pretrained=False, **keys), abilities, quick)]


def test_what_an_accelerator_has_and_lacks() -> None:
    lacks = "this device lacks it"
    batches = [("train_batch_size", 64, ""), ("train_batch_size", 16, "")]
    assert tried(device()) == [
        ("nhwc", True, lacks),
        ("precision", "bf16", lacks),
        ("precision", "fp16", lacks),
        ("compile", True, lacks),
        *batches,
    ]
    assert tried(device(channels_last=True, compiles=True, bf16=True)) == [
        ("nhwc", True, ""),
        ("precision", "bf16", ""),
        ("compile", True, ""),
        *batches,
    ]
    assert tried(device(fp16=True, compiles=True), quick=True, nhwc=True) == [
        ("nhwc", False, ""),
        ("precision", "bf16", lacks),
        ("precision", "fp16", ""),
        ("compile", True, "--quick"),
        *batches,
    ]


def test_why_a_cpu_does_not_try_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "native_units", dict)
    refused = {key: why for key, _, why in tried(CPU, train_batch_size=2)}
    assert refused == {
        "nhwc": "",
        "precision": "emulated by this CPU, and slower",
        "compile": "compiling takes minutes on a CPU, and gained nothing",
        "train_batch_size": "",
    }


def test_a_gain_at_the_bound_is_kept() -> None:
    chosen, trials = search(Config(pretrained=False), 100.0, iter([Option("nhwc", True)]), lambda changed: 103.0)
    assert chosen == {"nhwc": True}
    assert trials == [Trial("nhwc", True, 103.0, True)]
