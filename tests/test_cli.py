"""The command line: verbs, help, exit codes, and that verbs which need no torch do not load it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import ssd
from ssd import __main__ as entry
from ssd import cli
from ssd.config import Config, resolve, write_resolved
from ssd.errors import EXIT_BAD_CONFIG, EXIT_BAD_DATA, EXIT_MACHINE, ConfigError, DataError, SsdError
from ssd.plan.simulate import Machine
from ssd.verbs.table import VERBS

TINY = ("--config", "tiny")


def run(*argv: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(cwd), **environ}
    return subprocess.run([sys.executable, *argv], cwd=cwd, env=environ, capture_output=True, text=True, check=False)


def test_no_verb_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == EXIT_BAD_CONFIG
    assert "usage: python -m ssd VERB" in capsys.readouterr().out


def test_help_lists_every_verb_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for word in ("train", "launch", "prepare", "evaluate", "detect", "check", "config", "vendors", "128 + n"):
        assert word in out


def test_help_names_each_exit_code_beside_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    lines = [line.strip().split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["0", "reached the target (or, for verbs that do not train, done)"] in lines
    assert ["8", "another process or host of the run was lost"] in lines
    assert ["128", "+ n: killed by signal n"] in lines


def test_help_says_which_flags_may_be_given_again(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["package", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "as --field cooling=air (text; may be given again)" in text
    assert text.count("may be given again") == 1


def test_help_of_a_verb_lists_every_key_with_its_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--config", "nowhere", "--help"]) == 0
    out = capsys.readouterr().out
    for key in Config.model_fields:
        assert f"--{key}" in out
    assert "(int, at least 1, at most 65536; images; default 32)" in out
    assert "variable SSD_DATA_DIR" in out


@pytest.mark.parametrize(
    ("verb", "takes"),
    [("completion", " SHELL"), ("config", " [--key value ...]"), ("vendors new", " NAME [--key value ...]")],
)
def test_the_usage_line_of_a_verb(verb: str, takes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*verb.split(), "--help"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"usage: python -m ssd {verb}{takes}"


@pytest.mark.parametrize(("verb", "some"), [("train", 0), ("evaluate", 1), ("campaign", 1)])
def test_help_says_where_more_keys_may_stand_than_it_lists(
    verb: str, some: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert " ".join(capsys.readouterr().out.split()).count("The other keys of a run may stand here too") == some


def test_help_tells_of_the_keys_of_vendors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "vendor.py").touch()
    (tmp_path / "acme" / "keys.py").write_text(
        "from ssd.config import COMPUTE, VendorKeys, key\n\n\n"
        "class Keys(VendorKeys):\n    cache_mb: int = key(64, COMPUTE, 'its cache', 'MiB', ge=1)\n"
    )
    monkeypatch.setenv("SSD_VENDOR_PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    said = {}
    for name in ("", "acme", "cpu"):
        assert cli.main(["train", *(["--name", name] if name else []), "--help"]) == 0
        said[name] = capsys.readouterr().out
    assert "\nVendors with keys of their own: acme. --name V --help lists those of V.\n" in said[""]
    heading, _, keys = said["acme"].partition("\nOf vendor acme alone\n")
    assert keys.startswith("  --acme.cache_mb  its cache (int, at least 1; MiB; default 64)\n")
    assert "Of vendor" not in heading + said["cpu"]
    assert "keys of their own" not in said["acme"] + said["cpu"]


def test_names_in_help_are_never_wrapped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    cli.main(["train", "--help"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert names[:-2] == [f"--{key}" for key in Config.model_fields]


def test_the_values_of_config_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["config", "--nhwc", "--no-pretrained", "--eval_epochs", "3", "5", "--warmup", "7"]) == 0
    rows = {words[0]: words[1:] for words in map(str.split, capsys.readouterr().out.splitlines()) if words}
    assert rows["nhwc"] == ["true", "command", "line", "--nhwc"]
    assert rows["pretrained"] == ["false", "command", "line", "--pretrained"]
    assert rows["eval_epochs"] == ["3", "5", "epochs", "command", "line", "--eval_epochs"]
    assert rows["warmup"] == ["7", "steps", "command", "line", "--warmup"]
    assert rows["max_steps"] == ["not", "set", "default"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["no verb is called 'trian'", "Did you mean 'train'?"]),
        (["config", "--widht", "1"], ["unknown key --widht", "Did you mean '--width'?"]),
        (["vendors", "x"], ["vendors x", "`vendors new`", "`vendors check`"]),
        (["detect", "--imagse", "a"], ["Did you mean '--images'?"]),
        (["detect", "--score", "x"], ["--score x: takes number"]),
        (
            ["detect", "--checkpoint", "a", "--images", "b", "--score", "7"],
            ["--score 7: takes number, at least 0, at most 1"],
        ),
        (["detect"], ["--checkpoint is missing: the checkpoint file, or the folder of its run."]),
        (["detect", "--checkpoint", "a"], ["--images is missing"]),
        (["detect", "--checkpoint", "x" * 300, "--images", "a"], ["--checkpoint xxx", "at most 255 bytes"]),
        (["results"], ["PATH is missing: a result log"]),
        (["results", "x" * 300], ["PATH xxx", "at most 255 bytes"]),
        (["package", "~nobody-of-this-name", "--out", "a"], ["RUN ~nobody-of-this-name", "home"]),
        (["results", "a", "--cvs"], ["unknown key --cvs", "Did you mean '--csv'?"]),
        (["package", "--ruleset", "2.0"], ["--ruleset 2.0: takes 0.7.0|1.0.0|1.1.0"]),
        (["package", "--field"], ["--field (no value): takes text"]),
        (["campaign", "--runs", "0"], ["--runs 0: takes int, at least 1"]),
        (["campaign", "--runs", "1" + "0" * 400], ["takes int, at least 1, at most 1000"]),
        (["vendors", "check"], ["NAME is missing"]),
        (["vendors", "check", "cpu", "nvidia"], ["'nvidia' belongs to no key"]),
        (["vendors", "check", "cpu", "--op", "losss"], ["--op losss: takes augment|encode|loss|detect"]),
        (["evaluate", "--data_dir", "/x"], ["--checkpoint is missing"]),
        (["train", *TINY], ["data_dir is not set"]),
        (["launch", *TINY], ["data_dir is not set"]),
    ],
)
def test_mistakes_end_with_a_message_and_code_2(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSD_DATA_DIR", raising=False)
    assert cli.main(argv) == EXIT_BAD_CONFIG
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert [word for word in words if word not in message] == [], message


def test_config_shows_each_key_its_value_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--name", "nvidia", "--config", "H100x1x8", "--seed", "3"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seed", "3", "command", "line", "--seed"] in lines
    assert ["train_batch_size", "114", "images", "nvidia/config/A100x1x8.toml"] in lines
    assert ["max_steps", "not", "set", "default"] in lines


def test_vendors_are_listed_with_their_configs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vendors"]) == 0
    out = capsys.readouterr().out
    assert "V100x1x8_2.1.0" in out
    assert "smoke" in out


def test_an_error_of_a_verb_gives_its_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(argv: list[str], own: object) -> int:
        raise DataError("the file is cut short")

    monkeypatch.setitem(cli.RUN, "config", fails)
    assert cli.main(["config"]) == EXIT_BAD_DATA
    assert capsys.readouterr().err == "error: the file is cut short\n"


def test_an_interrupt_gives_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(argv: list[str], own: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.RUN, "config", interrupted)
    assert cli.main(["config"]) == 130
    capsys.readouterr()


def test_a_defect_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(argv: list[str], own: object) -> int:
        return [][0]

    monkeypatch.setitem(cli.RUN, "config", broken)
    with pytest.raises(IndexError):
        cli.main(["config"])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_the_file_system_refuses_is_one_sentence(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(argv: list[str], own: object) -> int:
        raise OSError(code, os.strerror(code), "/full/file")

    monkeypatch.setitem(cli.RUN, "config", refused)
    assert cli.main(["config"]) == EXIT_MACHINE
    said = capsys.readouterr().err
    assert said.startswith(f"error: /full/file: {os.strerror(code)}; ")
    assert said.count("\n") == 1


def test_a_missing_file_that_nobody_foresaw_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(argv: list[str], own: object) -> int:
        return len(Path("/nowhere/at/all").read_text())

    monkeypatch.setitem(cli.RUN, "config", missing)
    assert cli.main(["config"]) == EXIT_BAD_DATA
    said = capsys.readouterr().err
    assert said.startswith("error: /nowhere/at/all: No such file or directory; restore it")
    assert said.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_every_verb_shows_its_words_flags_and_keys_in_one_style(
    verb: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*verb.split(), word]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m ssd {verb}")
    declared = VERBS[verb]
    for flag, one in declared.flags.items():
        assert f"  --{flag} " in out
        assert one.meaning.split()[0] in out
    for key in Config.model_fields:
        assert (f"  --{key} " in out) == (key in declared.keys or key in declared.flags), key
    assert declared.words is None or declared.words.meaning in out


def test_prepare_and_evaluate_list_only_the_keys_that_they_read(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("prepare", "evaluate"):
        assert cli.main([verb, "--help"]) == 0
        out = capsys.readouterr().out
        assert "--data_dir" in out
        assert "--momentum" not in out
        assert "`config --help` lists all" in out


def test_each_verb_lists_keys_that_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert VERBS["train"].keys == VERBS["launch"].keys == VERBS["config"].keys == tuple(Config.model_fields)
    assert not {"seed", "output", "resume", "restart", "max_restarts", "resume_from", "max_steps"} & set(
        VERBS["campaign"].keys
    )
    assert len(VERBS["plan"].keys) < 15
    assert not {"momentum", "log_freq", "seed", "telemetry_interval", "submitter"} & set(VERBS["check"].keys)


@pytest.mark.parametrize(("program", "shown"), [("/x/bin/ssd", "ssd"), ("/x/ssd/__main__.py", "python -m ssd")])
def test_help_names_the_command_that_was_given(
    program: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    cli.main(["--help"])
    cli.main(["check", "--help"])
    out = capsys.readouterr().out
    assert f"usage: {shown} VERB" in out
    assert f"usage: {shown} check" in out
    assert f"  {shown} launch --resume --output RUN " in out


def test_the_command_ssd_is_this_package_s(root: Path) -> None:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.scripts]\nssd = "ssd.__main__:run"\n' in text
    assert callable(entry.run)


def test_json_of_the_verbs_that_answer_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--json", "--seed", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == Config.model_fields.keys()
    assert found["seed"] == {"value": 3, "from": "command line --seed"}
    assert cli.main(["vendors", "--json"]) == 0
    by_name = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "V100x1x8_2.1.0" in by_name["iluvatar"]["configs"]
    assert "smoke" in by_name[None]["configs"]
    assert cli.main(["check", "--json", "--config", "smoke", "--data_dir", "/x"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["what"] for row in rows[-2:]] == ["the run", "how long"]
    assert {row["ok"] for row in rows} == {True}
    assert {row["exit_code"] for row in rows} == {0}


def test_launch_lets_the_script_set_the_vendors_variables(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list = []

    def exec_instead(file: str, words: list[str], environ: dict[str, str]) -> None:
        asked.append((file, words, environ["PYTHON"]))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execvpe", exec_instead)
    monkeypatch.delenv("SSD_VARIABLES", raising=False)
    argv = ["launch", "--config", "smoke", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        cli.main(argv)
    assert asked == [("bash", ["bash", str(root / "base" / "run_training.sh"), *argv[1:]], sys.executable)]


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ssd {ssd.__version__}\n"


def test_every_verb_has_a_function() -> None:
    assert list(cli.RUN) == list(VERBS)


def test_a_message_cannot_move_the_terminals_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--config", "\x1b[2J"]) == EXIT_BAD_CONFIG
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "--config \\x1b[2J: no such config" in said


@pytest.mark.parametrize("script", [["-m", "ssd", "--help"], ["prepare.py"]])
def test_a_python_without_the_libraries_says_so_in_one_sentence(root: Path, script: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-S", *script], cwd=root / "base", capture_output=True, text=True, check=False
    )
    assert found.returncode == EXIT_MACHINE
    assert found.stderr.startswith(f"error: {sys.executable}")
    assert "has no module" in found.stderr
    assert "make venv" in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("limit", "words"),
    [("ulimit -n 32", "32 open files are allowed here"), ("ulimit -v 20000", "cannot load a library")],
    ids=["open files", "memory"],
)
def test_a_machine_that_allows_too_little_says_so_in_one_sentence(root: Path, limit: str, words: str) -> None:
    script = f'{limit}; exec "$0" -m ssd config'
    found = subprocess.run(
        ["bash", "-c", script, sys.executable], cwd=root / "base", capture_output=True, text=True, check=False
    )
    assert found.returncode == EXIT_MACHINE
    assert words in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_missing_module_of_the_project_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ssd.config.help", None)
    with pytest.raises(ModuleNotFoundError, match=r"ssd\.config\.help"):
        entry.run(["--help"])


WITHOUT_TORCH = [
    (["--help"], 0),
    (["train", "--help"], 0),
    (["config"], 0),
    (["config", "--json"], 0),
    (["vendors", "--json"], 0),
    (["nonsense"], EXIT_BAD_CONFIG),
    (["check", "--warmpu", "1"], EXIT_BAD_CONFIG),
    (["check", "--warmup", "x"], EXIT_BAD_CONFIG),
    (["train", "--config", "nowhere.toml"], EXIT_BAD_CONFIG),
    (["train", "--config", "demo", "--data_dir", "/nowhere"], EXIT_BAD_DATA),
    (["launch", "--config", "smoke", "--width", "1", "--pretrained", "--backbone_path", "/nowhere"], EXIT_BAD_DATA),
    (["launch", "--resume", "--output", "/nowhere"], EXIT_BAD_DATA),
    (["detect", "--checkpoint", "/nowhere", "--images", "/"], EXIT_BAD_DATA),
    (["detect", "--checkpoint", "/", "--images", "/"], EXIT_BAD_DATA),
    (["detect", "--checkpoint", "/etc/passwd", "--images", "/nowhere"], EXIT_BAD_DATA),
    (["detect", "--checkpoint", "/etc/passwd", "--images", "/", "--score", "7"], EXIT_BAD_CONFIG),
    (["detect", "--checkpoint", "/etc/passwd", "--images", "/", "--name", "nobody"], EXIT_BAD_CONFIG),
    (["evaluate", "--checkpoint", "/nowhere"], EXIT_BAD_DATA),
    (["evaluate", "--checkpoint", "/etc/passwd", "--data_dir", "/nowhere"], EXIT_BAD_DATA),
    (["prepare", "--from_dir", "/nowhere"], EXIT_BAD_CONFIG),
    (["vendors", "check", "nobody"], EXIT_BAD_CONFIG),
    (["vendors", "check", "cpu", "--config", "nowhere"], EXIT_BAD_CONFIG),
    (["results", "/nowhere"], EXIT_BAD_DATA),
    (["package", "--check", "/nowhere"], EXIT_BAD_DATA),
    (["campaign", "--seed", "3"], EXIT_BAD_CONFIG),
    (["campaign"], EXIT_BAD_CONFIG),
]


def test_what_needs_no_torch_is_answered_or_refused_without_it(root: Path) -> None:
    """All in one process: once torch is there, every later line would show it."""
    code = "import sys; from ssd.cli import main\n"
    code += f"for argv, code in {WITHOUT_TORCH!r}:\n    assert main(argv) == code, argv\n"
    code += "    assert 'torch' not in sys.modules, argv"
    found = run("-c", code, cwd=root / "base")
    assert found.returncode == 0, found.stderr


def test_from_the_repositorys_root_the_vendors_folders_stay_unimportable(root: Path) -> None:
    code = "import runpy, sys; sys.argv = ['ssd', 'vendors']\ntry:\n    runpy.run_module('ssd', run_name='__main__')\n"
    code += "except SystemExit:\n    print(sys.path)"
    found = run("-c", code, cwd=root, PYTHONPATH=f"{root / 'base'}:{root}")
    assert f"'{root}'" not in found.stdout.splitlines()[-1]
    assert "''" not in found.stdout.splitlines()[-1]


def test_a_python_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(entry, "OLDEST", (99, 0))
    assert entry.run(["vendors"]) == EXIT_MACHINE
    found = capsys.readouterr()
    assert (found.out, found.err.count("or newer is needed")) == ("", 1)
    assert sys.executable in found.err


# run_training.sh


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """An interpreter that shows what it was called with."""
    path = tmp_path / "python"
    path.write_text('#!/bin/bash\necho "$@"\nenv\nexit 42\n')
    path.chmod(0o755)
    return path


def script(root: Path, *argv: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], **environ}
    command = ["bash", str(root / "base" / "run_training.sh"), *argv]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


def test_run_training_hands_over_words_and_exit_code(root: Path, tmp_path: Path, fake_python: Path) -> None:
    found = script(root, "--name", "cpu", "--data_dir", "a b", cwd=tmp_path, PYTHON=str(fake_python))
    assert found.returncode == 42
    lines = found.stdout.splitlines()
    assert lines[0] == "-m ssd launch --name cpu --data_dir a b"
    assert f"PYTHONPATH={root / 'base'}" in lines
    assert f"PWD={tmp_path}" in lines


@pytest.mark.parametrize("argv", [["--name", "iluvatar"], ["--name=iluvatar"], ["--name", "cpu", "--name", "iluvatar"]])
def test_run_training_sources_the_vendors_variables(root: Path, fake_python: Path, argv: list[str]) -> None:
    found = script(root, *argv, cwd=root, PYTHON=str(fake_python), NCCL_NET_SHARED_BUFFERS="1")
    assert "UMD_WAITAFTERLAUNCH=1" in found.stdout.splitlines()
    assert "NCCL_NET_SHARED_BUFFERS=1" in found.stdout.splitlines()  # the user's value wins


@pytest.mark.parametrize("form", ["--output={}", "--output {}"])
def test_run_training_takes_the_vendor_of_a_run_that_goes_on(
    root: Path, tmp_path: Path, fake_python: Path, form: str
) -> None:
    folder = tmp_path / "a run"
    folder.mkdir()
    write_resolved(folder / "config.json", resolve(["--name", "iluvatar", "--config", "V100x1x8"], {}))
    words = ["--resume", *(word.format(folder) for word in form.split())]
    found = script(root, *words, cwd=root, PYTHON=str(fake_python))
    assert "UMD_WAITAFTERLAUNCH=1" in found.stdout.splitlines()
    assert "UMD_WAITAFTERLAUNCH=1" not in script(root, *words[1:], cwd=root, PYTHON=str(fake_python)).stdout
    assert "UMD_WAITAFTERLAUNCH=1" not in script(root, *words, "--name=cpu", cwd=root, PYTHON=str(fake_python)).stdout


def test_run_training_sources_a_vendor_of_another_folder(root: Path, tmp_path: Path, fake_python: Path) -> None:
    config = tmp_path / "vendors" / "acme" / "config"
    config.mkdir(parents=True)
    (config / "environment_variables.sh").write_text("export ACME_SPEED=9\n")
    environ = {"PYTHON": str(fake_python), "SSD_VENDOR_PATH": str(tmp_path / "vendors")}
    assert "ACME_SPEED=9" in script(root, "--name", "acme", cwd=tmp_path, **environ).stdout.splitlines()


def test_run_training_takes_the_active_environments_python(root: Path, tmp_path: Path, fake_python: Path) -> None:
    (tmp_path / "python3").symlink_to(fake_python)
    found = script(root, cwd=tmp_path, VIRTUAL_ENV="/somewhere", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert found.returncode == 42


@pytest.mark.slow
def test_without_the_accelerator_a_run_ends_in_one_sentence(root: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "p").touch()
    argv = ["--name", "iluvatar", "--config", "V100x1x8", "--data_dir", "d", "--backbone_path", "p"]
    found = script(root, *argv, cwd=tmp_path, PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="", HOME=str(tmp_path))
    assert found.returncode == EXIT_MACHINE
    assert found.stderr.startswith("error: torch built for CoreX: torch ")
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


# What each verb's function is given. The functions themselves are not run


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch):
    """Put a function that notes its arguments, and gives 41, in the place of one; its notes."""

    def watch(place: str) -> list[tuple[tuple, dict]]:
        asked: list[tuple[tuple, dict]] = []
        monkeypatch.setattr(place, lambda *words, **flags: asked.append((words, flags)) or 41)
        return asked

    return watch


@pytest.mark.parametrize(
    ("argv", "place", "words", "flags"),
    [
        ("detect --checkpoint C --images C --score 0.5 --json", "ssd.verbs.detect.detect_command", (),
         {"checkpoint": Path("C"), "images": (Path("C"),), "output": Path("detections"), "score": 0.5, "name": None,
          "device": None, "as_json": True}),
        ("compare A B --tolerance 0.1", "ssd.verbs.compare.compare_command", (["A", "B"],),
         {"assert_equal": False, "tolerance": 0.1, "html": None, "json": False}),
        ("report A --out B", "ssd.verbs.report.report_command", (Path("A"),), {"out": Path("B"), "no_pictures": False}),
        ("vendors --json", "ssd.config.help.show_vendors", (), {"as_json": True}),
        ("vendors new acme --folder F", "ssd.vendor.scaffold.new_command", ("acme", Path("F")), {}),
        ("vendors check cpu --quick --json --op loss", "ssd.conformance.check_command", ("cpu",),
         {"config": None, "op": ["loss"], "means": [], "case": None, "seed": None, "quick": True, "as_json": True}),
        ("plan --validate --rows R --json", "ssd.plan.command.validate_command", (Path("R"),), {"as_json": True}),
        ("completion zsh", "ssd.verbs.completion.completion_command", ("zsh", VERBS), {}),
        ("package A --out B --json", "ssd.mlperf.commands.package_command", ([Path("A")],),
         {"out": Path("B"), "check": None, "ruleset": "1.1.0", "field": [], "fields": None, "as_json": True}),
        ("results A B --csv", "ssd.mlperf.commands.results_command", ([Path("A"), Path("B")],),
         {"csv": True, "json": False}),
        ("campaign --config smoke --submitter s --system t --runs 3", "ssd.verbs.campaign.campaign",
         (["--config", "smoke", "--submitter", "s", "--system", "t"],),
         {"runs": 3, "folder": None, "measure_steps": None}),
    ],
)  # fmt: skip
def test_a_verb_without_keys_calls_its_function(
    argv: str, place: str, words: tuple, flags: dict, called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("C").touch()
    Path("R").write_text("round,submitter,system,accelerator,global_batch,steady_step_ms\n")
    asked = called(place)
    assert cli.run(argv.split()) == (0 if argv == "vendors --json" else 41)
    assert asked == [(words, flags)]


@pytest.mark.parametrize(
    ("argv", "place", "flags"),
    [
        ("evaluate --checkpoint C --json", "ssd.verbs.evaluate.evaluate_command", {"as_json": True}),
        ("profile --steps 7 --nvtx", "ssd.verbs.profile.profile_command",
         {"as_json": False, "steps": 7, "nvtx": True}),
        ("check --json", "ssd.verbs.check.preflight", {"as_json": True}),
        ("config --json", "ssd.config.help.show_config", {"as_json": True}),
        ("plan --page P --accelerators 4", "ssd.plan.command.plan_command",
         {"as_json": False, "page_file": Path("P"), "accelerators": "4", "accelerator": None, "measured": (),
          "target_minutes": None, "machine": Machine()}),
    ],
)  # fmt: skip
def test_a_verb_with_keys_gives_them_resolved(
    argv: str, place: str, flags: dict, called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("C").touch()
    asked = called(place)
    verb, *rest = argv.split()
    assert cli.run([verb, "--config", "smoke", *rest]) == (0 if verb == "config" else 41)
    [(words, given)] = asked
    assert given == flags
    assert getattr(words[0], "config", words[0]) in ("smoke", words[0].config)
    assert words[1:] == ((Path("C"),) if verb == "evaluate" else ())
    if verb in ("profile", "check"):
        assert words[0].config.output is not None, "a run's folder is named"


def test_bench_starts_anew_with_all_its_flags_for_the_vendor_s_variables(
    called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, started = called("ssd.verbs.bench.bench_command"), []
    monkeypatch.setattr(cli, "start_with_variables", lambda *words: started.append((*words[:3], dict(words[3]))))
    assert cli.run(["bench", "--config", "smoke", "--quick", "--reference", "R", "--width", "0.5", "--json"]) == 41
    keys = ["--config", "smoke", "--width", "0.5"]
    [(words, given)] = asked
    assert (words[0].config.width, words[1]) == (0.5, keys)
    assert given == {"reference": Path("R"), "quick": True, "json_wanted": True}
    assert started == [("cpu", "bench", keys, {"reference": Path("R"), "quick": True, "json": True})]


def test_train_and_launch_hand_over_and_say_what_is_saved(
    called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that the launcher started does not look at the machine again; rank 0 says what was saved."""
    argv = ["--config", "smoke", "--output", str(tmp_path)]
    runnable, saved = called("ssd.cli.require_runnable"), called("ssd.cli.say_saved")
    trained, launched = called("ssd.train.train"), called("ssd.launch.processes.launch_workers")
    monkeypatch.setattr("ssd.launch.worker.run_as_worker", lambda work: work())
    for rank, looks, says in ((None, 1, 1), ("0", 1, 2), ("1", 1, 2)):
        if rank is not None:
            monkeypatch.setenv("RANK", rank)
        assert cli.run(["train", *argv]) == 41
        assert (len(runnable), len(saved)) == (looks, says)
    assert len(trained) == 3
    assert trained[0][0][0].config.output == tmp_path
    assert saved[0][0] == (trained[0][0][0].config, 41)
    called("ssd.cli.set_variables")
    assert cli.run(["launch", *argv]) == 41
    [((config, worker), _)] = launched
    assert worker == [sys.executable, "-m", "ssd", "train", *argv, "--output", str(tmp_path)]
    assert (len(runnable), saved[-1][0]) == (2, (config, 41))


