"""What Slurm's variables of a step come to: as srun sets them, on clusters of several kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd.config import resolve
from ssd.config.slurm import MOST_STEP, expand_hosts
from ssd.errors import ConfigError

# What a real Slurm set for each task (make test-slurm records it; the file names the version).
TASKS = json.loads(Path(__file__).with_name("slurm_variables.json").read_text(encoding="utf-8"))
TWO_HOSTS = TASKS["run.sub on two hosts"][1]


@pytest.mark.parametrize(
    ("step", "nodes", "address"),
    [("run.sub on two hosts", 2, "node01"), ("one host of a job of two", 1, "node02"), ("five hosts", 5, "dgx-b")],
)
def test_a_step_is_the_same_launch_as_its_flags(step: str, nodes: int, address: str) -> None:
    assert len(TASKS[step]) == nodes
    for rank, variables in enumerate(TASKS[step]):
        found = resolve([], variables)
        by_hand = resolve(["--nodes", str(nodes), "--node_rank", str(rank), "--master_addr", address], {})
        assert found.config == by_hand.config
        assert found.provenance["nodes"] == "environment SLURM_STEP_NUM_NODES"
        assert found.provenance["node_rank"] == "environment SLURM_NODEID"
        assert found.provenance["master_addr"] == "environment SLURM_STEP_NODELIST"


def test_the_command_line_wins() -> None:
    found = resolve(["--master_addr", "10.1.2.3", "--node_rank", "0"], TWO_HOSTS)
    assert (found.config.nodes, found.config.node_rank, found.config.master_addr) == (2, 0, "10.1.2.3")
    assert found.provenance["master_addr"].startswith("command line")


@pytest.mark.parametrize("place", ["the script of sbatch", "a command of salloc", "the shell of salloc"])
def test_outside_a_step_of_srun_there_are_no_hosts(place: str) -> None:
    (variables,) = TASKS[place]
    assert variables["SLURM_JOB_NUM_NODES"] == "2"
    assert resolve([], variables).config == resolve([], {}).config


@pytest.mark.parametrize(("above", "nodes"), [(0, 2), (1, 1)])
def test_the_numbers_of_steps_that_slurm_reserves(above: int, nodes: int) -> None:
    """The shell of salloc is 0xfffffffa: a step by Slurm, and no host of a run."""
    assert resolve([], TWO_HOSTS | {"SLURM_STEP_ID": str(MOST_STEP + above)}).config.nodes == nodes


def test_no_fallback_to_localhost() -> None:
    with pytest.raises(ConfigError, match="more than one host needs master_addr"):
        resolve(["--nodes", "2"], {})


def test_one_launcher_a_host() -> None:
    for variables in TASKS["four tasks on two hosts"]:
        with pytest.raises(ConfigError, match=r"4 tasks on 2 hosts.*--ntasks-per-node=1"):
            resolve([], variables)


def test_a_wrong_number_names_its_variable() -> None:
    with pytest.raises(ConfigError, match="environment variable SLURM_NODEID"):
        resolve([], TWO_HOSTS | {"SLURM_NODEID": "one"})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node7", ["node7"]),
        ("node[01-04,07],gpu-a", ["node01", "node02", "node03", "node04", "node07", "gpu-a"]),
        ("a,b[8-11]", ["a", "b8", "b9", "b10", "b11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("r[1-2]n[1,3]", ["r1n1", "r1n3", "r2n1", "r2n3"]),
        ("c[1-2]-ib,d.example.org", ["c1-ib", "c2-ib", "d.example.org"]),
    ],
)
def test_host_lists(text: str, names: list[str]) -> None:
    assert expand_hosts(text) == names


@pytest.mark.parametrize("text", ["", "a,,b", "node[1-2", "node[]", "node[3-1]", "node[x-y]", "node[1-2-3]", "a b"])
def test_what_is_no_host_list(text: str) -> None:
    with pytest.raises(ConfigError, match="SLURM_STEP_NODELIST"):
        expand_hosts(text)


@pytest.mark.parametrize(
    "text", ["n[1-1000000000]", "n[1-4097]", "n[1-100]x[1-100]", "a[1-4000],b[1-4000]", "n[1-" + "9" * 5000 + "]"]
)
def test_more_hosts_than_a_run_has_are_refused_before_they_are_listed(text: str) -> None:
    with pytest.raises(ConfigError, match="SLURM_STEP_NODELIST") as refusal:
        expand_hosts(text)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    ("text", "named"),
    [("n[1-4097]", "[1-4097]"), ("n[1-4000,1-97]", "[1-4000,1-97]"), ("n[1-99]x[1-99]", "n[1-99]x[1-99]")],
)
def test_the_ranges_that_are_too_many_are_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        expand_hosts(text)
    assert f"'{named}' has more than 4096 hosts" in str(refusal.value)


@pytest.mark.parametrize(
    ("tasks", "hosts", "said"), [("2", "1", "2 tasks on 1 host "), ("1", "many", "1 task on many hosts ")]
)
def test_tasks_and_hosts_are_counted(tasks: str, hosts: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"Slurm's step has {said}"):
        resolve([], TWO_HOSTS | {"SLURM_STEP_NUM_TASKS": tasks, "SLURM_STEP_NUM_NODES": hosts})


def test_as_many_hosts_as_the_key_takes() -> None:
    assert len(expand_hosts("n[1-4000,1-96]")) == 4096
    assert expand_hosts("n[1-4096]")[-1] == "n4096"
