"""The vendor seam: defaults that work, folders loaded by path, overrides asked for by name, and each refusal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssd.config import Config, Resolved, resolve
from ssd.errors import EXIT_BAD_CONFIG, EXIT_MACHINE, ConfigError, MachineError
from ssd.ops import REFERENCE
from ssd.vendor import Check, Override, Vendor, load_vendor, require_machine, select_ops, vendor_folders

SMALL = Config(width=0.25, pretrained=False, train_batch_size=2, eval_batch_size=2)
WORKING = "import ssd.vendor\n\nclass Vendor(ssd.vendor.Vendor):\n    device_type = 'cpu'\n"

Folder = Callable[..., dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Writes a vendor's files into <tmp>/vendors/<name> and gives the environment in which it is found."""

    def write(name: str = "acme", **files: str) -> dict[str, str]:
        for file, text in files.items():
            path = tmp_path / "vendors" / name / file.replace("__", "/")
            path = path.with_suffix(".toml" if path.parent.name == "config" else ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {"SSD_VENDOR_PATH": str(tmp_path / "vendors")}

    before = set(sys.modules)
    yield write
    for module in set(sys.modules) - before:
        if module.startswith("ssd_vendor_"):
            del sys.modules[module]


# Finding and loading


def test_the_repositorys_vendors_are_found(root: Path) -> None:
    found = vendor_folders({})
    assert {"cpu", "iluvatar", "nvidia"} <= set(found)
    assert found["cpu"] == root / "cpu"
    assert list(found) == sorted(found)


def test_a_vendor_of_two_files_in_a_folder_of_its_own(folder: Folder) -> None:
    environ = folder(vendor=WORKING, config__X1x1x1='extends = "smoke"\nseed = 7\n')
    vendor = load_vendor("acme", environ)
    found = resolve(["--name", "acme", "--config", "X1x1x1"], environ)
    assert (vendor.name, vendor.device_type) == ("acme", "cpu")
    assert (found.config.seed, found.config.width) == (7, 0.25)
    assert found.provenance["width"] == "base/config/smoke.toml"
    require_machine(vendor, found)


def test_relative_imports_work_and_the_folders_name_stays_free(folder: Folder) -> None:
    environ = folder("nvidiaish", vendor=WORKING + "    from .kernels import speed\n", kernels="speed = 9\n")
    assert load_vendor("nvidiaish", environ).speed == 9  # type: ignore[attr-defined]
    assert "nvidiaish" not in sys.modules
    assert {"ssd_vendor_nvidiaish", "ssd_vendor_nvidiaish.kernels"} <= set(sys.modules)
    assert environ["SSD_VENDOR_PATH"] not in sys.path


def test_a_vendor_is_loaded_once(folder: Folder) -> None:
    environ = folder(vendor=WORKING)
    assert type(load_vendor("acme", environ)) is type(load_vendor("acme", environ))


def test_a_namesake_in_another_folder_is_another_vendor(folder: Folder, tmp_path: Path) -> None:
    environ = folder(vendor=WORKING + "    from .kernels import speed\n", kernels="speed = 9\n")
    load_vendor("acme", environ)
    other = tmp_path / "other" / "acme"
    other.mkdir(parents=True)
    (other / "vendor.py").write_text(WORKING + "    from .kernels import speed\n")
    (other / "kernels.py").write_text("speed = 10\n")
    assert load_vendor("acme", {"SSD_VENDOR_PATH": str(other.parent)}).speed == 10  # type: ignore[attr-defined]


def test_an_unknown_vendor_lists_those_found(folder: Folder) -> None:
    environ = folder(vendor=WORKING)
    with pytest.raises(ConfigError, match=r"'acmee'\. Did you mean 'acme'\? Found: acme, amd, cpu, iluvatar, nvidia"):
        load_vendor("acmee", environ)


def test_two_vendors_of_one_name_are_refused(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="two vendors are called 'cpu'"):
        vendor_folders(folder("cpu", vendor=WORKING))


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SSD_VENDOR_PATH names .*nowhere"):
        vendor_folders({"SSD_VENDOR_PATH": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("class Vendor(:\n", ConfigError, r"vendor\.py, line 1: SyntaxError"),
        ("x = 1\ny = undefined\n", ConfigError, r"vendor\.py, line 2: NameError"),
        ("import a_library_nobody_has\n", MachineError, r"vendor\.py, line 1: ModuleNotFoundError.*Install"),
        ("from .absent import x\n", MachineError, r"vendor\.py, line 1: ModuleNotFoundError"),
        ("x = 1\n", ConfigError, "defines no class Vendor"),
        ("class Vendor:\n    pass\n", ConfigError, "defines no class Vendor"),
        ("from ssd.vendor import Vendor\n", ConfigError, "defines no class Vendor"),
    ],
)
def test_a_broken_vendor_py_is_named_with_its_line(folder: Folder, text: str, error: type, words: str) -> None:
    environ = folder(vendor=text)
    for _ in range(2):  # the second time too: nothing half-loaded stays behind
        with pytest.raises(error, match=words):
            load_vendor("acme", environ)


# Defaults on any device


@pytest.fixture
def cpu() -> Vendor:
    return load_vendor("cpu")


def test_a_vendor_needs_no_home_folder(homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSD_CACHE_DIR", raising=False)
    assert Vendor("any", tmp_path).cache_dir == Path("~/.cache/ssd")
    assert Vendor("any", tmp_path).folder == tmp_path


def test_set_up_and_backend(cpu: Vendor) -> None:
    device = cpu.set_up(SMALL, local_rank=3)
    assert device == torch.device("cpu")
    assert cpu.backend_for(device) == "gloo"


def test_another_device_than_the_vendors_goes_by_gloo() -> None:
    nvidia = load_vendor("nvidia")
    assert nvidia.backend_for(torch.device("cuda", 0)) == "nccl"
    assert nvidia.backend_for(torch.device("cpu")) == "gloo"
    assert nvidia.set_up(SMALL.model_copy(update={"device": "cpu"}), 0) == torch.device("cpu")


def test_the_optimizer_has_one_group_with_decay_on_everything(cpu: Vendor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = cpu.make_optimizer(model, SMALL.model_copy(update={"weight_decay_rate": 0.125}), 0.5)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.9, 0.125)
    assert not group["nesterov"]
    assert group["dampening"] == 0
    assert len(group["params"]) == 4


@pytest.mark.parametrize("nhwc", [False, True])
def test_the_model_gets_the_layout_asked_for(cpu: Vendor, nhwc: bool) -> None:
    config = SMALL.model_copy(update={"nhwc": nhwc})
    model = cpu.convert_model(nn.Conv2d(3, 4, 3), config, torch.device("cpu"))
    assert model.weight.is_contiguous(memory_format=torch.channels_last) is nhwc


@pytest.mark.parametrize("asked", [False, True])
def test_the_model_is_compiled_where_asked_for(cpu: Vendor, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: calls.append(how))
    cpu.convert_model(nn.Conv2d(3, 4, 3), SMALL.model_copy(update={"compile": asked}), torch.device("cpu"))
    assert calls == [{"backend": "inductor", "dynamic": False}] * asked


@pytest.mark.parametrize(("asked", "options"), [(False, {}), (True, {"options": {"combo_kernels": True}})])
def test_kernels_are_joined_where_asked_for(
    cpu: Vendor, asked: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: calls.append(how))
    keys = {"compile": True, "combo_kernels": asked}
    cpu.convert_model(nn.Conv2d(3, 4, 3), SMALL.model_copy(update=keys), torch.device("cpu"))
    assert calls == [{"backend": "inductor", "dynamic": False, **options}]
    assert "combo_kernels" in torch._inductor.list_options()


def test_nothing_is_read_or_built_by_default(cpu: Vendor, tmp_path: Path) -> None:
    assert cpu.telemetry(torch.device("cpu")) == {}
    assert cpu.build(tmp_path) == []
    assert cpu.overrides() == ()
    assert all(isinstance(value, str) for value in cpu.describe_system().values())


def test_caches_are_dropped_or_it_says_why_not(cpu: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.vendor.interface.DROP_CACHES", tmp_path / "drop_caches")
    assert cpu.why_caches_stay() is None
    assert (tmp_path / "drop_caches").read_text() == "3\n"
    monkeypatch.setattr("ssd.vendor.interface.DROP_CACHES", tmp_path / "no" / "such")
    assert "not dropped" in (cpu.why_caches_stay() or "")


def test_apex_and_fused_optimizers_are_asked_for_by_name(cpu: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.compute.apex.fused_sgd", lambda model, **values: values)
    model = nn.Linear(1, 1)
    values = {"momentum": 0.9, "weight_decay": SMALL.weight_decay_rate, "learning_rate": 0.5}
    assert cpu.make_optimizer(model, SMALL.model_copy(update={"optimizer": "apex_fused_sgd"}), 0.5) == values
    for name, fused in (("torch", False), ("torch_fused", True)):
        optimizer = cpu.make_optimizer(model, SMALL.model_copy(update={"optimizer": name}), 0.5)
        assert bool(optimizer.param_groups[0]["fused"]) is fused


@pytest.mark.parametrize(("kind", "device_ids"), [("cpu", None), ("cuda", [1])])
@pytest.mark.parametrize("name", ["forward_sync_buffers", "broadcast_buffers"])
def test_the_model_is_wrapped_for_averaged_gradients(
    cpu: Vendor, kind: str, device_ids: list | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own wrapper, by either name of its argument, which leaves batch norm alone; in bf16 where asked."""
    made: list[Any] = []

    def wrapper(model: nn.Module, device_ids=None, gradient_as_bucket_view=False, **off: Any) -> str:
        made.append((device_ids, gradient_as_bucket_view, off))
        return "wrapped"

    def signature(wrapper: Any) -> Any:
        return SimpleNamespace(parameters={name: None})

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", wrapper)
    monkeypatch.setattr("ssd.vendor.interface.inspect.signature", signature)
    monkeypatch.setattr("ssd.vendor.interface.communicate_in_bf16", made.append)
    device = torch.device(kind, 1) if kind == "cuda" else torch.device(kind)
    assert cpu.distribute(nn.Linear(1, 1), SMALL, device) == "wrapped"
    assert made == [(device_ids, True, {name: False})]
    cpu.distribute(nn.Linear(1, 1), SMALL.model_copy(update={"allreduce_dtype": "bf16"}), device)
    assert made[2:] == ["wrapped"]


def test_apex_wraps_where_it_is_asked_for(cpu: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.compute.apex.distributed", lambda model, **values: values)
    config = SMALL.model_copy(update={"ddp": "apex", "gradient_accumulation_steps": 3})
    assert cpu.distribute(nn.Linear(1, 1), config, torch.device("cpu")) == {"gradient_accumulation_steps": 3}


def test_accelerators_are_counted_and_named(monkeypatch: pytest.MonkeyPatch, cpu: Vendor) -> None:
    monkeypatch.setattr("ssd.vendor.interface.device_count", lambda kind: 4)
    assert cpu.describe_system() == {"accelerators_per_node": "0", "accelerator_model_name": "none"}
    nvidia = Vendor("acme", Path("acme"))
    nvidia.device_type = "cuda"
    monkeypatch.setattr(nvidia, "abilities", lambda device: SimpleNamespace(name=f"Acme {device}"))
    assert nvidia.describe_system() == {"accelerators_per_node": "4", "accelerator_model_name": "Acme cuda:0"}
    monkeypatch.setattr("ssd.vendor.interface.device_count", lambda kind: 0)
    assert nvidia.describe_system()["accelerator_model_name"] == "none"


def test_checks_of_the_vendors_torch_come_first_and_only_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = Vendor("acme", Path("acme"))
    vendor.device_type = "cuda"
    monkeypatch.setattr(vendor, "torch_checks", lambda: [Check("torch", True, "")])
    assert [check.what for check in vendor.checks(SMALL)] == ["torch", "1 device of type cuda"]
    elsewhere = SMALL.model_copy(update={"device": "cpu"})
    on_the_cpu = ["memory for 1 x batch 2 on the CPU", "precisions of this CPU"]
    assert [check.what for check in vendor.checks(elsewhere)] == on_the_cpu
    device = torch.device("cpu")
    assert vendor.abilities(device) is vendor.abilities(device)
    assert vendor.key_checks(SMALL, device) == []


# The machine


def test_devices_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    vendor = load_vendor("nvidia")
    with pytest.raises(MachineError) as refusal:
        require_machine(vendor, Resolved(SMALL, dict.fromkeys(Config.model_fields, "default")))
    assert refusal.value.exit_code == EXIT_MACHINE
    assert "--device cpu" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_fewer_devices_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    vendor = load_vendor("nvidia")
    checks = [check for check in vendor.checks(SMALL.model_copy(update={"nproc_per_node": 4})) if not check.ok]
    assert checks[-1].remedy == "set nproc_per_node to at most 2"
    assert vendor.checks(SMALL.model_copy(update={"nproc_per_node": 2}))[-1].ok


def test_a_device_type_that_torch_has_not() -> None:
    check = load_vendor("cpu").checks(SMALL.model_copy(update={"device": "abacus"}))[0]
    assert not check.ok


@pytest.mark.parametrize("missing", ["nproc_per_node", "train_batch_size"])
def test_another_device_asks_for_sizes_on_the_command_line(missing: str) -> None:
    flags = {"nproc_per_node": "1", "train_batch_size": "2"}
    del flags[missing]
    argv = ["--name", "nvidia", "--config", "V100x1x8", "--device", "cpu"]
    argv += [word for key, value in flags.items() for word in (f"--{key}", value)]
    with pytest.raises(ConfigError, match=f"Give --{missing} on the command line") as refusal:
        require_machine(load_vendor("nvidia"), resolve(argv, {}))
    assert refusal.value.exit_code == EXIT_BAD_CONFIG


@pytest.mark.parametrize("name", ["nvidia", "iluvatar"])
def test_another_device_with_sizes_runs(name: str) -> None:
    argv = [
        "--name",
        name,
        "--config",
        "V100x1x8",
        "--device",
        "cpu",
        "--nproc_per_node",
        "1",
        "--train_batch_size",
        "2",
    ]
    require_machine(load_vendor(name), resolve(argv, {}))


def test_a_run_that_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.vendor.checks.available_bytes", lambda: 2**30)
    resolved = Resolved(
        SMALL.model_copy(update={"train_batch_size": 64}), dict.fromkeys(Config.model_fields, "default")
    )
    with pytest.raises(MachineError, match=r"memory for 1 x batch 64.*lower train_batch_size"):
        require_machine(load_vendor("cpu"), resolved)
    monkeypatch.setattr("ssd.vendor.checks.available_bytes", lambda: None)
    require_machine(load_vendor("cpu"), resolved)


# Overrides


def fast_loss(*arguments: Any) -> Any:
    """Stands for a kernel."""


class Overriding(Vendor):
    """A vendor with one override of the loss, whose means and loading a test sets."""

    means: Sequence[str] = ("hardware", "emulator")
    failure: Exception | None = None

    def overrides(self) -> Sequence[Override]:
        def load(means: str) -> Callable[..., Any]:
            assert means == "hardware"
            if self.failure:
                raise self.failure
            return fast_loss

        return [Override("loss", "fast", "acme/kernels/loss.py", load, lambda: self.means)]


@pytest.fixture
def overriding() -> Overriding:
    return Overriding("acme", Path("acme"))


FAST = SMALL.model_copy(update={"loss_op": "fast"})


def test_keys_of_a_vendors_own_reach_what_gets_no_config(folder: Folder) -> None:
    """keys.py beside vendor.py: `overrides` sees the run's value, and the default where there is no run."""
    keys = "from ssd.config import COMPUTE, VendorKeys, key\n"
    keys += 'class Keys(VendorKeys):\n    speed: int = key(9, COMPUTE, "", ge=1)\n'
    text = (
        WORKING
        + "    def overrides(self):\n        from .keys import Keys\n        return [Keys.of(self.config).speed]\n"
    )
    environ = folder(vendor=text, keys=keys)
    vendor = load_vendor("acme", environ)
    assert vendor.overrides() == [9]
    select_ops(vendor, resolve(["--name", "acme", "--acme.speed", "11"], environ).config)
    assert vendor.overrides() == [11]


def test_the_reference_is_the_default(overriding: Overriding) -> None:
    assert select_ops(overriding, SMALL) == (REFERENCE, [])


def test_an_override_replaces_its_op_alone_and_is_logged(overriding: Overriding) -> None:
    ops, lines = select_ops(overriding, FAST)
    assert ops == replace(REFERENCE, loss=fast_loss)
    assert lines == ["loss: fast of vendor acme, acme/kernels/loss.py"]


def test_an_unknown_override_lists_those_of_the_op(overriding: Overriding) -> None:
    with pytest.raises(ConfigError, match=r"loss_op = 'fsat'.*Did you mean 'fast'\? It has: reference, fast"):
        select_ops(overriding, SMALL.model_copy(update={"loss_op": "fsat"}))
    with pytest.raises(ConfigError, match=r"detect_op = 'fast'.*It has: reference\."):
        select_ops(overriding, SMALL.model_copy(update={"detect_op": "fast"}))


def test_an_override_without_its_hardware_ends_the_run(overriding: Overriding) -> None:
    overriding.means = ["emulator"]
    with pytest.raises(MachineError, match=r"loss_op = 'fast'.*lacks its hardware.*emulator.*loss_op = reference"):
        select_ops(overriding, FAST)


@pytest.mark.parametrize("failure", [MachineError("no compiler."), ImportError("no lib."), OSError("no .so")])
def test_an_override_that_cannot_load_ends_the_run(overriding: Overriding, failure: Exception) -> None:
    overriding.failure = failure
    with pytest.raises(MachineError, match=r"loss_op = 'fast'.*cannot be loaded: no .*loss_op = reference"):
        select_ops(overriding, FAST)


def test_a_check_is_compared_by_value() -> None:
    assert Check("a", True, "b") == Check("a", True, "b", "")


def test_nobody_says_what_a_device_computes_at_most_where_a_vendor_does_not() -> None:
    assert list(Vendor("acme", Path("acme")).peaks()) == []
