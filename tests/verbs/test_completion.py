"""Shell completion: what a bash that reads the script offers, and that the script comes without torch."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd import cli
from ssd.config import Config
from ssd.errors import EXIT_BAD_CONFIG
from ssd.verbs.completion import WITH_FILES, completion_script
from ssd.verbs.table import VERBS

BESIDE = {"zsh": ("\n",), "fish": ("\n", "$words")}
"""How the lines begin that a shell's script holds besides tyro's."""


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., set[str]]:
    """What bash offers behind these words; the last one is being typed. There is a vendor with a key of its own."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "acme").mkdir()
    (folder / "acme" / "vendor.py").touch()
    keys = "from ssd.config import COMPUTE, VendorKeys, key\n"
    (folder / "acme" / "keys.py").write_text(keys + "class Keys(VendorKeys):\n    speed: int = key(9, COMPUTE, '')\n")
    script = folder / "ssd"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSD_VENDOR_PATH", str(folder))
        script.write_text(completion_script("bash", VERBS), encoding="utf-8")

    def ask(*words: str) -> set[str]:
        line = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD={len(words)}; _tyro_ssd; echo "${{COMPREPLY[@]}}"'
        found = subprocess.run(["bash", "-c", line, "x", "ssd", *words], capture_output=True, text=True, check=True)
        return set(found.stdout.split())

    return ask


@pytest.mark.slow
def test_bash_offers_verbs_flags_and_values(offered: Callable[..., set[str]]) -> None:
    assert {name for name in VERBS if " " not in name} <= offered("")
    assert offered("tra") == {"train"}
    assert {"--momentum", "--keep_best", "--quiet", "--acme.speed"} <= offered("train", "--")
    assert "--momentum" not in offered("prepare", "--")
    assert {"amd", "cpu", "iluvatar", "nvidia"} <= offered("launch", "--name", "")
    assert {"smoke", "demo", "V100x1x8"} <= offered("launch", "--config", "")
    assert {"new", "check"} <= offered("vendors", "")
    assert {"bash", "zsh", "fish"} <= offered("completion", "")
    assert {"--op", "--json"} <= offered("vendors", "check", "--")


@pytest.mark.slow
def test_bash_offers_files_where_nothing_else_begins_so(offered: Callable[..., set[str]], tmp_path: Path) -> None:
    log, picture = tmp_path / "result_0.txt", tmp_path / "cat.jpg"
    log.touch()
    picture.touch()
    assert offered("results", str(tmp_path / "res")) == {str(log)}
    assert offered("detect", "--images", str(log), f"{tmp_path}/c") == {str(picture)}
    assert offered("detect", "--images", f"{tmp_path}/c") == {str(picture)}


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_have_a_script_too(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(better in script for better in WITH_FILES.values() if better.startswith(BESIDE[shell]))
    if not shutil.which(shell):
        return
    subprocess.run([shell, "-n"], input=script, text=True, check=True)
    if shell == "fish":
        (tmp_path / "result_0.txt").touch()
        asked = "".join(f"complete -C 'ssd {words}'\n" for words in ("train --keep", f"results {tmp_path}/res"))
        found = subprocess.run([shell], input=f"{script}\n{asked}", capture_output=True, text=True, check=True).stdout
        meaning = Config.model_fields["keep_best"].description
        assert found == f"--keep_best\t{meaning}\n{tmp_path}/result_0.txt\n"


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "cmd"]) == EXIT_BAD_CONFIG
    assert "completion cmd: takes bash, zsh, fish." in capsys.readouterr().err
