"""A campaign's runs, with a launcher that replays published results; then the package made of them."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssd.config.verb import read
from ssd.errors import (
    EXIT_BAD_CONFIG,
    EXIT_BAD_DATA,
    EXIT_INTERNAL,
    EXIT_KILLED,
    EXIT_MACHINE,
    EXIT_MAX_STEPS,
    EXIT_NOT_CONVERGED,
    EXIT_NOT_FINITE,
    EXIT_REACHED,
    ConfigError,
    DataError,
    MachineError,
)
from ssd.mlperf.agreement import _equal, require_metrics, same_everywhere
from ssd.mlperf.attempts import load_state
from ssd.mlperf.commands import (
    _fields,
    _run_folders,
    campaign_command,
    package_command,
    refuse_own_keys,
    results_command,
)
from ssd.mlperf.description import description_findings
from ssd.mlperf.events import CACHES_DROPPED_VARIABLE, RunFacts
from ssd.mlperf.expectations import Planned
from ssd.mlperf.logs import ResultLog, read_log
from ssd.mlperf.package import _description, _notes, folder_name, make_package
from ssd.mlperf.package_check import check_package
from ssd.mlperf.records import Record
from ssd.mlperf.runs import config_fingerprint, read_run
from ssd.mlperf.series import Campaign, run_campaign
from ssd.mlperf.system import COUNTS, FIELDS, describe_system
from ssd.verbs.table import VERBS

CONFIG = {
    "name": "cpu",
    "config": "demo",
    "submitter": "Org",
    "system": "my box",
    "division": "open",
    "ruleset": "1.1.0",
    "epochs": 80,
    "eval_interval": 5,
    "eval_epochs": (),
    "log_freq": 20,
    "nodes": 1,
    "nproc_per_node": 1,
    "width": 1.0,
    "pretrained": True,
    "seed": None,
    "output": None,
    "data_dir": "/data",
    "backbone_path": "/data/backbone.pth",
}


class Machine:
    """A launcher that replays published runs, and remembers what it was asked."""

    def __init__(self, facts: RunFacts, replay, config: Mapping = CONFIG, codes: Sequence[int] = ()) -> None:
        self.facts, self.replay, self.config = facts, replay, dict(config)
        self.codes = list(codes)
        self.asked: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.caches: str | None = None

    def launch(self, argv: Sequence[str], environment: Mapping[str, str]) -> int:
        argv = list(argv)
        folder = Path(argv[argv.index("--output") + 1])
        folder.mkdir(parents=True)
        if "--max_steps" in argv:
            self.summary(folder, exit_code=EXIT_MAX_STEPS)
            return EXIT_MAX_STEPS
        self.asked.append(argv)
        self.environments.append(environment)
        code = self.codes.pop(0) if self.codes else EXIT_REACHED
        seed = int(argv[argv.index("--seed") + 1])
        again, run = divmod(len(self.asked) - 1, 5)
        later_ms, slower = 10_000_000 * len(self.asked), 1 + again / 1000
        self.replay(folder / "result_0.txt", run, self.facts, later_ms, slower)
        text = (folder / "result_0.txt").read_text()
        if code != EXIT_REACHED:
            text = text.replace('"success"', '"aborted"').replace('"value": 0.23', '"value": 0.22')
        (folder / "result_0.txt").write_text(text.replace(f"{773_493_582 + run}", str(seed)))
        self.summary(folder, exit_code=code, seed=seed)
        values = self.config | {"seed": seed, "output": str(folder)}
        resolved = {key: {"value": value, "from": "default"} for key, value in values.items()}
        for key in ("epochs", "name"):
            resolved[key]["from"] = f"command line --{key}"
        resolved["data_dir"]["from"] = "command line --data_dir"
        resolved["backbone_path"]["from"] = "environment SSD_BACKBONE_PATH"
        (folder / "config.json").write_text(json.dumps(resolved))
        system = describe_system({"accelerators_per_node": "0", "accelerator_model_name": "none"})
        (folder / "system.json").write_text(json.dumps(system))
        return code

    def summary(self, folder: Path, **values: object) -> None:
        """summary.json and metrics.jsonl, as the log beside them says."""
        summary: dict[str, object] = {"commit": "c0ffee", "images_per_s": 1234.5, "evaluations": [], "resumed": False}
        log = folder / "result_0.txt"
        if log.exists():
            found = read_log(log, "log")
            records = [record for record in found.records if record.key == "eval_accuracy"]
            evaluations = [[record.metadata["epoch_num"], record.value] for record in records]
            summary |= {
                "evaluations": evaluations,
                "seconds": {"run": found.minutes * 60},
                "steps": 129 * evaluations[-1][0],
                "target": 0.23,
            }
            summary |= {"global_batch": 912, "width": found.values["ssd_width"]}
            lines = [
                {"kind": kind, "epoch": record.metadata["epoch_num"], "time": record.time_ms / 1000, "AP": record.value}
                for record in found.records
                for kind, key in (("epoch", "epoch_stop"), ("evaluation", "eval_accuracy"))
                if record.key == key
            ]
            lines = [line | {"step": 129 * line["epoch"]} for line in lines]
            lines += [{"kind": "train", "step": lines[-1]["step"], "images_per_s": 1234.5, "learning_rate": 0.08}]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "summary.json").write_text(json.dumps(summary | values))

    def drop_caches(self) -> str | None:
        return self.caches


@pytest.fixture
def open_facts(facts: RunFacts) -> RunFacts:
    return replace(facts, division="open", submitter="Org", system="my box")


@pytest.fixture
def machine(open_facts: RunFacts, replay) -> Machine:
    return Machine(open_facts, replay)


@pytest.fixture
def campaign(tmp_path: Path, open_facts: RunFacts) -> Campaign:
    return Campaign(tmp_path / "campaign", ("--name", "cpu"), Planned(open_facts, CONFIG), "1.1.0")


def go(campaign: Campaign, machine: Machine, **more) -> int:
    return run_campaign(campaign, launch=machine.launch, drop_caches=machine.drop_caches, **more)


def test_five_runs_each_with_a_seed_of_its_own(campaign, machine) -> None:
    assert go(campaign, machine) == EXIT_REACHED
    assert len(machine.asked) == 5
    assert all(argv[:2] == ["--name", "cpu"] for argv in machine.asked)
    seeds = [argv[argv.index("--seed") + 1] for argv in machine.asked]
    assert len(set(seeds)) == 5
    assert all(environment[CACHES_DROPPED_VARIABLE] == "1" for environment in machine.environments)
    for index in range(5):
        text = (campaign.folder / f"result_{index}.txt").read_text()
        assert f'"key": "seed", "value": {seeds[index]}' in text


def test_a_seed_is_never_used_twice(campaign, machine) -> None:
    drawn = iter([7, 7, 7, 8, 8, 9, 10, 11])
    go(campaign, machine, draw_seed=lambda: next(drawn))
    assert [attempt.seed for attempt in load_state(campaign.folder).attempts] == [7, 8, 9, 10, 11]


def test_a_finished_campaign_repeats_nothing(campaign, machine) -> None:
    go(campaign, machine)
    assert go(campaign, machine) == EXIT_REACHED
    assert len(machine.asked) == 5


def test_it_goes_on_after_an_interruption_and_says_why_that_run_does_not_count(campaign, machine, caplog) -> None:
    caplog.set_level("INFO")
    launch = machine.launch

    def interrupted(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        code = launch(argv, environment)
        if len(machine.asked) == 3:
            (campaign.folder / "run_2/summary.json").unlink()
            raise KeyboardInterrupt
        return code

    machine.launch = interrupted
    with pytest.raises(KeyboardInterrupt):
        go(campaign, machine)
    machine.launch = launch
    assert go(campaign, machine) == EXIT_REACHED
    state = load_state(campaign.folder)
    assert [attempt.outcome for attempt in state.attempts] == ["counts", "counts", "failed", *["counts"] * 3]
    assert state.attempts[2].reason == "interrupted"
    assert f"run_1 (seed {state.attempts[1].seed}) counts" in caplog.text
    assert f"run_2 (seed {state.attempts[2].seed}) does not count: interrupted" in caplog.text
    assert (campaign.folder / "run_2").is_dir()
    assert len(state.counted) == 5


@pytest.mark.parametrize("code", [EXIT_REACHED, EXIT_NOT_CONVERGED])
def test_a_run_that_came_to_its_end_counts_though_the_campaign_was_killed_meanwhile(campaign, machine, code) -> None:
    """Else killing the campaign would be a way to leave a run out."""
    launch = machine.launch

    def outlived(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        code = launch(argv, environment)
        if len(machine.asked) == 5:
            raise KeyboardInterrupt
        return code

    machine.launch, machine.codes = outlived, [*[EXIT_REACHED] * 4, code]
    with pytest.raises(KeyboardInterrupt):
        go(campaign, machine)
    assert not (campaign.folder / "result_4.txt").exists()
    machine.launch = launch
    assert go(campaign, machine) == EXIT_REACHED
    assert len(machine.asked) == 5
    assert load_state(campaign.folder).attempts[4].exit_code == code
    for index in range(5):
        ours = (campaign.folder / f"result_{index}.txt").read_text()
        assert ours == (campaign.folder / f"run_{index}/result_0.txt").read_text()


@pytest.mark.parametrize(("code", "words"), [(EXIT_INTERNAL, "exit code 1"), (137, "killed by signal 9")])
def test_a_run_stopped_from_outside_does_not_count_and_another_is_made_at_once(campaign, machine, code, words) -> None:
    machine.codes = [EXIT_REACHED, code]
    assert go(campaign, machine) == EXIT_REACHED
    state = load_state(campaign.folder)
    assert [a.folder for a in state.counted] == ["run_0", "run_2", "run_3", "run_4", "run_5"]
    assert words in state.attempts[1].reason
    assert len({a.seed for a in state.attempts}) == 6
    assert (campaign.folder / "run_1").is_dir()


def test_two_such_runs_in_a_row_end_it_for_now(campaign, machine) -> None:
    machine.codes = [137, EXIT_REACHED, 137, 137]
    assert go(campaign, machine) == 137
    assert len(machine.asked) == 4
    assert go(campaign, machine) == EXIT_REACHED
    assert len(machine.asked) == 8


@pytest.mark.parametrize("code", [EXIT_BAD_CONFIG, EXIT_BAD_DATA, EXIT_MACHINE, EXIT_KILLED])
def test_what_would_fail_again_is_not_tried_again(campaign, machine, code) -> None:
    machine.codes = [code]
    assert go(campaign, machine) == code
    assert len(machine.asked) == 1


@pytest.mark.parametrize("code", [EXIT_NOT_CONVERGED, EXIT_NOT_FINITE])
def test_a_run_that_did_not_converge_counts_as_the_slowest(campaign, machine, code, caplog) -> None:
    caplog.set_level("INFO")
    machine.codes = [EXIT_REACHED, code]
    assert go(campaign, machine) == EXIT_REACHED
    assert len(machine.asked) == 5
    assert "score: 8.528 minutes" in caplog.text, "(9.055 + 8.261 + 8.267) / 3"
    assert "no result can come" not in caplog.text
    assert '"status": "aborted"' in (campaign.folder / "result_1.txt").read_text()


def test_two_that_did_not_converge_end_it_for_good(campaign, machine, caplog) -> None:
    machine.codes = [EXIT_NOT_CONVERGED, EXIT_REACHED, EXIT_NOT_CONVERGED]
    assert go(campaign, machine) == EXIT_NOT_CONVERGED
    assert "run_0, run_2 did not converge, and one run may: no result can come" in caplog.text
    assert len(machine.asked) == 3
    assert go(campaign, machine) == EXIT_NOT_CONVERGED
    assert len(machine.asked) == 3


def test_two_at_the_very_end_do_not_make_a_result_either(campaign, machine) -> None:
    machine.codes = [*[EXIT_REACHED] * 3, EXIT_NOT_CONVERGED, EXIT_NOT_CONVERGED]
    assert go(campaign, machine) == EXIT_NOT_CONVERGED


def test_a_campaign_of_another_configuration_is_not_mixed_in(campaign, machine) -> None:
    go(campaign, machine)
    other = replace(campaign, planned=Planned(campaign.planned.facts, CONFIG | {"epochs": 70}))
    with pytest.raises(ConfigError, match="epochs was 80 and is 70"):
        go(other, machine)
    for planned in (CONFIG | {"more": 1}, {key: value for key, value in CONFIG.items() if key != "width"}):
        with pytest.raises(ConfigError, match=r"\((more was None and is 1|width was 1.0 and is None)\)"):
            go(replace(campaign, planned=Planned(campaign.planned.facts, planned)), machine)


def test_a_campaign_of_another_commit_is_not_mixed_in(campaign, machine) -> None:
    go(campaign, machine)
    other = replace(campaign, planned=replace(campaign.planned, commit="c0ffee+changed"))
    with pytest.raises(ConfigError, match=r"commit was unknown and is c0ffee\+changed"):
        go(other, machine)


def test_a_run_on_another_machine_does_not_count(campaign, machine) -> None:
    launch = machine.launch

    def moved(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        code = launch(argv, environment)
        if len(machine.asked) == 2:
            change_json(campaign.folder / "run_1/system.json", "host_processor_model_name", "another")
        return code

    machine.launch = moved
    assert go(campaign, machine) != EXIT_REACHED
    assert "run_0 ran on different machines" in load_state(campaign.folder).attempts[1].reason


def test_another_place_is_not_another_configuration() -> None:
    same = CONFIG | {"data_dir": "/elsewhere", "seed": 4, "output": "x"}
    assert config_fingerprint(same) == config_fingerprint(CONFIG)
    assert config_fingerprint(CONFIG | {"epochs": 70}) != config_fingerprint(CONFIG)


def test_a_run_that_ran_something_else_does_not_count(campaign, machine) -> None:
    machine.config["epochs"] = 70
    assert go(campaign, machine) == DataError.exit_code
    assert "another configuration" in load_state(campaign.folder).attempts[0].reason


def test_a_run_that_left_no_log_does_not_count(campaign, machine) -> None:
    launch = machine.launch

    def without_log(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        code = launch(argv, environment)
        for log in campaign.folder.glob("run_*/result_0.txt"):
            log.unlink()
        return code

    machine.launch = without_log
    assert go(campaign, machine) != 0
    assert "result_0.txt is missing" in load_state(campaign.folder).attempts[0].reason


def test_caches_that_cannot_be_dropped_are_noted_in_open_and_refused_in_closed(
    campaign, machine, facts, caplog, monkeypatch
) -> None:
    monkeypatch.setenv(CACHES_DROPPED_VARIABLE, "1")  # of another run: it says nothing of this one
    machine.caches = "only root may"
    assert go(campaign, machine) == EXIT_REACHED
    assert "only root may" in caplog.text
    assert CACHES_DROPPED_VARIABLE not in machine.environments[0]
    closed = replace(campaign, folder=campaign.folder / "closed", planned=Planned(facts, CONFIG))
    with pytest.raises(MachineError, match="only root may"):
        go(closed, machine)
    assert load_state(closed.folder).images_per_s == 1234.5, "what was timed is kept"


def test_the_closed_division_refuses_a_forbidden_configuration_before_any_step(campaign, machine, facts) -> None:
    planned = Planned(replace(facts, width=0.25, decay_epochs=(34, 45)), CONFIG)
    with pytest.raises(ConfigError, match=r"lr_decay_epochs = \[34, 45\].*; width = 0\.25: "):
        go(replace(campaign, planned=planned), machine)
    assert machine.asked == []
    assert not (campaign.folder / "measure").exists()


def test_it_says_first_what_the_rules_ask_and_how_long_it_takes(campaign, machine, caplog) -> None:
    caplog.set_level("INFO")
    go(campaign, machine, how_long=lambda timed: f"as {timed} says")
    text = caplog.text
    assert "the reference needs 50.00 epochs" in text
    assert f"How long: as {campaign.folder / 'measure'} says" in text
    assert text.index("The least mean that passes") < text.index("run 1 of 5")


def test_a_timing_run_that_fails_ends_it_at_once_and_its_remains_do_no_harm(campaign, machine) -> None:
    asked = []

    def launch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        asked.append(list(argv))
        (campaign.folder / "measure").mkdir()
        return EXIT_BAD_CONFIG

    assert run_campaign(campaign, launch=launch, drop_caches=lambda: None) == EXIT_BAD_CONFIG
    assert asked == [["--name", "cpu", "--max_steps", "60", "--output", str(campaign.folder / "measure")]]
    assert go(campaign, machine) == EXIT_REACHED


def test_a_campaign_is_timed_once_before_its_first_run_where_steps_are_given(campaign, machine) -> None:
    timed: list[bool] = []

    def launch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        timed.append("--max_steps" in argv)
        return machine.launch(argv, environment)

    def make(folder: str, runs: int, measure_steps: int) -> list[bool]:
        timed.clear()
        asked = replace(campaign, folder=campaign.folder / folder, runs=runs, measure_steps=measure_steps)
        assert run_campaign(asked, launch=launch, drop_caches=lambda: None) == EXIT_REACHED
        return timed

    assert make("a", 1, 60) == [True, False]
    assert make("a", 2, 60) == [False]
    assert make("b", 1, 0) == [False]
    assert make("b", 2, 60) == [False], "a run that counts has timed it"


def test_a_campaign_by_rules_that_do_not_know_this_model_is_not_begun(campaign, machine) -> None:
    with pytest.raises(ConfigError, match=r"ruleset 4\.0\.0: SSD-ResNet34 exists in"):
        go(replace(campaign, ruleset="4.0.0"), machine)
    assert not campaign.folder.exists()


def test_two_campaigns_cannot_work_in_one_folder(campaign, machine) -> None:
    campaign.folder.mkdir()
    with (campaign.folder / "campaign.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match="another campaign"):
            go(campaign, machine)


def test_a_run_that_outlives_its_campaign_keeps_the_folder(campaign, machine) -> None:
    """It would share the machine with the next campaign's runs and spoil their times."""
    runs = []

    def launch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        runs.append(subprocess.Popen(["sleep", "60"], close_fds=False))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_campaign(replace(campaign, measure_steps=0), launch=launch, drop_caches=lambda: None)
    try:
        with pytest.raises(MachineError, match="or a run that outlived it"):
            go(campaign, machine)
    finally:
        runs[0].kill()
        runs[0].wait()
    assert go(campaign, machine) == EXIT_REACHED


