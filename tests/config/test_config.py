"""From flags, environment and files to one Config: precedence, provenance, and every mistake a user can make."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ssd.config import Config, require_run_keys, resolve, write_resolved
from ssd.config import files as config_files
from ssd.config.describe import describe_allowed, environment_name, unit_of
from ssd.config.keys import SECTIONS
from ssd.config.resolved import read_resolved, without_resume
from ssd.errors import EXIT_BAD_CONFIG, ConfigError

SCRATCH = ("--no-pretrained",)


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """A vendor `acme` in a folder of its own, with its own base/config."""
    (tmp_path / "vendors" / "acme" / "config").mkdir(parents=True)
    (tmp_path / "vendors" / "acme" / "vendor.py").touch()
    (tmp_path / "base_config").mkdir()
    monkeypatch.setattr(config_files, "BASE_CONFIGS", tmp_path / "base_config")
    return Vendor(tmp_path)


class Vendor:
    """Writes configs and resolves with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"SSD_VENDOR_PATH": str(folder / "vendors")}

    def write(self, name: str, text: str, where: str = "vendors/acme/config") -> None:
        (self.folder / where / f"{name}.toml").write_text(text)

    def resolve(self, *argv: str, config: str = "C", **environ: str) -> Any:
        return resolve(["--name", "acme", "--config", config, *argv], {**self.environ, **environ})


def refused(*argv: str, **environ: str) -> str:
    """The message with which a command line is refused."""
    with pytest.raises(ConfigError) as refusal:
        resolve([*SCRATCH, *argv], environ)
    assert refusal.value.exit_code == EXIT_BAD_CONFIG
    return str(refusal.value)


# Precedence and provenance


def test_command_line_beats_environment_beats_file_beats_default(vendor: Vendor) -> None:
    vendor.write("C", 'data_dir = "/file"\ncache_dir = "/file"\nbackbone_path = "/file"\nseed = 1')
    found = vendor.resolve("--data_dir", "/flag", SSD_DATA_DIR="/variable", SSD_CACHE_DIR="/variable")
    assert found.config.data_dir == Path("/flag")
    assert found.config.cache_dir == Path("/variable")
    assert found.config.backbone_path == Path("/file")
    assert found.config.momentum == 0.9
    assert found.provenance["data_dir"] == "command line --data_dir"
    assert found.provenance["cache_dir"] == "environment SSD_CACHE_DIR"
    assert found.provenance["backbone_path"].endswith("acme/config/C.toml")
    assert found.provenance["momentum"] == "default"
    assert set(found.provenance) == set(Config.model_fields)


def test_a_flag_with_the_default_value_still_counts_as_given() -> None:
    found = resolve([*SCRATCH, "--momentum", "0.9"], {})
    assert found.provenance["momentum"] == "command line --momentum"
    assert found.on_command_line("momentum")
    assert not found.on_command_line("seed")


def test_a_child_states_only_what_differs(vendor: Vendor) -> None:
    vendor.write("root", "momentum = 0.5\nwarmup = 7\nseed = 1", where="base_config")
    vendor.write("parent", 'extends = "root"\nwarmup = 8\nseed = 2')
    vendor.write("C", 'extends = "parent"\nseed = 3')
    found = vendor.resolve()
    assert (found.config.momentum, found.config.warmup, found.config.seed) == (0.5, 8, 3)
    origins = [Path(found.provenance[key]).name for key in ("momentum", "warmup", "seed")]
    assert origins == ["root.toml", "parent.toml", "C.toml"]


def test_a_vendors_config_goes_before_base_and_may_extend_its_namesake(vendor: Vendor) -> None:
    vendor.write("C", "seed = 1\nwarmup = 1", where="base_config")
    vendor.write("C", 'extends = "C"\nseed = 2')
    found = vendor.resolve()
    assert (found.config.seed, found.config.warmup) == (2, 1)


def test_a_name_may_hold_dots(vendor: Vendor) -> None:
    vendor.write("V100x1x8_2.1.0", "seed = 5")
    assert vendor.resolve(config="V100x1x8_2.1.0").config.seed == 5


