"""Bounds of the keys: no value is accepted that no run can have, whichever way it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
import pytest
from pydantic import ValidationError

from ssd.config import Config, resolve
from ssd.config.keys import SECTIONS, Keys, extra_of
from ssd.errors import ConfigError


def kinds(key: str) -> set[Any]:
    """The plain types that a key takes: `int | None` is int, `tuple[int, ...]` is int."""
    annotation = Config.model_fields[key].annotation
    return {annotation} | {one for one in get_args(annotation) if get_origin(annotation)}


NUMBERS = [key for key in Config.model_fields if kinds(key) & {int, float}]
TEXTS = [key for key in Config.model_fields if str in kinds(key)]
PATHS = [key for key in Config.model_fields if Path in kinds(key)]


def refused(key: str, value: object) -> str:
    with pytest.raises(ValidationError) as refusal:
        Config(**{key: value})
    assert [error["loc"] for error in refusal.value.errors()] == [(key,)]
    return str(refusal.value)


def test_the_kinds_of_keys_are_told_apart() -> None:
    assert {"seed", "width", "lr_decay_epochs", "max_steps"} <= set(NUMBERS)
    assert {"name", "device", "submitter", "loss_op"} <= set(TEXTS)
    assert set(PATHS) == {"output", "data_dir", "cache_dir", "decoded_cache", "backbone_path"}
    assert set(NUMBERS) & set(TEXTS) == set()


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_an_upper_bound(key: str) -> None:
    large = [10**30] if float not in kinds(key) else [1e308]
    refused(key, large if get_origin(Config.model_fields[key].annotation) is tuple else large[0])


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_lower_bound(key: str) -> None:
    refused(key, [-1] if get_origin(Config.model_fields[key].annotation) is tuple else -1)


@pytest.mark.parametrize("key", NUMBERS)
def test_a_bound_itself_is_accepted(key: str) -> None:
    for bound in Config.model_fields[key].metadata:
        for kind, value in ((annotated_types.Le, "le"), (annotated_types.Ge, "ge")):
            if isinstance(bound, kind):
                assert getattr(Keys(**{key: getattr(bound, value)}), key) == getattr(bound, value)


@pytest.mark.parametrize("text", ["", "a\x1b[2Jb", "a\nb", "a\0b", "\u202eab", "x" * 201])
@pytest.mark.parametrize("key", TEXTS)
def test_every_text_is_short_and_printable(key: str, text: str) -> None:
    refused(key, text)


@pytest.mark.parametrize("text", ["Größe GmbH & Co. KG", "8x V100-SXM2", "清华", "x" * 200])
def test_names_of_organisations_and_systems_are_free(text: str) -> None:
    assert Config(submitter=text, system=text).submitter == text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a\0b", "NUL"),
        ("/runs/" + "x" * 256, "at most 255 bytes"),
        ("/runs/" + "ü" * 128, "at most 255 bytes"),
        ("/x" * 2000, "at most 3840 bytes"),
        ("~nobody-of-this-name/x", "home"),
    ],
)
@pytest.mark.parametrize("key", PATHS)
def test_no_path_that_no_file_can_have(key: str, path: str, words: str) -> None:
    assert words in refused(key, path)


def test_a_default_folder_below_a_home_that_nobody_knows(homeless: None) -> None:
    assert "no home folder is known for ~: write the path without ~" in refused("cache_dir", "~/.cache/ssd")


def test_a_long_name_that_a_file_can_have_is_fine() -> None:
    assert Config(output="/runs/" + "x" * 255).output == Path("/runs/" + "x" * 255)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--collective_timeout", "1e308"], ["collective_timeout = 1e+308", "at most 604800"]),
        (["--learning_rate", "1e308"], ["learning_rate = 1e+308", "at most 1e+30"]),
        (["--max_steps", str(10**30)], [f"max_steps = {10**30}", "at most 1000000000"]),
        (["--num_workers", "1" + "0" * 5000], ["num_workers", "at most 256"]),
        (["--output", "x" * 300], ["output", "at most 255 bytes"]),
        (["--submitter", "a\x1b[31mb"], ["submitter", "printable"]),
        (["--lr_decay_epochs", "3", str(10**30)], ["lr_decay_epochs", "at most 1000000"]),
    ],
)
def test_nonsense_is_refused_by_name_and_bound(argv: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve(["--no-pretrained", *argv], {})
    message = str(refusal.value)
    assert [word for word in words if word not in message] == [], message
    assert len(message) < 500


def test_every_key_stands_under_a_heading_and_says_what_it_is() -> None:
    assert next(iter(SECTIONS)) == next(iter(Config.model_fields))
    for key, field in Config.model_fields.items():
        assert field.description, key
        assert set(extra_of(field)) >= {"role", "unit", "env", "resumable"}, key


def test_switches_and_which_are_on_where_nothing_sets_them() -> None:
    switches = {key: field.default for key, field in Config.model_fields.items() if field.annotation is bool}
    assert [key for key, on in switches.items() if on] == ["pretrained"]
    assert set(switches) == {
        *("resume", "pretrained", "nhwc", "pad_input", "compile", "combo_kernels", "cuda_graph", "use_nvjpeg"),
        *("async_eval", "tensorboard", "record_norms", "keep_best"),
    }


def test_the_length_of_a_run_may_change_on_a_resume() -> None:
    assert {key for key, field in Config.model_fields.items() if extra_of(field)["resumable"]} == {
        "epochs",
        "max_steps",
    }


def test_epochs_of_a_list_ascend_from_1_to_the_bound() -> None:
    for key in ("lr_decay_epochs", "eval_epochs"):
        assert getattr(Config(**{key: [1, 3, 10**6]}), key) == (1, 3, 10**6)
        assert "each larger than the one before" in refused(key, [3, 3])
        assert "epochs are at most 1000000" in refused(key, [3, 10**6 + 1])


def test_what_the_processes_of_a_run_come_to() -> None:
    config = Config(
        nproc_per_node=4, nodes=3, master_addr="a", train_batch_size=5, gradient_accumulation_steps=2, bn_group=1
    )
    assert (config.world_size, config.global_batch) == (12, 120)


def test_a_default_is_checked_and_an_unknown_key_is_refused() -> None:
    assert "Extra inputs" in refused("warmpu", 1)
    assert "finite" in refused("momentum", float("nan"))