# The command


def command(argv: Sequence[str], machine: Machine, config: Mapping = CONFIG) -> int:
    flags, own = read(VERBS["campaign"], argv)
    return campaign_command(
        flags,
        **own,
        resolve=lambda flags: Planned(machine.facts, config),
        launch=machine.launch,
        drop_caches=lambda planned: machine.caches,
        how_long=lambda planned, runs, timed: f"{runs} runs as {timed} says",
    )


def test_the_command_hands_the_configs_flags_on(tmp_path, machine, caplog) -> None:
    caplog.set_level("INFO")
    argv = ["--name", "cpu", "--runs", "2", "--folder", str(tmp_path / "c"), "--train_batch_size=8"]
    assert command(argv, machine) == EXIT_REACHED
    assert machine.asked[0][:3] == ["--name", "cpu", "--train_batch_size=8"]
    assert len(machine.asked) == 2
    assert "no package can be made of this: it holds 5 runs, and they are 2" in caplog.text
    assert "timing, steps: 60" in caplog.text, "three times log_freq"
    command(["--runs", "1", "--folder", str(tmp_path / "d"), "--measure_steps", "7"], machine)
    assert "timing, steps: 7" in caplog.text


def test_without_a_folder_it_is_named_after_system_vendor_and_config(tmp_path, machine, monkeypatch) -> None:
    monkeypatch.setenv("SSD_RUNS_DIR", str(tmp_path / "runs"))
    assert command(["--runs", "1"], machine, CONFIG | {"name": "cpu", "config": "demo"}) == EXIT_REACHED
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "campaign-my_box-cpu-demo"


