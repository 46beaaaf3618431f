"""What is asked of a device, on devices that are played: what a module lacks or refuses has a default."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssd.compute import device
from ssd.compute.device import NEEDED_DTYPES, Abilities, device_count, is_known, select
from ssd.errors import MachineError

CPU = torch.device("cpu")


def refuse(*arguments: Any) -> Any:
    raise NotImplementedError("not on this device")


def played(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> Abilities:
    """Abilities of `xpu`, a type that torch knows everywhere, whose module has these functions alone."""
    monkeypatch.setattr(torch, "xpu", SimpleNamespace(**functions))
    return Abilities(torch.device("xpu", 0))


def test_the_host_has_everything_that_needs_no_copy() -> None:
    host = Abilities(CPU)
    assert host.float64
    assert host.channels_last
    assert host.bfloat16
    assert host.autocast("bf16")
    assert not host.pinned_memory
    assert not host.timed_events
    assert not host.sync_batch_norm
    assert not host.side_copies
    assert (host.name, host.free_bytes, host.peak_bytes, host.random_state()) == ("unknown", None, None, None)
    assert isinstance(host.side_stream(), nullcontext)
    host.synchronize()


def test_an_empty_module_answers_by_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device itself is not here, so no tensor is made on it and nothing can be tried."""
    one = played(monkeypatch)
    assert (one.name, one.free_bytes, one.peak_bytes, one.random_state()) == ("unknown", None, None, None)
    assert isinstance(one.side_stream(), nullcontext)
    assert not one.timed_events
    assert not one.pinned_memory
    assert select("xpu", 3) == torch.device("xpu", 3)
    assert device_count("xpu") == 0
    assert one.lacking() == [
        "float64", "page-locked memory", "timed events", "a name", "channels-last", "bf16", "fp16"
    ]  # fmt: skip


def test_functions_that_refuse_are_as_good_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("get_device_name", "mem_get_info", "get_rng_state", "Stream", "Event", "set_device", "device_count")
    one = played(monkeypatch, **dict.fromkeys(names, refuse))
    assert (one.name, one.free_bytes, one.random_state()) == ("unknown", None, None)
    assert isinstance(one.side_stream(), nullcontext)
    assert not one.timed_events
    assert select("xpu", 1) == torch.device("xpu", 1)
    assert device_count("xpu") == 0


def test_what_a_module_says_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = object()
    one = played(
        monkeypatch,
        is_available=lambda: True,
        device_count=lambda: 4,
        get_device_name=lambda device: f"Acme {device.index}",
        mem_get_info=lambda device: (7, 9),
        max_memory_allocated=lambda device: 11,
        get_rng_state=lambda: torch.ones(2),
        Stream=lambda: stream,
        stream=lambda given: ("beside", given),
    )
    assert device_count("xpu") == 4
    assert (one.name, one.free_bytes, one.peak_bytes) == ("Acme 0", 7, 11)
    assert one.random_state().tolist() == [1, 1]  # type: ignore[union-attr]
    assert one.side_stream() == ("beside", stream)


def test_a_type_that_is_not_available_has_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, is_available=lambda: False, device_count=lambda: 4)
    assert device_count("xpu") == 0


@pytest.mark.parametrize("kind", ["acme", "cuda0", ""])
def test_an_unknown_type_has_no_device(kind: str) -> None:
    assert not is_known(kind)
    assert device_count(kind) == 0


def test_a_device_that_cannot_be_chosen_is_the_machine_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(index: int) -> None:
        raise RuntimeError("invalid ordinal")

    played(monkeypatch, set_device=fail)
    with pytest.raises(MachineError, match="torch cannot choose the device xpu:2: invalid ordinal"):
        select("xpu", 2)


