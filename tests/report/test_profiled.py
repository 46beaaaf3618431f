"""A trace read: parts, own times, launches, waits and memory of a step that is written down here by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ssd.report.profiled import Part, Profile, read_trace


def span(category: str, name: str, begin: float, duration: float, thread: int = 1, **arguments: Any) -> dict:
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": duration, "tid": thread, "args": arguments}


def part(name: str, begin: float, duration: float) -> dict:
    return span("user_annotation", f"ssd: {name}", begin, duration)


def op(name: str, begin: float, duration: float, thread: int = 1) -> dict:
    return span("cpu_op", name, begin, duration, thread)


def memory(at: float, held: int, change: int, device: int = 0) -> dict:
    arguments = {"Total Allocated": held * 2**20, "Bytes": change * 2**20, "Device Type": device}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": at, "tid": 1, "args": arguments}


HOST = [
    {"ph": "M", "name": "process_name"},
    part("step", 0, 1000),
    part("data", 0, 100),
    part("forward", 100, 500),
    op("aten::conv2d", 110, 400),
    op("aten::mkldnn_convolution", 120, 300),
    op("aten::item", 450, 20),
    part("backward", 600, 400),
    op("aten::convolution_backward", 610, 100, thread=2),
    part("step", 1000, 3000),
    part("forward", 1000, 1000),
    op("aten::mkldnn_convolution", 1100, 700),
    op("aten::outside", 5000, 100),
    memory(105, 30, 10),
    memory(200, 50, 20),
    memory(620, 25, -25),
]


def waits(name: str) -> bool:
    return name == "aten::item"


def test_a_step_on_a_cpu() -> None:
    found = read_trace(HOST, waits)
    assert (found.steps, found.step_ms, found.device_ms) == (2, 2.0, None)
    parts = {one.name: one for one in found.parts}
    assert list(parts) == ["data", "forward", "backward"]
    assert (parts["data"].ms, parts["forward"].ms, parts["backward"].ms) == (0.05, 0.75, 0.2)
    assert (parts["forward"].memory_mib, parts["backward"].memory_mib, parts["data"].memory_mib) == (30.0, 5.0, 0.0)
    assert found.ops[0] == ("aten::mkldnn_convolution", 0.5, 1.0)
    own = {name: ms for name, ms, _ in found.ops}
    assert own["aten::conv2d"] == pytest.approx(0.04), "its own 80 of 400 us: the inner convolution and the item apart"
    assert found.launches == 2, "two convolutions, the item, and the backward; the outer one calls another"
    assert found.synchronisations == {"aten::item": 0.5}
    assert parts["forward"].host_synchronisations == 0.5


def test_a_step_on_an_accelerator() -> None:
    device = [
        span("cuda_runtime", "cudaLaunchKernel", 120, 5, correlation=1),
        span("cuda_runtime", "cudaLaunchKernel", 130, 5, correlation=2),
        span("cuda_runtime", "cudaStreamSynchronize", 610, 50, correlation=3),
        span("kernel", "gemm", 900, 400, 7, correlation=1),
        span("kernel", "relu", 1300, 100, 7, correlation=2),
        span("kernel", "gemm", 9000, 100, 7, correlation=9),
        memory(140, 5, 5, device=1),
    ]
    found = read_trace([*HOST, *device], waits)
    parts = {one.name: one for one in found.parts}
    assert found.device_ms == 0.25
    assert (parts["forward"].device_ms, parts["backward"].device_ms) == (0.25, 0.0)
    assert found.ops == [("gemm", 0.2, 0.5), ("relu", 0.05, 0.5)]
    assert found.launches == 1
    assert found.synchronisations == {"aten::item": 0.5, "cudaStreamSynchronize": 0.5}
    assert parts["forward"].memory_mib == 5.0, "the device's memory, and not the host's"


def test_a_trace_without_a_step() -> None:
    with pytest.raises(ValueError, match="no step"):
        read_trace([one for one in HOST if one["name"] != "ssd: step"], waits)


PARTS = [
    Part("data", 1.0, None, 1.0, 0.0),
    Part("forward", 30.0, None, 9.0, 0.0),
    Part("backward", 60.0, None, 9.0, 0.0),
]
CLEAN = Profile(5, 100.0, None, PARTS, [("aten::conv", 50.0, 9.0)], 700.0, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "backward takes the most, 60%; of all operations aten::conv takes the most, 50%"),
        (
            {"parts": [replace(PARTS[0], ms=20.0), *PARTS[1:]]},
            "waits for its batch for 20% of its time: raise num_workers",
        ),
        (
            {"device_ms": 75.0, "parts": [replace(PARTS[0], ms=10.0), replace(PARTS[1], device_ms=60.0)]},
            "forward takes the most, 80%",
        ),
        ({"device_ms": 40.0}, "The device works for 40% of a step, which has 700 launches: capture it"),
        (
            {
                "synchronisations": {"aten::item": 2.0},
                "parts": [PARTS[0], replace(PARTS[1], host_synchronisations=2.0)],
            },
            "aten::item makes the host wait for the device 2 times a step, in forward",
        ),
        (
            {"device_ms": 90.0, "parts": [replace(PARTS[1], device_ms=80.0), replace(PARTS[2], device_ms=10.0)]},
            "forward takes the most, 89%",
        ),
    ],
)
def test_the_first_thing_to_fix(changes: dict, words: str) -> None:
    profile = replace(CLEAN, **changes)
    assert words in profile.first_to_fix
    content = json.loads(profile.as_json(device="cpu"))
    assert content["first_to_fix"] == profile.first_to_fix
    assert (content["schema"], content["device"], content["steps"]) == ("ssd-profile-1", "cpu", 5)