@pytest.mark.parametrize("flag", ["--seed", "--output=x", "--resume", "--no-resume", "--max-steps"])
def test_what_a_campaign_sets_itself_is_refused(machine, flag) -> None:
    with pytest.raises(ConfigError, match="sets it itself"):
        command(["--name", "cpu", flag], machine)


def test_a_value_that_is_called_like_such_a_key_is_not() -> None:
    refuse_own_keys(["--system", "seed", "--epochs", "3"])


@pytest.mark.parametrize("key", ["submitter", "system"])
def test_a_result_has_a_submitter_and_a_system(machine, key) -> None:
    with pytest.raises(ConfigError, match=f"--{key} is missing"):
        command([], machine, CONFIG | {key: "unknown"})


def test_a_campaign_is_made_on_one_host(machine) -> None:
    with pytest.raises(ConfigError, match="nodes = 2"):
        command([], machine, CONFIG | {"nodes": 2})


# The package made of a campaign


@pytest.fixture
def finished(campaign, machine) -> Path:
    machine.codes = [EXIT_REACHED, 143]
    go(campaign, machine)
    for log in campaign.folder.glob("run_*/result_0.txt"):
        log.write_text("\n".join(line for line in log.read_text().splitlines() if "ssd_test_data" not in line) + "\n")
    return campaign.folder