def test_an_empty_variable_counts_as_unset() -> None:
    assert resolve([*SCRATCH], {"SSD_DATA_DIR": ""}).config.data_dir is None


# Forms of a flag


@pytest.mark.parametrize(
    "argv",
    [["--train_batch_size", "6"], ["--train-batch-size", "6"], ["--train_batch_size=6"], ["--train-batch-size=6"]],
)
def test_forms_of_a_number(argv: list[str]) -> None:
    assert resolve([*SCRATCH, *argv], {}).config.train_batch_size == 6


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--nhwc"], True),
        (["--no-nhwc"], False),
        (["--nhwc", "True"], True),
        (["--nhwc", "false"], False),
        (["--nhwc=true"], True),
        (["--nhwc=False"], False),
        (["--nhwc", "--seed", "1"], True),
    ],
)
def test_forms_of_true_and_false(argv: list[str], value: bool) -> None:
    found = resolve([*SCRATCH, *argv], {})
    assert found.config.nhwc is value
    assert found.on_command_line("nhwc")


def test_lists_are_separated_by_spaces_and_may_be_empty() -> None:
    assert resolve([*SCRATCH, "--eval_epochs", "3", "5"], {}).config.eval_epochs == (3, 5)
    assert resolve([*SCRATCH, "--lr_decay_epochs"], {}).config.lr_decay_epochs == ()


def test_none_takes_a_value_away(vendor: Vendor) -> None:
    vendor.write("C", "max_steps = 5")
    assert vendor.resolve("--max_steps", "None").config.max_steps is None


def test_the_last_of_a_repeated_flag_counts() -> None:
    assert resolve([*SCRATCH, "--seed", "1", "--seed", "2"], {}).config.seed == 2


def test_paths_are_expanded_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    found = resolve([*SCRATCH, "--data_dir", "x/../coco", "--output", "~/out"], {}).config
    assert found.data_dir == tmp_path / "coco"
    assert found.output == Path("/home/somebody/out")
    assert found.cache_dir == Path("/home/somebody/.cache/ssd")


# Mistakes: each message names the key, the value, where it came from, and what is allowed


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--train_batch", "4"], ["--train_batch", "Did you mean '--train_batch_size'?"]),
        (["--lr", "4"], ["unknown key --lr"]),
        (["--train_batch_size", "abc"], ["--train_batch_size abc", "int, at least 1"]),
        (["--train_batch_size=abc"], ["--train_batch_size abc"]),
        (["--train_batch_size"], ["--train_batch_size (no value)"]),
        (["--train_batch_size", "-3"], ["train_batch_size = -3", "command line --train_batch_size", "at least 1"]),
        (["--momentum", "1"], ["momentum = 1.0", "at least 0, below 1"]),
        (["--learning_rate", "nan"], ["learning_rate = NaN"]),
        (["--learning_rate", "inf"], ["learning_rate = Infinity"]),
        (["--precision", "fp17"], ["--precision fp17", "fp32|bf16|fp16"]),
        (["--eval_epochs", "1,2"], ["--eval_epochs 1,2", "int int ..."]),
        (["--eval_epochs", "5", "3"], ["eval_epochs = [5, 3]", "larger than the one before"]),
        (["--lr_decay_epochs", "0", "3"], ["lr_decay_epochs = [0, 3]", "from 1 on"]),
        (["--device", "cpu:0"], ["device", "cpu:0"]),
        (["--nhwc", "--resume=maybe"], ["--resume maybe: takes true or false"]),
        (["stray"], ["'stray' belongs to no key"]),
        (["--name", "cpuu"], ["'cpuu'", "Did you mean 'cpu'?", "Found: amd, cpu, iluvatar, nvidia"]),
        (["--config", "smok"], ["--config smok", "Did you mean 'smoke'?", "Of base: demo"]),
        (["--config", "../config/smoke"], ["no such config"]),
        (["--data_dir", "~nobody-of-this-name/x"], ["data_dir"]),
    ],
)
def test_mistakes_on_the_command_line(argv: list[str], words: list[str]) -> None:
    message = refused(*argv)
    assert [word for word in words if word not in message] == [], message


