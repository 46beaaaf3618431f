"""The pages: every test and file they name exists, what they import can be, and the README links every page."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd.errors import EXIT_KILLED, EXIT_MEANING

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    missing = [
        f"{file}::{name}"
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", page.read_text(encoding="utf-8"))
        if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [page.parent / target for target in re.findall(r"\]\(([\w./-]+?)\)", text)]
    files = [
        ROOT / name for name in re.findall(r"`((?:base|tests|docs|bench|nvidia|iluvatar|cpu)/[\w./-]+\.\w+)`", text)
    ]
    assert [str(path) for path in links + files if not path.exists()] == []


def test_each_kind_of_change_names_its_file_and_the_test_to_copy() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE) if row[0][0] not in "y*-"]
    assert len(rows) >= 30
    for change, place, test in rows:
        named = re.findall(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:txt|md))`", place)
        assert [name for name in named if not (ROOT / name).exists()] == [], change
        assert named or "vendors new" in place, change
        assert re.search(r"`tests/[\w/]+\.py`", test), change


def public_functions(module: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__"):
            yield node


def test_a_public_function_with_tensors_names_their_shapes_and_dtypes() -> None:
    """Shapes such as (B, 4, D), () or "any shape"; dtypes such as float32, int64, bool or "any dtype"."""
    silent = []
    for path in sorted((ROOT / "base" / "ssd").rglob("*.py")):
        for function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
            arguments = [*function.args.args, *function.args.kwonlyargs]
            types = " ".join(ast.unparse(one) for one in [*(a.annotation for a in arguments), function.returns] if one)
            said = ast.get_docstring(function) or ""
            shape = re.search(r"\([\w.* +/-]*,[\w.*, +/-]*\)|\(\)|any shape", said)
            dtype = re.search(r"float|int8|int32|int64|bool|dtype", said)
            if re.search(r"\b(Tensor|NDArray|ndarray)\b", types) and not (shape and dtype):
                silent.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert silent == []


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = [ROOT / target for target in re.findall(r"\]\(([\w./-]+?)\)", readme)]
    assert [page.name for page in PAGES if page.name != "README.md" and page not in linked] == []


IMPORTS = sorted(
    {
        line
        for page in PAGES
        for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in re.findall(r"^(?:import|from) [^.\n]\S*.*$", block, re.MULTILINE)
    }
)
"""What a reader's own files import by the pages' examples; `from .loss import loss` is a file of the example itself."""


@pytest.mark.parametrize("line", IMPORTS)
def test_what_a_page_imports_is_there(line: str) -> None:
    exec(line, {})


@pytest.mark.parametrize("name", ["vendor.Vendor", "vendor.Override", "vendor.Check", "ops", "errors", "boxes"])
def test_what_vendors_elsewhere_import_stays(name: str) -> None:
    """Vendors' folders live in repositories of their own; docs/porting.md promises these names."""
    module, _, member = name.partition(".")
    found = importlib.import_module(f"ssd.{module}")
    assert not member or hasattr(found, member)


def test_the_architecture_is_drawn_from_todays_imports() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = runpy.run_path(str(ROOT / "docs" / "architecture.py"))["drawn"]
    assert drawn(page) == page, "run `make architecture` (python docs/architecture.py) and commit docs/architecture.md"