def test_a_campaigns_package_passes_and_says_the_score(finished, tmp_path, capsys) -> None:
    out = tmp_path / "package"
    assert package_command([finished], out=out, field=["cooling=air"]) == 0
    text = capsys.readouterr().out
    assert "PASS" in text
    assert "score of my_box: " in text
    assert "not filled in: " in text
    assert "host_networking_topology" in text
    assert sorted(path.name for path in (out / "results/my_box/ssd").iterdir()) == [f"result_{i}.txt" for i in range(5)]
    description = json.loads((out / "systems/my_box.json").read_text())
    assert (description["submitter"], description["system_name"], description["cooling"]) == ("Org", "my box", "air")
    assert (description["accelerators_per_node"], description["sw_notes"]) == ("0", "")
    code = out / "benchmarks/ssd/implementations/my_box"
    assert (code / "COMMIT").read_text() == "c0ffee\n"
    assert "/data" not in (code / "config.json").read_text()
    readme = (code / "README.md").read_text()
    assert "python3 prepare.py --name cpu --data_dir DATA --backbone_path BACKBONE\n" in readme
    assert "--name cpu --config demo --runs 5 --data_dir DATA --backbone_path BACKBONE --epochs 80\n" in readme
    assert "**" not in readme, "nothing a reader has to be warned of"
    assert "No current MLPerf round" in readme
    assert readme.count("| success |") == 5
    assert readme.count("| success | 9.055 | mAP 0.2328 after epoch 55 |") == 1
    assert readme.count("| success | 9.064 | mAP 0.2328 after epoch 55 |") == 1


def test_a_package_can_be_edited_and_checked_again(finished, tmp_path, capsys) -> None:
    out = tmp_path / "package"
    package_command([finished], out=out)
    path = out / "systems/my_box.json"
    path.write_text(path.read_text().replace('"number_of_nodes": "1"', '"number_of_nodes": 1'))
    assert package_command([], check=out) == DataError.exit_code
    assert 'write "1"' in capsys.readouterr().out
    assert package_command([], check=out, as_json=True) == DataError.exit_code
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert [one for one in found["findings"] if 'write "1"' in one["message"] and not one["note"]]
    assert found["scores"][0]["system"] == "my_box"