def test_every_mistake_is_named_at_once() -> None:
    message = refused("--train_batch_size", "0", "--momentum", "2")
    assert "train_batch_size = 0" in message
    assert "momentum = 2.0" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train_batchsize = 4", ["C.toml", "'train_batchsize'", "Did you mean 'train_batch_size'?"]),
        ('train_batch_size = "4"', ['train_batch_size = "4"', "C.toml", "int"]),
        ("train_batch_size = true", ["train_batch_size = true"]),
        ("train_batch_size = 4.5", ["train_batch_size = 4.5"]),
        ("nhwc = 1", ["nhwc = 1", "true|false"]),
        ("eval_epochs = 3", ["eval_epochs = 3"]),
        ("seed = 2026-01-01", ['seed = "2026-01-01"']),
        ("seed = ", ["C.toml", "not valid TOML"]),
        ('name = "cpu"', ["C.toml", "name is chosen on the command line"]),
        ("[model]\nwidth = 1.0", ["unknown key 'model'"]),
        (
            "[nvidia]\ncache = 1",
            ["'nvidia'", "Keys of vendor nvidia go with --name nvidia, and the run's vendor is acme"],
        ),
        ("[acme]\ncache = 1", ["unknown key 'acme.cache'"]),
        ("extends = 3", ["extends = 3"]),
        ('extends = "nowhere"', ["C.toml", "'nowhere'", "Of acme: C"]),
    ],
)
def test_mistakes_in_a_file(vendor: Vendor, text: str, words: list[str]) -> None:
    vendor.write("C", text)
    with pytest.raises(ConfigError) as refusal:
        vendor.resolve()
    message = str(refusal.value)
    assert [word for word in words if word not in message] == [], message


def test_a_table_of_the_vendor_s_name_sets_the_vendor_s_own_keys(vendor: Vendor) -> None:
    (vendor.folder / "vendors" / "acme" / "keys.py").write_text(
        "from ssd.config import COMPUTE, VendorKeys, key\n\n\n"
        "class Keys(VendorKeys):\n    cache_mb: int = key(64, COMPUTE, 'its cache', 'MiB', ge=1)\n"
    )
    vendor.write("C", "seed = 2\n[acme]\ncache_mb = 128")
    found = vendor.resolve()
    assert (getattr(found.config, "acme.cache_mb"), found.config.seed) == (128, 2)
    assert found.provenance["acme.cache_mb"].endswith("C.toml")