def test_events_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot tell the time is of no use to a clock."""

    class Untimed:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None: ...

        def synchronize(self) -> None: ...

        elapsed_time = refuse

    class Timed(Untimed):
        def elapsed_time(self, later: Any) -> float:
            return 1500.0

    assert not played(monkeypatch, Event=Untimed).timed_events
    one = played(monkeypatch, Event=Timed)
    assert one.timed_events
    assert one.seconds_between(one.event(), one.event()) == 1.5


def test_memory_that_torch_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert played(monkeypatch, memory_reserved=lambda device: 13.0).held_bytes == 13
    assert played(monkeypatch).held_bytes is None
    assert Abilities(CPU).held_bytes is None


def test_a_product_of_another_type_or_value_is_no_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Abilities(CPU)
    host._multiply_in("bf16")
    monkeypatch.setattr(device, "autocast", lambda device, precision: nullcontext())
    with pytest.raises(RuntimeError, match=r"gave torch\.float32"):
        host._multiply_in("bf16")
    monkeypatch.undo()
    assert host.autocast("bf16")
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, **options: ones(*size, **options) * 3)
    assert not host.autocast("bf16")


def test_a_device_without_synchronize_is_waited_for_by_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device=None: asked.append(device) or ones(*size))
    called: list[int] = []
    played(monkeypatch, synchronize=lambda: called.append(1)).synchronize()
    assert (called, asked) == ([1], [])
    played(monkeypatch).synchronize()
    assert asked == [torch.device("xpu", 0)]
    Abilities(CPU).synchronize()
    assert len(asked) == 1


def test_copies_beside_the_computation_need_streams_that_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    ones = torch.ones

    class Stream:
        def __init__(self, device: Any) -> None:
            told.append(f"stream of {device}")

        def wait_event(self, event: Any) -> None:
            told.append("side waits")

    class Event:
        def record(self) -> None:
            told.append("recorded")

    current = SimpleNamespace(wait_event=lambda event: told.append("current waits"))
    one = played(
        monkeypatch,
        Stream=Stream,
        Event=Event,
        stream=lambda given: nullcontext(),
        current_stream=lambda device: current,
    )
    arrived = SimpleNamespace(item=lambda: 1)
    monkeypatch.setattr(torch, "ones", lambda *size, **how: SimpleNamespace(to=lambda device, **how: arrived))
    one._copy_beside()
    assert told == ["stream of xpu:0", "recorded", "current waits", "recorded", "side waits"]
    arrived.item = lambda: 0
    with pytest.raises(RuntimeError, match="has not arrived"):
        one._copy_beside()
    monkeypatch.setattr(torch, "ones", ones)
    assert not one.side_copies, "it has no page-locked memory"


def test_each_ability_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def event(enable_timing: bool) -> Any:
        tried.append(1)
        raise RuntimeError

    one = played(monkeypatch, Event=event)
    assert [one.timed_events, one.timed_events] == [False, False]
    assert len(tried) == 1


def test_no_memory_is_not_a_missing_ability(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*sizes: int, **options: Any) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch, "ones", full)
    with pytest.raises(torch.OutOfMemoryError):
        Abilities(CPU).float64  # noqa: B018


def test_the_page_names_every_ability_and_what_a_device_must_have(root: Path) -> None:
    page = (root / "docs" / "porting.md").read_text(encoding="utf-8")
    own = {"module", "is_host", "event", "seconds_between", "lacking"}
    own |= {"new_stream", "on_stream", "current_stream", "untimed_event"}
    abilities = {name for name in vars(Abilities) if not name.startswith("_")} - own | {"select"}
    assert [name for name in sorted(abilities) if f"`{name}`" not in page] == []
    assert device.__doc__ is not None
    assert [name for name in sorted(abilities) if f"\n{name} " not in device.__doc__] == []
    needed = [str(dtype).removeprefix("torch.") for dtype in NEEDED_DTYPES]
    assert f"tensors of {', '.join(needed[:-1])} and {needed[-1]}" in page


def test_torch_s_sync_batch_norm_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "batch_norm_stats", lambda x, epsilon: (tried.append(x), [x.mean()])[1], raising=False)
    assert Abilities(CPU).sync_batch_norm
    assert [one.shape for one in tried] == [(2, 2, 2, 2)]


@pytest.mark.parametrize("fails", ["", "to", "copy_", "pin_memory"])
def test_page_locked_memory_is_tried_from_there_and_back(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """Some backends can pin, and cannot copy from what is pinned; some pin at once, and not afterwards."""
    told: list[object] = []

    class Memory:
        def noted(self, name: str, about: object = None) -> str:
            told.append((name, about))
            if name == fails:
                raise RuntimeError("not here")
            return "what is there"

        def to(self, there: torch.device, non_blocking: bool) -> str:
            return self.noted("to", there.type)

        def copy_(self, there: str, non_blocking: bool) -> str:
            return self.noted("copy_", there)

        def pin_memory(self) -> str:
            return self.noted("pin_memory")

    monkeypatch.setattr(torch, "ones", lambda size, pin_memory: Memory() if pin_memory else None)
    monkeypatch.setattr(torch, "zeros", lambda size: Memory())
    assert Abilities(torch.device("meta")).pinned_memory == (not fails)
    every = [("to", "meta"), ("copy_", "what is there"), ("pin_memory", None)]
    assert told == every[: 1 + [name for name, _ in every].index(fails or "pin_memory")]