def test_a_narrow_model_stands_in_the_description_and_the_readme(finished, tmp_path) -> None:
    for file in finished.glob("run_*/config.json"):
        config = json.loads(file.read_text())
        config["width"]["value"] = 0.25
        file.write_text(json.dumps(config))
    for file in finished.glob("run_*/summary.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"width": 0.25}))
    for log in finished.glob("run_*/result_0.txt"):
        log.write_text(log.read_text().replace('"key": "ssd_width", "value": 1.0', '"key": "ssd_width", "value": 0.25'))
    folders = [finished / f"run_{index}" for index in (0, 2, 3, 4, 5)]
    out = make_package(folders, tmp_path / "package")
    assert "width 0.25" in json.loads((out / "systems/my_box.json").read_text())["sw_notes"]
    assert "width 0.25" in (out / "benchmarks/ssd/implementations/my_box/README.md").read_text()
    report = check_package(out)
    assert report.passed, str(report)
    assert any(finding.note and "width 0.25" in finding.message for finding in report.findings)


@pytest.mark.parametrize("count", [4, 6])
def test_exactly_five_runs_make_a_package(finished, tmp_path, count) -> None:
    with pytest.raises(ConfigError, match="exactly 5"):
        make_package([finished / "run_0"] * count, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_run_that_does_not_count_is_refused(finished, tmp_path) -> None:
    with pytest.raises(DataError, match="killed"):
        make_package([finished / f"run_{index}" for index in range(5)], tmp_path / "package")


def change_json(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    content[key] = {"value": value, "from": "default"} if path.name == "config.json" else value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        ("config.json", "epochs", 70, "different configs: epochs"),
        ("summary.json", "commit", "deadbeef", "different commits"),
        ("system.json", "host_processor_model_name", "another", "different machines"),
        ("summary.json", "resumed", True, "without a break"),
        ("config.json", "submitter", "unknown", "names no submitter"),
    ],
)
def test_runs_of_different_kinds_are_never_mixed(finished, tmp_path, file, key, value, words) -> None:
    change_json(finished / "run_3" / file, key, value)
    folders = [finished / f"run_{index}" for index in (0, 2, 3, 4, 5)]
    with pytest.raises((ConfigError, DataError), match=words):
        make_package(folders, tmp_path / "package")


def test_a_package_is_never_written_over_something(finished, tmp_path) -> None:
    (tmp_path / "package").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        make_package([finished / "run_0"] * 5, tmp_path / "package")


@pytest.mark.parametrize(
    ("runs", "given", "words"),
    [
        ([], {}, "give the runs and --out DIR"),
        (["x"], {}, "give the runs and --out DIR"),
        ([], {"check": Path("d"), "out": Path("e")}, "--check DIR goes with --ruleset alone"),
        (["x"], {"check": Path("d")}, "--check DIR goes with --ruleset alone"),
        (["x"], {"out": Path("d"), "field": ["cooling"]}, "--field cooling: write NAME=VALUE"),
    ],
)
def test_wrong_arguments_are_a_bad_configuration(runs, given, words) -> None:
    with pytest.raises(ConfigError, match=words):
        package_command(map(Path, runs), **given)


def test_a_package_by_rules_that_do_not_know_this_model_is_not_written(finished, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"ruleset 4\.0\.0: SSD-ResNet34 exists in"):
        package_command([finished], out=tmp_path / "package", ruleset="4.0.0")
    assert not list(tmp_path.glob("package*"))


def test_an_unknown_field_of_the_description_is_named(finished, tmp_path) -> None:
    with pytest.raises(ConfigError, match="colling"):
        package_command([finished], out=tmp_path / "package", field=["colling=air"])


def test_a_systems_name_becomes_a_file_name() -> None:
    assert folder_name("8x BI-V100 (CoreX 4.3)") == "8x_BI-V100_CoreX_4.3"
    for nameless in ("unknown", "", "()"):
        with pytest.raises(ConfigError, match="--system"):
            folder_name(nameless)


def test_runs_and_campaigns_are_named_together(finished, tmp_path) -> None:
    alone = finished / "run_1"
    assert _run_folders([alone, finished]) == [alone, *(finished / f"run_{index}" for index in (0, 2, 3, 4, 5))]


def test_fields_of_a_file_and_of_the_command_line(tmp_path) -> None:
    path = tmp_path / "fields.json"
    path.write_text('{"cooling": "air", "hw_notes": "a=b"}')
    assert _fields(path, ["cooling=water=cold", "sw_notes="]) == {
        "cooling": "water=cold",
        "hw_notes": "a=b",
        "sw_notes": "",
    }
    assert _fields(None, []) == {}
    for text, words in (
        ("{", "cannot be read as JSON"),
        ("[]", "whose values are all strings"),
        ('{"a": 1}', "all str"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            _fields(path, [])


def test_what_a_reader_must_know_of_the_model_and_its_data() -> None:
    def notes(values: Mapping, **config: object) -> list[str]:
        return _notes(
            SimpleNamespace(config={"width": 1, "pretrained": True, **config}, log=SimpleNamespace(values=values))
        )

    usual = {"train_samples": 117_266, "cache_clear": True}
    assert notes(usual) == []
    assert notes(usual, width=0.5, pretrained=False) == [
        "Model of width 0.5: not the benchmark's",
        "Trained from scratch, without a backbone",
    ]
    assert notes({"train_samples": 400, "cache_clear": False, "ssd_test_data": True}) == [
        "Trained on 400 images: not COCO 2017",
        "The machine's file caches were not dropped before the runs",
        "Test data, no measured result",
    ]


def test_accelerators_are_those_that_a_node_s_processes_used(finished, tmp_path) -> None:
    """The machine has 8, and the runs took 2. What a call that was killed left is no hindrance."""
    for index in (0, 2, 3, 4, 5):
        change_json(finished / f"run_{index}/system.json", "accelerators_per_node", "8")
    run = read_run(finished / "run_0")
    used = replace(run, config={**run.config, "nproc_per_node": 2})
    assert _description([used], {})["accelerators_per_node"] == "2"
    (tmp_path / "package.part/systems").mkdir(parents=True)
    make_package([finished / f"run_{index}" for index in (0, 2, 3, 4, 5)], tmp_path / "package")
    assert not (tmp_path / "package.part").exists()


def lines_of(path: Path, change: Callable[[dict], object]) -> None:
    """Rewrite a file of JSON lines, each changed in place; a log's token stays before its records."""
    token = ":::MLLOG " if path.suffix == ".txt" else ""
    entries = [json.loads(line.removeprefix(token)) for line in path.read_text().splitlines()]
    for entry in entries:
        change(entry)
    path.write_text("".join(f"{token}{json.dumps(entry)}\n" for entry in entries))


def json_of(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def last_accuracy(run: Path) -> None:
    """The log alone claims mAP 0.9 at its end."""
    lines_of(
        run / "result_0.txt",
        lambda r: r.update(value=0.9) if r["key"] == "eval_accuracy" and r["metadata"]["epoch_num"] >= 50 else None,
    )


def half_the_time(run: Path) -> None:
    lines_of(run / "result_0.txt", lambda r: r.update(time_ms=r["time_ms"] // 2 + 800_000_000_000))


def logged(key: str, value: object) -> Callable[[Path], None]:
    return lambda run: lines_of(run / "result_0.txt", lambda r: r.update(value=value) if r["key"] == key else None)


def summed_up(**values: object) -> Callable[[Path], None]:
    return lambda run: json_of(run / "summary.json", lambda summary: summary.update(values))


def measured_otherwise(run: Path) -> None:
    lines_of(run / "metrics.jsonl", lambda line: line.update(AP=0.5) if line["kind"] == "evaluation" else None)


def of_config(key: str, value: object) -> Callable[[Path], None]:
    return lambda run: change_json(run / "config.json", key, value)


def shifted(file: str, field: str, by: float) -> Callable[[Path], None]:
    return lambda run: lines_of(run / file, lambda line: line.update({field: line.get(field, 0) + by}))


def half_the_time_twice(run: Path) -> None:
    begin = min(record.time_ms for record in read_log(run / "result_0.txt", "log").records if record.key == "run_start")
    lines_of(
        run / "result_0.txt",
        lambda r: r.update(time_ms=begin + (r["time_ms"] - begin) / 2) if r["time_ms"] > begin else None,
    )
    json_of(run / "summary.json", lambda summary: summary.update(seconds={"run": summary["seconds"]["run"] / 2}))


def resumed(run: Path) -> None:
    path = run / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "resumed", "step": 129}\n')


DOCTORED = {
    "the last mAP of the log": (last_accuracy, ["0.9", "0.23"]),
    "half the time": (half_the_time, ["by the result log", "by summary.json"]),
    "another seed": (logged("seed", 5), ["seed is 5 in the result log", "in summary.json"]),
    "another batch": (
        logged("global_batch_size", 16),
        ["batch is 16 in the result log and 912 in summary.json"],
    ),
    "another width": (logged("ssd_width", 0.25), ["width is 0.25 in the result log and 1.0 in config.json"]),
    "another target": (summed_up(target=0.2), ["target is 0.23 in the result log and 0.2 in summary.json"]),
    "other metrics": (measured_otherwise, ["0.5", "in metrics.jsonl"]),
    "another number of steps": (summed_up(steps=10), ["is 10 in summary.json and 6450 in metrics.jsonl"]),
    "not reached": (summed_up(exit_code=4), ["True in the result log and False in summary.json"]),
    "another submitter": (logged("submission_org", "Else"), ["'Else' in the result log and 'Org' in config.json"]),
    "an hour later": (shifted("result_0.txt", "time_ms", 3_600_000), ["epoch 1's epoch_stop is at", "metrics.jsonl"]),
    "an hour later in metrics.jsonl": (shifted("metrics.jsonl", "time", 3600), ["epoch 1's epoch_stop is at"]),
    "half the time everywhere": (half_the_time_twice, ["epoch_stop is at", "in metrics.jsonl"]),
    "more training images": (
        logged("train_samples", 234_532),
        ["is 12900 in the result log and 6450 in metrics.jsonl"],
    ),
    "another batch norm": (of_config("train_batch_size", 57), ["span is 114 in the result log and 57 in config.json"]),
    "another precision": (of_config("precision", "bf16"), ["precision is 'fp16' in the result log and 'bf16'"]),
    "another platform": (logged("submission_platform", "x"), ["'x' in the result log and", "in config.json"]),
    "other evaluated epochs": (of_config("eval_interval", 10), ["[5, 10, 15,", "[10, 20, 30, 40, 50] in config.json"]),
    "faster": (summed_up(images_per_s=9999.0), ["9999.0 in summary.json and 1234.5 to 1234.5 in metrics.jsonl"]),
    "more of each device": (summed_up(images_per_s_per_device=9.0), ["is 1234.5 and 9.0 a device in summary.json"]),
    "another config": (summed_up(config="smoke"), ["config is 'smoke' in summary.json and 'demo' in config.json"]),
    "other nodes": (
        lambda run: json_of(run / "system.json", lambda system: system.update(number_of_nodes="4")),
        ["number of nodes is '4' in system.json and '1' in config.json"],
    ),
    "resumed": (resumed, ["whether it was resumed is False in summary.json and True in metrics.jsonl"]),
    "a higher rate": (
        lambda run: lines_of(run / "metrics.jsonl", lambda line: line.update(kind="train", learning_rate=0.5)),
        ["learning rate is 0.0899745 in the result log and up to 0.5 in metrics.jsonl"],
    ),
    "no steps in the summary": (
        lambda run: json_of(run / "summary.json", lambda summary: summary.pop("steps")),
        ["summary.json has no steps"],
    ),
    "no value of a key": (
        lambda run: json_of(run / "config.json", lambda config: config.update(width=3)),
        ["config.json: width is not a value and where it came from"],
    ),
    "a key taken out": (
        lambda run: json_of(run / "config.json", lambda config: config.pop("system")),
        ["config.json has no system"],
    ),
    "no exit code": (summed_up(exit_code=[1]), ["its exit code is [1], which is no number"]),
    "lists in lists": (
        lambda run: (run / "summary.json").write_text("[" * 100_000),
        ["summary.json: a finished run leaves this file, and it cannot be read"],
    ),
    "metrics deleted": (lambda run: (run / "metrics.jsonl").unlink(), ["metrics.jsonl", "No such file"]),
}


@pytest.mark.parametrize("how", DOCTORED)
def test_a_run_whose_files_contradict_each_other_is_no_result(campaign, machine, tmp_path, how: str) -> None:
    assert go(campaign, machine) == EXIT_REACHED
    runs = sorted(path for path in campaign.folder.glob("run_*") if path.is_dir())
    doctor, said = DOCTORED[how]
    doctor(runs[2])
    with pytest.raises(DataError) as refused:
        make_package(runs, tmp_path / "package")
    for words in said:
        assert words in str(refused.value)
    assert str(runs[2]) in str(refused.value)
    assert not (tmp_path / "package").exists()


def test_honest_runs_make_a_package(campaign, machine, tmp_path) -> None:
    assert go(campaign, machine) == EXIT_REACHED
    runs = sorted(path for path in campaign.folder.glob("run_*") if path.is_dir())
    assert make_package(runs, tmp_path / "package") == tmp_path / "package"


def test_a_shifted_copy_of_a_run_is_no_second_run(campaign, machine, tmp_path) -> None:
    """Another seed in every file, and the clock moved by an hour."""
    assert go(campaign, machine) == EXIT_REACHED
    runs = sorted(path for path in campaign.folder.glob("run_*") if path.is_dir())
    shutil.rmtree(runs[4])
    shutil.copytree(runs[0], runs[4])
    lines_of(
        runs[4] / "result_0.txt",
        lambda r: r.update(time_ms=r["time_ms"] + 3_600_000, **({"value": 7} if r["key"] == "seed" else {})),
    )
    json_of(runs[4] / "summary.json", lambda summary: summary.update(seed=7))
    shifted("metrics.jsonl", "time", 3600)(runs[4])
    json_of(runs[4] / "config.json", lambda config: config["seed"].update(value=7))
    with pytest.raises(DataError, match="a run is counted twice"):
        make_package(runs, tmp_path / "package")


# Numbers that stand in two files of a run, on a run of two epochs that agrees with itself


def told(at: float, key: str, value: object = None, **metadata: object) -> Record:
    return Record(key, value, metadata, 1000.0 * at, 1)


RECORDS = (
    told(0, "seed", 5),
    told(0, "global_batch_size", 16),
    told(0, "model_bn_span", 8),
    told(0, "train_samples", 40),
    told(0, "opt_base_learning_rate", 0.5),
    told(0, "ssd_width", 0.25),
    told(0, "submission_org", "Acme"),
    told(100, "run_start"),
    told(110, "epoch_stop", epoch_num=1),
    told(120, "epoch_stop", epoch_num=2),
    told(121, "eval_accuracy", 0.25, epoch_num=2),
    told(130, "run_stop", status="success"),
)
KEYS = {
    "name": "cpu",
    "config": "demo",
    "train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "nproc_per_node": 2,
    "bn_group": 2,
    "nodes": 1,
    "seed": 5,
    "width": 0.25,
    "submitter": "Acme",
    "base_learning_rate": 0.5,
    "epochs": 4,
    "eval_epochs": [2],
    "eval_interval": 0,
}
SUMMARY = {
    "name": "cpu",
    "config": "demo",
    "seed": 5,
    "steps": 6,
    "global_batch": 16,
    "width": 0.25,
    "target": 0.23,
    "evaluations": [(2, 0.25)],
    "seconds": {"run": 30.0},
    "images_per_s": 8.0,
    "images_per_s_per_device": 4.0,
    "resumed": False,
    "exit_code": 0,
}
LINES = (
    {"kind": "start", "seed": 5},
    {"kind": "train", "step": 2, "images_per_s": 7.0, "learning_rate": 0.25},
    {"kind": "train", "step": 4, "images_per_s": 9.0, "learning_rate": 0.5},
    {"kind": "epoch", "epoch": 1, "step": 3, "time": 110.0},
    {"kind": "epoch", "epoch": 2, "step": 6, "time": 120.0},
    {"kind": "evaluation", "epoch": 2, "AP": 0.25, "time": 121.0},
)
MACHINE = {"number_of_nodes": "1"}


def disagreements(records=RECORDS, config=(), summary=(), lines=LINES, system=()) -> list[str]:
    values: dict[str, object] = {}
    for record in records:
        values.setdefault(record.key, record.value)
    log = ResultLog("result_0.txt", Path("result_0.txt"), tuple(records), values)
    given = ({**KEYS, **dict(config)}, {**SUMMARY, **dict(summary)}, list(lines), {**MACHINE, **dict(system)})
    return list(same_everywhere(log, *given))


def changed(key: str, value: object) -> tuple[Record, ...]:
    return tuple(replace(one, value=value) if one.key == key else one for one in RECORDS)


def moved(key: str, by: float, epoch: int | None = None) -> tuple[Record, ...]:
    """The records, with those of a key `by` seconds later."""
    return tuple(
        replace(one, time_ms=one.time_ms + 1000 * by)
        if one.key == key and epoch in (None, one.metadata.get("epoch_num"))
        else one
        for one in RECORDS
    )


def with_line(number: int, **values: object) -> list[dict]:
    return [{**line, **values} if place == number else line for place, line in enumerate(LINES)]


def test_a_run_that_agrees_with_itself() -> None:
    assert disagreements() == []
    assert disagreements(system={"number_of_nodes": "2"}, config={"nodes": 2, "nproc_per_node": 1}) == []


LOGGED, SUMMED = "in the result log", "in summary.json"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"summary": {"seed": 6}}, [
            f"seed is 5 {LOGGED} and 6 {SUMMED}", f"seed is 6 {SUMMED} and 5 in metrics.jsonl"
        ]),
        ({"config": {"seed": 6}}, [f"seed is 5 {LOGGED} and 6 in config.json"]),
        ({"config": {"seed": None}}, []),
        ({"summary": {"global_batch": 8}}, [f"global batch is 16 {LOGGED} and 8 {SUMMED}"]),
        ({"config": {"gradient_accumulation_steps": 3}}, [f"global batch is 16 {LOGGED} and 24 in config.json"]),
        ({"config": {"gradient_accumulation_steps": "2"}}, [
            f"global batch is 16 {LOGGED} and [4, '2', 2, 1] in config.json"
        ]),
        ({"config": {"bn_group": 1}}, [f"batch norm's span is 8 {LOGGED} and 4 in config.json"]),
        ({"config": {"width": 0.5}}, [f"width is 0.25 {LOGGED} and 0.5 in config.json"]),
        ({"summary": {"width": 0.5}}, [f"width is 0.25 {LOGGED} and 0.5 {SUMMED}"]),
        ({"summary": {"width": 0.25 + 1e-11}}, []),
        ({"config": {"submitter": "Other"}}, [f"submitter is 'Acme' {LOGGED} and 'Other' in config.json"]),
        ({"config": {"submitter": None}}, []),
        ({"config": {"base_learning_rate": 0.25}}, [f"base_learning_rate is 0.5 {LOGGED} and 0.25 in config.json"]),
        ({"summary": {"name": "amd"}}, [f"name is 'amd' {SUMMED} and 'cpu' in config.json"]),
        ({"summary": {"config": "tiny"}}, [f"config is 'tiny' {SUMMED} and 'demo' in config.json"]),
        ({"system": {"number_of_nodes": "2"}}, ["the number of nodes is '2' in system.json and '1' in config.json"]),
        ({"summary": {"evaluations": []}}, [f"the series of evaluations is [[2, 0.25]] {LOGGED} and [] {SUMMED}"]),
        ({"lines": LINES[:-1]}, [f"the series of evaluations is [[2, 0.25]] {LOGGED} and [] in metrics.jsonl"]),
        ({"lines": [*LINES[:3], *LINES[4:]]}, [f"the series of epochs is [1, 2] {LOGGED} and [2] in metrics.jsonl"]),
        ({"lines": with_line(4, step=7), "summary": {"steps": 7}}, [
            f"the step that ends epoch 2 is 6 {LOGGED} and 7 in metrics.jsonl"
        ]),
        ({"summary": {"steps": 7}}, [f"the number of steps is 7 {SUMMED} and 6 in metrics.jsonl"]),
        ({"config": {"eval_epochs": [1, 2, 3]}}, [
            f"the series of evaluated epochs is [2] {LOGGED} and [1, 2] in config.json"
        ]),
        ({"config": {"eval_epochs": [1, 2]}, "summary": {"exit_code": 4}}, [
            f"the series of evaluated epochs is [2] {LOGGED} and [1, 2] in config.json",
            f"whether the target was reached is True {LOGGED} and False {SUMMED}",
        ]),
        ({"config": {"eval_epochs": [1, 2]}, "summary": {"exit_code": 5}}, [
            f"whether the target was reached is True {LOGGED} and False {SUMMED}"
        ]),
        ({"config": {"eval_epochs": "2"}}, []),
        ({"lines": with_line(0, kind="resumed")}, [
            f"whether it was resumed is False {SUMMED} and True in metrics.jsonl"
        ]),
        ({"lines": with_line(0, seed=6)}, [f"seed is 5 {SUMMED} and 6 in metrics.jsonl"]),
        ({"summary": {"images_per_s": 9.0 + 0.002, "images_per_s_per_device": 4.501}}, []),
        ({"summary": {"images_per_s": 7.0 - 0.002, "images_per_s_per_device": 3.499}}, []),
        ({"summary": {"images_per_s": 9.003, "images_per_s_per_device": 4.5015}}, [
            f"images/s is 9.003 {SUMMED} and 7.0 to 9.0 in metrics.jsonl"
        ]),
        ({"summary": {"images_per_s": 6.997, "images_per_s_per_device": 3.4985}}, [
            f"images/s is 6.997 {SUMMED} and 7.0 to 9.0 in metrics.jsonl"
        ]),
        ({"summary": {"images_per_s_per_device": 4.0009}}, []),
        ({"summary": {"images_per_s_per_device": 4.002}}, [
            f"images/s is 8.0 and 4.002 a device {SUMMED}, and config.json has 2 devices"
        ]),
        ({"summary": {"images_per_s_per_device": None}}, []),
        ({"summary": {"images_per_s": None}}, []),
        ({"lines": with_line(1, learning_rate=0.5 * (1 + 5e-7))}, []),
        ({"lines": with_line(1, learning_rate=0.51)}, [
            f"the learning rate is 0.5 {LOGGED} and up to 0.51 in metrics.jsonl"
        ]),
        ({"lines": with_line(1, learning_rate=None)}, []),
        ({"records": moved("epoch_stop", 2.0)}, []),
        ({"records": moved("epoch_stop", 2.5)}, [
            f"epoch 1's epoch_stop is at 112.500 s {LOGGED} and at 110.000 s in metrics.jsonl"
        ]),
        ({"records": moved("epoch_stop", -3.0, 2)}, [
            f"epoch 2's epoch_stop is at 117.000 s {LOGGED} and at 120.000 s in metrics.jsonl"
        ]),
        ({"records": moved("eval_accuracy", 3.0)}, [
            f"epoch 2's eval_accuracy is at 124.000 s {LOGGED} and at 121.000 s in metrics.jsonl"
        ]),
        ({"lines": with_line(3, time="soon")}, []),
        ({"summary": {"seconds": {"run": 35.0}}}, []),
        ({"summary": {"seconds": {"run": 35.5}}}, [
            "the timed part took 30.0 s by the result log and 35.5 s by summary.json"
        ]),
        ({"summary": {"seconds": {"run": 24.5}}}, [
            "the timed part took 30.0 s by the result log and 24.5 s by summary.json"
        ]),
        ({"records": moved("run_stop", 970), "summary": {"seconds": {"run": 1020.0}}}, []),
        ({"records": moved("run_stop", 970), "summary": {"seconds": {"run": 1025.0}}}, [
            "the timed part took 1000.0 s by the result log and 1025.0 s by summary.json"
        ]),
        ({"summary": {"seconds": 7}}, []),
        ({"records": changed("train_samples", None)}, []),
        ({"records": changed("global_batch_size", 0)}, [
            f"global batch is 0 {LOGGED} and 16 {SUMMED}", f"global batch is 0 {LOGGED} and 16 in config.json"
        ]),
        ({"lines": []}, [
            f"the series of evaluations is [[2, 0.25]] {LOGGED} and [] in metrics.jsonl",
            f"the series of epochs is [1, 2] {LOGGED} and [] in metrics.jsonl",
        ]),
    ],
)  # fmt: skip
def test_each_number_that_stands_in_two_files_is_compared(given: dict, said: list[str]) -> None:
    assert disagreements(**given) == said


def test_keys_that_every_summary_has() -> None:
    log = ResultLog("result_0.txt", Path("result_0.txt"), RECORDS, {"seed": 5, "ssd_width": 0.25})
    absent = "seed, steps, global_batch, width, target, evaluations, seconds, images_per_s"
    assert list(same_everywhere(log, KEYS, {}, LINES, {})) == [
        f"summary.json has no {absent}, and every run writes them",
        f"the series of evaluations is [[2, 0.25]] {LOGGED} and None {SUMMED}",
        f"whether the target was reached is True {LOGGED} and False {SUMMED}",
    ]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1.0, 1.0 + 1e-10, True),
        (1.0, 1.0 + 1e-8, False),
        (0.0, 1e-13, True),
        (True, 1.0000000001, False),
        (True, True, True),
        ("1", 1, False),
        ([1, (2, 3)], (1, [2, 3]), True),
        ([1, 2], [1], False),
        ([1], 1, False),
        (None, None, True),
    ],
)
def test_values_that_are_equal_as_json(one: object, other: object, equal: bool) -> None:
    assert _equal(one, other) == equal


