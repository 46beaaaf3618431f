"""A run that goes on from its folder alone: its own keys, what may be given besides, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.config import COMPUTE, Config, Resolved, key, resolve, write_resolved
from ssd.config.resolved import without_resume
from ssd.config.resume import require_same_run
from ssd.errors import ConfigError, DataError

FLAGS = ("--name", "nvidia", "--config", "A100x1x8", "--data_dir", "/data", "--backbone_path", "/b.pth")
ENVIRON = {"SSD_CACHE_DIR": "/cache"}


@pytest.fixture
def run(tmp_path: Path):
    """The keys that a run was started with, and the words by which it goes on."""

    def make(*flags: str) -> tuple[Resolved, tuple[str, ...]]:
        folder = tmp_path / "run"
        resolved = resolve([*FLAGS, *flags, "--output", str(folder)], ENVIRON)
        folder.mkdir()
        write_resolved(folder / "config.json", resolved)
        return resolved, ("--resume", "--output", str(folder))

    return make


def test_the_folder_alone_gives_every_key(run) -> None:
    before, words = run("--log_freq", "7", "--base_learning_rate", "0.01", "--eval_epochs", "3", "9")
    now = resolve(words, {})
    assert now.config == before.config.model_copy(update={"resume": True})
    assert now.provenance["log_freq"] == "command line --log_freq"
    assert now.provenance["train_batch_size"] == "nvidia/config/A100x1x8.toml"
    assert now.provenance["learning_rate"] == before.provenance["learning_rate"]


def test_all_flags_again_are_the_same(run) -> None:
    before, words = run("--log_freq", "7")
    assert resolve([*FLAGS, *words], {}).config == before.config.model_copy(update={"resume": True})


def test_the_runs_own_flags_beat_the_environment_of_today(run) -> None:
    _, words = run()
    now = resolve(words, {"SSD_DATA_DIR": "/other", "SSD_CACHE_DIR": "/other", "SSD_BACKBONE_PATH": "/other"}).config
    assert (str(now.data_dir), str(now.backbone_path), str(now.cache_dir)) == ("/data", "/b.pth", "/other")


def test_slurm_says_which_host_this_is(run) -> None:
    _, words = run("--nodes", "2", "--node_rank", "0", "--master_addr", "a")
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "b,c"}
    now = resolve(words, step).config
    assert (now.node_rank, now.master_addr) == (1, "b")


def test_what_may_change_is_taken(run) -> None:
    _, words = run("--num_workers", "3")
    now = resolve([*words, "--num_workers", "9", "--epochs", "200", "--data_dir", "/moved"], {}).config
    assert (now.num_workers, now.epochs, str(now.data_dir)) == (9, 200, "/moved")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--precision", "fp32"], "precision was bf16 and is fp32"),
        (["--config", "tiny", "--name", "cpu"], "name was nvidia and is cpu"),
        (["--base_learning_rate", "1"], "base_learning_rate was 0.0899745 and is 1.0"),
    ],
)
def test_what_may_not_change_is_refused_before_anything_is_read(run, given: list[str], words: str) -> None:
    _, go_on = run("--precision", "bf16")
    with pytest.raises(ConfigError, match=words):
        resolve([*go_on, *given], {})


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file, so that nothing says which run goes on"):
        resolve(["--resume", "--output", str(tmp_path)], {})
    assert resolve(["--config", "smoke", "--resume", "--output", str(tmp_path)], {}).config.resume
    with pytest.raises(ConfigError, match="name its folder: output"):
        resolve(["--no-pretrained", "--resume"], {})
    with pytest.raises(ConfigError, match="at most 255 bytes"):
        resolve(["--resume", "--output", "x" * 300], {})


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.previous.pt"])
def test_restart_auto_resumes_where_there_is_a_checkpoint(run, tmp_path: Path, name: str) -> None:
    """And only there: before, the same command begins a run."""
    words = ["--restart", "auto", "--output", str(tmp_path / "run")]
    assert not resolve([*FLAGS, *words], ENVIRON).config.resume
    before, _ = run("--log_freq", "7", "--restart", "auto")
    assert not resolve([*FLAGS, "--log_freq", "7", *words], ENVIRON).config.resume
    (tmp_path / "run" / name).touch()
    for given in (words, [*FLAGS, "--log_freq", "7", *words]):
        now = resolve(given, {})
        assert now.config == before.config.model_copy(update={"resume": True})
        assert now.provenance["resume"] == "restart = auto, and there is a checkpoint"
    with pytest.raises(ConfigError, match="precision was bf16 and is fp32"):
        resolve([*words, "--precision", "fp32"], {})
    kept = without_resume(resolve([*words, "--resume_from", "previous", "--resume", "--max_restarts", "3"], {}))
    assert (kept.config.resume, kept.config.restart, kept.config.resume_from) == (False, "no", "newest")
    assert kept.config.max_restarts == 0


def test_a_key_that_one_of_the_two_does_not_have_is_no_change() -> None:
    class Extended(Config):
        more: int = key(1, COMPUTE, "a key of a vendor")

    require_same_run(Extended(), Config())
    require_same_run(Config(), Extended())
    with pytest.raises(ConfigError, match="but more was 1 and is 2; give the old values, or start a new run"):
        require_same_run(Extended(), Extended(more=2))