def test_a_config_that_cannot_be_read_is_named(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor.write("C", "seed = 2")

    def no_permission(path: Path, **options: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", no_permission)
    with pytest.raises(ConfigError, match=r"C\.toml: cannot be read: Permission denied$"):
        vendor.resolve()
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"^--config ~nobody-of-this-name/x\.toml: .*home directory"):
        vendor.resolve(config="~nobody-of-this-name/x.toml")


def test_a_circle_of_configs_is_refused(vendor: Vendor) -> None:
    vendor.write("C", 'extends = "D"')
    vendor.write("D", 'extends = "C"')
    with pytest.raises(ConfigError, match=r"circle: .*C\.toml -> .*D\.toml -> .*C\.toml"):
        vendor.resolve()


def test_a_config_that_extends_itself_is_refused(vendor: Vendor) -> None:
    vendor.write("C", 'extends = "C"')
    with pytest.raises(ConfigError, match="circle"):
        vendor.resolve()


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    field = Config.model_fields["seed"]
    monkeypatch.setattr(field, "json_schema_extra", {"unit": "", "env": "SSD_SEED"})
    assert "environment variable SSD_SEED" in refused(SSD_SEED="abc")


# Keys that exclude each other


def test_both_learning_rates_on_the_command_line_are_refused() -> None:
    message = refused("--learning_rate", "0.1", "--base_learning_rate", "0.1")
    assert "learning_rate and base_learning_rate exclude each other" in message


def test_both_learning_rates_in_one_file_are_refused(vendor: Vendor) -> None:
    vendor.write("C", "learning_rate = 0.1\nbase_learning_rate = 0.1")
    with pytest.raises(ConfigError, match=r"C\.toml"):
        vendor.resolve()


def test_the_stronger_source_unsets_the_other_learning_rate(vendor: Vendor) -> None:
    vendor.write("parent", "base_learning_rate = 0.5")
    vendor.write("C", 'extends = "parent"\nlearning_rate = 0.25')
    found = vendor.resolve()
    assert (found.config.learning_rate, found.config.base_learning_rate) == (0.25, None)
    assert found.provenance["base_learning_rate"].startswith("not used: learning_rate is set")
    found = vendor.resolve("--base_learning_rate", "0.125")
    assert (found.config.learning_rate, found.config.base_learning_rate) == (0.0025, 0.125)
    assert found.provenance["learning_rate"].startswith("not used: base_learning_rate is set")


def test_an_interval_on_the_command_line_replaces_listed_epochs(vendor: Vendor) -> None:
    vendor.write("C", "eval_epochs = [3, 4]")
    found = vendor.resolve("--eval_interval", "2")
    assert (found.config.eval_epochs, found.config.eval_interval) == ((), 2)


# Rules that bind several keys


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nodes": 2}, "master_addr"),
        ({"nodes": 2, "master_addr": "h", "node_rank": 2}, "node_rank must be below nodes"),
        ({"width": 0.5}, "pretrained"),
        ({"resume": True}, "output"),
        ({"division": "closed"}, "requires submitter"),
        ({"division": "closed", "submitter": "a", "system": "b", "width": 0.5, "pretrained": False}, "width = 1"),
        ({"division": "closed", "submitter": "a", "system": "b", "num_classes": 4}, "num_classes = 81"),
        ({"division": "closed", "submitter": "a", "system": "b", "max_steps": 4}, "max_steps"),
        ({"division": "closed", "submitter": "a", "system": "b", "threshold": 0.2}, "threshold = 0.23"),
        ({"division": "closed", "submitter": "a", "system": "b", "data_backend": "synthetic"}, "real images"),
        ({"division": "closed", "submitter": "a", "system": "b", "resume": True, "output": "/x"}, "resume"),
    ],
)
def test_combinations_that_cannot_run(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Config(**values)


def test_a_closed_run_with_the_benchmarks_values_is_fine() -> None:
    assert Config(division="closed", submitter="a", system="b").division == "closed"


def test_a_broken_rule_names_every_key_and_its_source(vendor: Vendor) -> None:
    vendor.write("C", "width = 0.5")
    with pytest.raises(ConfigError) as refusal:
        vendor.resolve("--pretrained")
    message = str(refusal.value)
    assert "C.toml" in message
    assert "pretrained = true (command line --pretrained)" in message


@pytest.mark.parametrize(
    ("values", "words"),
    [({"pretrained": False}, "data_dir"), ({"data_dir": "/x"}, "backbone_path"), ({}, "SSD_DATA_DIR")],
)
def test_keys_that_a_run_needs(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        require_run_keys(Config(**values))


def test_a_synthetic_run_from_scratch_needs_neither() -> None:
    require_run_keys(Config(data_backend="synthetic", pretrained=False))


def test_a_library_that_a_key_asks_for_is_needed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(data_backend="synthetic", pretrained=False, tensorboard=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorboard" or None)
    require_run_keys(config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_run_keys(config.model_copy(update={"tensorboard": False}))
    with pytest.raises(ConfigError, match="tensorboard = true, and the library is not installed: pip install"):
        require_run_keys(config)


def test_global_batch() -> None:
    config = Config(train_batch_size=6, nproc_per_node=4, nodes=2, master_addr="h", gradient_accumulation_steps=3)
    assert (config.world_size, config.global_batch) == (8, 144)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


# The resolved config in the run's folder


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    resolved = resolve([*SCRATCH, "--seed", "4", "--eval_epochs", "3", "--data_dir", '/a "quoted" ü'], {})
    path = tmp_path / "config.json"
    write_resolved(path, resolved)
    assert read_resolved(path) == resolved
    assert json.loads(path.read_text())["seed"] == {"value": 4, "from": "command line --seed"}
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries.update(old={"value": 1, "from": "x"}), "unknown key 'old'"),
        (lambda entries: entries.update(seed=3), "not a resolved config"),
        (lambda entries: entries.update(seed={"value": -1, "from": "x"}), "seed = -1"),
    ],
)
def test_a_resolved_config_of_another_version_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    path = tmp_path / "config.json"
    write_resolved(path, resolve([*SCRATCH], {}))
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(ConfigError, match=words):
        read_resolved(path)


def test_a_key_that_the_runs_version_did_not_have_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    resolved = resolve([*SCRATCH, "--prefetch", "7"], {})
    write_resolved(path, resolved)
    entries = json.loads(path.read_text())
    del entries["prefetch"]
    path.write_text(json.dumps(entries))
    assert read_resolved(path).config == resolve([*SCRATCH], {}).config
    assert read_resolved(path).provenance["prefetch"] == "default"


def test_a_resolved_config_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a resolved config"):
        read_resolved(tmp_path / "config.json")


# The schema


def test_every_key_has_a_meaning_and_words_for_what_it_takes() -> None:
    for key, field in Config.model_fields.items():
        assert field.description, key
        assert describe_allowed(field), key
    assert set(SECTIONS) <= set(Config.model_fields)
    assert next(iter(SECTIONS)) == next(iter(Config.model_fields))


def test_words_for_what_a_key_takes() -> None:
    keys = Config.model_fields
    assert describe_allowed(keys["lr_decay_factor"]) == "number, above 0, at most 1"
    assert describe_allowed(keys["seed"]) == "int, at least 0, below 4294967296"
    assert describe_allowed(keys["ruleset"]) == "0.7.0|1.0.0|1.1.0"
    assert environment_name(keys["data_dir"]) == "SSD_DATA_DIR"


def test_resolving_needs_no_torch(root: Path) -> None:
    code = "import sys; from ssd.config import resolve; resolve([], {}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root / "base", check=False).returncode == 0


def test_a_path_that_is_no_text_is_named() -> None:
    with pytest.raises(ConfigError, match="output: not UTF-8; rename it, or set LC_ALL"):
        resolve(["--output", "/tmp/\udcc3\udcbc"])


def test_lists_in_lists_are_named_without_the_other_lists(vendor: Vendor) -> None:
    """The reader of JSON gives up at 200 of them, and does not say where."""
    vendor.write("deep", f"lr_decay_epochs = [3]\neval_epochs = {'[' * 250}{']' * 250}")
    with pytest.raises(ConfigError) as raised:
        vendor.resolve(config="deep")
    assert re.fullmatch(r"eval_epochs \([^()]*deep[^()]*\): takes [^:\n]*\.", str(raised.value))


# A config of any place


def test_a_file_of_any_place_extends_by_name(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor.write("C", "warmup = 7\nlog_freq = 3\npretrained = false")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "quick.toml").write_text('extends = "C"\nlog_freq = 4')
    monkeypatch.chdir(tmp_path)
    for path in ("mine/quick.toml", str(tmp_path / "mine" / "quick.toml")):
        found = vendor.resolve(config=path)
        assert (found.config.config, found.config.warmup, found.config.log_freq) == ("quick", 7, 4)
        assert found.provenance["log_freq"].endswith("mine/quick.toml")
    (tmp_path / "mine" / "C.toml").write_text('extends = "C"\nlog_freq = 5')
    assert vendor.resolve(config="mine/C.toml").config.warmup == 7, "of its own name it means the named one"
    (tmp_path / "mine" / "other.toml").write_text('extends = "quick.toml"')
    assert vendor.resolve(config="mine/other.toml").config.log_freq == 4, "beside the file that extends it"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "--config x.toml: no such file. Did you mean 'x'?"),
        ('extends = "nobody"', "extends = 'nobody': no such config."),
        ('extends = "x.toml"', "in a circle"),
        ("warmpu = 1", "unknown key 'warmpu'. Did you mean 'warmup'?"),
    ],
)
def test_a_file_of_any_place_that_cannot_be_used(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, words: str
) -> None:
    vendor.write("x", "pretrained = false")
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        vendor.resolve(config="x.toml")
    assert words in str(refusal.value)