# The table of results, and the system description


def test_results_as_a_table_as_csv_and_as_json(tmp_path, replay, capsys) -> None:
    for run in range(2):
        replay(tmp_path / f"result_{run}.txt", run)
    assert results_command([tmp_path]) == EXIT_REACHED
    head, *_, notice = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["file", "system", "round"]
    assert notice.startswith("Computed from result logs. ")
    assert results_command([tmp_path], csv=True) == EXIT_REACHED
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "file",
        *(str(tmp_path / f"result_{run}.txt") for run in range(2)),
    ]
    assert results_command([tmp_path], json=True) == EXIT_REACHED
    assert [row["epochs"] for row in json.loads(capsys.readouterr().out)] == [55, 50]
    with pytest.raises(ConfigError, match="exclude each other"):
        results_command([tmp_path], csv=True, json=True)


def test_what_is_unusual_in_a_log_stands_below_its_table(tmp_path, replay, capsys) -> None:
    """Sixty seconds are lost in the second epoch; the other log has none to tell of."""
    replay(tmp_path / "usual.txt", 0)
    replay(tmp_path / "odd.txt", 1)

    def later(entry: dict) -> None:
        entry["time_ms"] += 60_000 * begun[0]
        begun[0] = begun[0] or (entry["key"] == "epoch_start" and entry["metadata"]["epoch_num"] == 2)

    begun = [False]
    lines_of(tmp_path / "odd.txt", later)
    assert results_command([tmp_path]) == EXIT_REACHED
    text = capsys.readouterr().out
    assert "\nodd.txt: " in text
    assert "\nusual.txt: " not in text