def exit_codes(page: Path) -> list[str]:
    """The codes of a page's table of exit codes."""
    return re.findall(r"^\| (\d+|128 \+ n) \| [a-z]", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_exit_codes_stand_in_one_place_and_are_the_codes_own() -> None:
    codes = ["128 + n" if code == EXIT_KILLED else str(code) for code in EXIT_MEANING]
    assert exit_codes(ROOT / "README.md") == codes
    assert [page.name for page in PAGES if page.name != "README.md" and exit_codes(page)] == []


def test_the_hooks_of_a_commit_call_the_tools_of_make_lint() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe
    tools = re.findall(r"\$\(BIN\)/(\w+(?: format --check| check| -x)?)", recipe[1])
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8").replace('"', "")
    assert {tool.split()[0] for tool in tools} == {"ruff", "mypy", "shellcheck", "hadolint"}
    assert [tool for tool in tools if f"bin/{tool}" not in hooks] == []


HELD = {
    "on any accelerator": "end_to_end/test_accelerator.py"
    "::test_a_device_with_nothing_but_tensors_trains_to_the_losses_of_the_cpu",
    "The code in `base/` is the same for all vendors": "test_layers.py::test_base_knows_no_vendor",
    "hold only what differs between vendors": "test_layers.py"
    "::test_a_vendor_imports_neither_another_nor_the_train_loop",
    "and builds the vendor's kernels": "prepare/test_steps.py::test_what_was_built_is_said",
    "`--name iluvatar`, `--name amd` and": "vendors/test_folders.py::test_every_vendor_loads_on_any_machine",
    "the run ends with one sentence": "vendor/test_interface.py::test_devices_that_torch_does_not_see",
    "This is a smoke run of the same": "vendors/test_iluvatar.py"
    "::test_the_readmes_smoke_run_of_a_config_without_its_accelerator",
    "--name iluvatar --config V100x1x8 --device cpu": "vendors/test_iluvatar.py"
    "::test_the_readmes_smoke_run_of_a_config_without_its_accelerator",
    "On a CPU with the same number of threads": "end_to_end/test_resume.py::test_stopped_by_max_steps",
    "hardware and software of the machine": "end_to_end/test_accelerator.py::test_a_device_without_a_name_is_described",
    "device, library, memory, disk": "vendor/test_interface.py::test_fewer_devices_than_processes",
    "A new accelerator in ten lines": "vendor/test_scaffold.py::test_the_readme_shows_the_file_that_is_written",
    "inherited defaults work on any torch device": "end_to_end/test_accelerator.py"
    "::test_two_processes_share_their_gradients_through_the_host",
    "says what such a device must have": "vendors/test_porting.py::test_the_page_is_followed_to_the_letter",
    "computes a step on the device": "end_to_end/test_accelerator.py"
    "::test_check_computes_on_the_device_and_says_how_far_it_is_off",
    "names the key to change": "end_to_end/test_accelerator.py"
    "::test_check_names_each_key_that_asks_for_what_the_device_lacks",
    "compares torch's ops on the device": "end_to_end/test_accelerator.py"
    "::test_vendors_check_finds_the_op_that_is_wrong",
    "each of your kernels with the reference": "vendors/test_porting.py::test_the_page_is_followed_to_the_letter",
    "kernels of your own": "vendors/test_porting.py::test_the_page_is_followed_to_the_letter",
    "run on x86-64 CPUs": "end_to_end/test_runs.py::test_the_smoke_config_keeps_its_word",
    "the demo to its target": "account/test_anomalies.py::test_nothing_is_named_in_a_true_run_of_the_demo",
    "the full-width network on real images": "end_to_end/test_real_images.py"
    "::test_the_tiny_config_trains_the_whole_network_on_real_images",
    "run by Triton's interpreter": "vendor/triton/test_kernels.py::test_interpreted_kernels_agree_with_the_reference",
    "compiled for eight targets": "vendor/triton/test_matrix.py"
    "::test_targets_are_of_two_back_ends_and_eight_generations",
    "with 32 and 64 threads a warp": "vendor/csrc/test_host.py::test_every_case_matches_the_reference",
    "compiled by nvcc": "vendor/csrc/test_host.py"
    "::test_nvcc_compiles_the_kernels_and_a_failed_launch_is_a_machine_error",
}
"""What the README says of devices -> the test of `tests/` that holds it."""
NO_PROMISE = (
    "with torch's CUDA build",  # the size of an environment
    "two cores of a shared server CPU",  # where the numbers of an example come from
    "configs, environment variables, fused kernels",  # what folders hold
    "What has run on real hardware",  # a heading
    "**not yet run on hardware**",
    "claims no training time",
    "that need no accelerator",  # heads of rows, whose cells are held
    "Triton kernels",
    "CUDA kernels of `base/csrc`",
    "nccl, CUDA graphs, fp16 and bf16 on a device",
)
"""What it says besides, in which nothing is promised."""
README = " ".join(re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL).split())


@pytest.mark.parametrize("words", HELD)
def test_what_the_readme_says_of_devices_has_a_test(words: str) -> None:
    file, name = HELD[words].split("::")
    assert words in README
    assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_the_readme_says_nothing_of_devices_without_a_test() -> None:
    about = r"\b(?:devices?|accelerators?|GPUs?|CUDA|Triton|CPUs?|kernels?|hardware|nvcc)\b"
    prose = README.partition("Pages: ")[0]  # links to pages follow
    sayings = [one for one in re.split(r"(?<=[.:]) | \| ", prose) if re.search(about, one)]
    assert len(sayings) >= 20
    known = (*HELD, *NO_PROMISE)
    assert [one for one in sayings if not any(words in one for words in known)] == []