def test_flags_files_and_defaults_are_told_apart() -> None:
    resolved = resolve(["--config", "smoke", "--epochs", "9"], {"SSD_DATA_DIR": "/d"})
    assert [resolved.on_command_line(key) for key in ("epochs", "config", "width", "momentum", "data_dir")] == [
        True, True, False, False, False
    ]  # fmt: skip


def test_units_and_variables_of_keys() -> None:
    fields = Config.model_fields
    assert (unit_of(fields["warmup"]), unit_of(fields["momentum"])) == ("steps", "")
    assert (environment_name(fields["data_dir"]), environment_name(fields["momentum"])) == ("SSD_DATA_DIR", "")
    assert describe_allowed(fields["data_dir"]) == "path"


def test_restart_auto_goes_on_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    argv = ["--config", "smoke", "--restart", "auto", "--output", str(tmp_path)]
    first = resolve(argv, {})
    assert not first.config.resume
    write_resolved(tmp_path / "config.json", first)
    assert not resolve(argv, {}).config.resume
    (tmp_path / "checkpoint.pt").touch()
    now = resolve(argv, {})
    assert now.config.resume
    assert now.provenance["resume"] == "restart = auto, and there is a checkpoint"
    assert resolve([*argv, "--resume"], {}).provenance["resume"].startswith("command line")