FULL = dict.fromkeys(FIELDS, "said") | dict.fromkeys(COUNTS, "2")
FULL |= {"submitter": "Org", "division": "open", "status": "onprem"}


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        (json.dumps(FULL), {}, []),
        (json.dumps(FULL), {"submission_org": "Org", "submission_division": "open", "ssd_width": 1}, []),
        ("{", {}, ["ERROR cannot be read: Expecting property name"]),
        ("[]", {}, ["ERROR is no JSON object"]),
        ('{"cooling": "air", ' + json.dumps(FULL)[1:], {}, ["ERROR has cooling more than once: readers take the last"]),
        (json.dumps(FULL | {"cooling": 1}), {}, ['ERROR cooling = 1 is no string: write "1"']),
        (json.dumps(FULL), {"submission_org": "Else"}, [
            "ERROR submitter is 'Org', but the logs say submission_org Else"
        ]),
        (json.dumps(FULL), {"submission_org": 7}, []),
        (
            json.dumps(FULL | {"cooling": ""}),
            {},
            ["note  not filled in: cooling (write them here, or make the package with --field NAME=VALUE)"],
        ),
        (json.dumps({key: FULL[key] for key in FIELDS if key != "cooling"}), {}, ["ERROR cooling is absent"]),
        (json.dumps(FULL), {"ssd_width": 0.5}, ["ERROR the model's width 0.5 does not stand in hw_notes or sw_notes"]),
        (json.dumps(FULL | {"sw_notes": "of width 0.5"}), {"ssd_width": 0.5}, []),
        (json.dumps(FULL), {"ssd_width": "half"}, []),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_system_description(tmp_path, text: str, values: dict, said: list[str]) -> None:
    assert list(description_findings(tmp_path, "box", [])) == [], "its absence is another check's finding"
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems/box.json").write_text(text)
    found = list(description_findings(tmp_path, "box", [ResultLog("log", Path("log"), (), values)]))
    messages = [f"{'note ' if one.note else 'ERROR'} {one.message}" for one in found]
    assert [message.partition(" enclosed in double quotes")[0] for message in messages] == said
    assert {one.file for one in found} <= {"systems/box.json"}


def test_the_lines_that_a_finished_run_leaves(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(DataError, match=r"leaves this file, and it cannot be read: No such file or directory$"):
        require_metrics(path)
    path.write_text('{"a": 1}\n\n{"b": 2}\n')
    assert require_metrics(path) == [{"a": 1}, {"b": 2}]
    path.write_text('{"a": 1}\n{"b')
    with pytest.raises(DataError, match="cannot be read: Unterminated string"):
        require_metrics(path)
    path.write_text('{"a": 1}\n[2]')
    with pytest.raises(DataError, match=r"a line is no JSON object$"):
        require_metrics(path)