def test_prepare_on_a_cpu_draws_the_demo_s_set(called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSD_DATA_DIR", raising=False)
    asked = called("ssd.prepare.steps.prepare")
    assert cli.run(["prepare", "--decode_all"]) == 41
    assert cli.run(["prepare", "--data_dir", str(tmp_path), "--config", "tiny"]) == 41
    assert [words[0].config.config for words, _ in asked] == ["demo", "tiny"]
    assert asked[0][1] == {"from_dir": None, "decode_all": True, "extensions_only": False}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("prepare --from_dir nowhere", "--from_dir nowhere: no such folder"),
        ("evaluate --config smoke --checkpoint nowhere", "--checkpoint nowhere: no checkpoint there"),
        ("evaluate --config smoke --checkpoint C --data_dir nowhere", "data_dir = .*nowhere: no such folder"),
        ("detect --checkpoint nowhere --images C", "--checkpoint nowhere"),
        ("detect --checkpoint C --images nowhere also", "--images nowhere also: no such file or folder"),
        ("detect --checkpoint C --images C --name nobody", "nobody"),
        ("vendors check cpu --config nothing", "nothing"),
        ("plan --rows C", "--rows FILE goes with --validate"),
        ("profile --config tiny", "data_dir"),
    ],
)
def test_a_verb_refuses_what_is_not_there_at_once(
    argv: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSD_DATA_DIR", raising=False)
    Path("C").touch()
    with pytest.raises(SsdError, match=words):
        cli.run(argv.split())


def test_a_folder_that_was_removed_is_no_place_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(ConfigError, match="has been removed"):
        cli.run(["config"])


@pytest.mark.parametrize(
    ("argv", "lost", "code"),
    [
        ("config", "no space", EXIT_MACHINE),
        ("config", "", 0),
        ("check", "no space", 0),
        ("check --help", "no space", EXIT_MACHINE),
        ("--version", "no space", EXIT_MACHINE),
    ],
)
def test_output_that_is_lost_is_an_error_where_it_is_all_that_a_verb_gives(
    argv: str, lost: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.contextmanager
    def streams():
        yield SimpleNamespace(lost=lambda: lost)

    monkeypatch.setattr(cli, "unfailing_streams", streams)
    monkeypatch.setattr(cli, "run", lambda argv: 0)
    assert cli.main(argv.split()) == code
    said = f"error: standard output cannot be written ({lost}): what was printed there is not whole\n"
    assert capsys.readouterr().err == (said if lost else "")
