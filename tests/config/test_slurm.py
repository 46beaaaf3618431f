"""What Slurm's variables of a step come to: as srun sets them, on clusters of several kinds."""

from __future__ import annotations

import pytest

from ssd.config import resolve
from ssd.config.slurm import expand_hosts
from ssd.errors import ConfigError

# A step's variables about hosts and tasks, by the manual page of srun (no cluster was at hand): of two hosts ...
TWO_HOSTS = {
    "SLURM_JOB_ID": "81723",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "gpu[07-08]",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEPID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_SUBMIT_DIR": "/home/user/ssd/base",
    "SLURM_TASKS_PER_NODE": "1(x2)",
}
# ... of one host in a job of four, and of five whose names have no common form.
ONE_OF_FOUR = TWO_HOSTS | {
    "SLURM_JOB_NODELIST": "rack1-n[001,003-005]",
    "SLURM_JOB_NUM_NODES": "4",
    "SLURM_NODEID": "0",
    "SLURM_STEP_NODELIST": "rack1-n003",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "1",
}
FIVE = TWO_HOSTS | {
    "SLURM_NODEID": "4",
    "SLURM_STEP_NODELIST": "dgx-b,node[09-11,20]",
    "SLURM_STEP_NUM_NODES": "5",
    "SLURM_STEP_NUM_TASKS": "5",
}


@pytest.mark.parametrize(
    ("variables", "nodes", "rank", "address"),
    [(TWO_HOSTS, 2, 1, "gpu07"), (ONE_OF_FOUR, 1, 0, "rack1-n003"), (FIVE, 5, 4, "dgx-b")],
)
def test_a_step_is_the_same_launch_as_its_flags(variables: dict, nodes: int, rank: int, address: str) -> None:
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


def test_outside_a_step_there_are_no_hosts() -> None:
    """sbatch's own script, and a shell of salloc, have the job's variables and no SLURM_STEP_ID."""
    batch = {key: value for key, value in TWO_HOSTS.items() if key != "SLURM_STEP_ID"}
    assert resolve([], batch).config == resolve([], {}).config


def test_no_fallback_to_localhost() -> None:
    with pytest.raises(ConfigError, match="more than one host needs master_addr"):
        resolve(["--nodes", "2"], {})


def test_one_launcher_a_host() -> None:
    with pytest.raises(ConfigError, match=r"16 tasks on 2 hosts.*--ntasks-per-node=1"):
        resolve([], TWO_HOSTS | {"SLURM_STEP_NUM_TASKS": "16"})


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


def test_as_many_hosts_as_the_key_takes() -> None:
    assert expand_hosts("n[1-4096]")[-1] == "n4096"