def test_what_a_run_s_flags_said_a_file_or_variable_does_not_undo(tmp_path: Path) -> None:
    """On a resume: epochs came by a flag and stay; data_dir came by a variable and is read anew."""
    first = resolve(["--config", "smoke", "--log_freq", "7", "--output", str(tmp_path)], {"SSD_DATA_DIR": "/old"})
    write_resolved(tmp_path / "config.json", first)
    (tmp_path / "checkpoint.pt").touch()
    words = ["--resume", "--output", str(tmp_path)]
    again = resolve(words, {"SSD_DATA_DIR": "/new"})
    assert (again.config.log_freq, again.config.data_dir) == (7, Path("/new"))
    assert again.config.width == first.config.width, "the file is not read anew"
    named = resolve([*words, "--config", "smoke"], {})
    assert named.config.log_freq == 7
    with pytest.raises(ConfigError):
        resolve([*words, "--momentum", "0.5"], {})
    assert again.provenance["resume"] == "command line --resume"
    kept = without_resume(again)
    assert (kept.config.resume, kept.provenance["resume"]) == (False, "default")
    assert kept.config == first.config.model_copy(update={"data_dir": Path("/new")})


def test_a_step_of_slurm_says_where_a_resumed_run_is_now(tmp_path: Path) -> None:
    """Though flags said where it was before."""
    words = ["--config", "smoke", "--nodes", "2", "--node_rank", "1", "--master_addr", "old", "--output", str(tmp_path)]
    write_resolved(tmp_path / "config.json", resolve(words, {}))
    (tmp_path / "checkpoint.pt").touch()
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "new[1-2]"}
    found = resolve(["--resume", "--output", str(tmp_path)], step)
    assert (found.config.master_addr, found.config.node_rank) == ("new1", 0)


@pytest.mark.parametrize("line", ["x" * 5000 + " = 1", "extends = [" + "1, " * 3000 + "]"])
def test_a_long_word_of_a_file_is_shown_in_part(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.toml").write_text(line)
    with pytest.raises(ConfigError) as refusal:
        resolve(["--config", str(tmp_path / "mine.toml")], {})
    assert len(str(refusal.value)) < 600 + len(str(tmp_path))
