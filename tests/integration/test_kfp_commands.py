"""`deerfield pipelines submit|schedule|unschedule|list|register`: what they print, do, and refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines import cli
from tests import command, compiled, kfp_server
from tests.compiled import RUN

CRON = "0 0 3 * * 1"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return compiled.write(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def kfp():
    with kfp_server.serving() as server:
        yield server


@pytest.fixture
def deerfield(kfp):
    """The command: (exit code, what it printed). An error is its sentence and code."""

    def run(*arguments, **environment):
        where = {"KF_PIPELINES_ENDPOINT": kfp.address, "COLUMNS": "140"} | environment
        return command.deerfield("pipelines", *arguments, **where)

    return run


def only(found):
    (one,) = found.values()
    return one


def test_submit_starts_one_run_with_its_parameters_and_says_how_to_watch_it(deerfield, kfp, pipeline):
    code, said = deerfield("submit", pipeline, "-p", f"run={RUN}", "-p", "rounds=7", "--service-account", "trainer")
    assert code == 0, said
    run = only(kfp.runs)
    assert run["runtime_config"] == {"parameters": {"run": RUN, "rounds": 7}}
    assert run["service_account"] == "trainer"
    assert run["pipeline_version_reference"]["pipeline_version_id"] == only(kfp.versions)["pipeline_version_id"]
    lines = said.splitlines()
    assert lines[0] == f"run {run['run_id']}: {run['display_name']}"
    assert lines[1] == f"watch it at {kfp.address}/#/runs/details/{run['run_id']}"
    assert "request id at the aggregator" in lines[2]
    assert len(lines) == 3


def test_submit_as_json_names_the_run_and_the_address_of_the_browser(deerfield, kfp, pipeline):
    code, said = deerfield(
        "submit", pipeline, "-p", f"run={RUN}", "--json", KF_PIPELINES_UI_ENDPOINT="https://hub.example/pipeline/"
    )
    assert code == 0, said
    told = json.loads(said)
    assert told["run_id"] == only(kfp.runs)["run_id"]
    assert told["link"] == f"https://hub.example/pipeline/#/runs/details/{told['run_id']}"


def test_a_submission_whose_answer_was_lost_is_not_made_twice(deerfield, kfp, pipeline):
    kfp.interrupt("POST", "runs", answered=True)
    code, said = deerfield("submit", pipeline, "-p", f"run={RUN}")
    assert code == 0, said
    assert only(kfp.runs)["run_id"] in said
    assert not kfp.faults


def test_submit_refuses_a_parameter_that_the_pipeline_does_not_have_and_asks_nobody(deerfield, kfp, pipeline):
    code, said = deerfield("submit", pipeline, "-p", f"run={RUN}", "-p", "round=7")
    assert (code, "has no parameter 'round'; did you mean 'rounds'?" in said) == (2, True)
    assert kfp.requests == []


def test_a_schedule_is_made_changed_shown_and_deleted(deerfield, kfp, pipeline, tmp_path):
    (tmp_path / "run.yaml").write_text(RUN)
    what = ("schedule", pipeline, "--name", "weekly", "-f", f"run={tmp_path / 'run.yaml'}")
    code, said = deerfield(*what, "--cron", CRON)
    assert code == 0, said
    assert said.splitlines()[1] == f"created   schedule weekly: federated-training at '{CRON}'"
    code, said = deerfield(*what, "--cron", "0 30 4 * * 1", "--disabled", "--catchup", "--max-concurrency", 2)
    assert said.splitlines()[1] == "updated   schedule weekly: federated-training at '0 30 4 * * 1', disabled"
    made = only(kfp.recurring_runs)
    assert (made["mode"], made["max_concurrency"], "no_catchup" in made) == ("DISABLE", "2", False)
    assert made["runtime_config"] == {"parameters": {"run": RUN}}
    code, said = deerfield("list")
    for text in ("federated-training  1", "weekly    command-line  disabled  0 30 4 * * 1", f"run={RUN[:20]}"):
        assert text in said
    (shown,) = json.loads(deerfield("list", "--json")[1])["schedules"]
    assert shown["id"] == made["recurring_run_id"]
    assert (shown["enabled"], shown["catchup"], shown["parameters"]) == (False, True, {"run": RUN})
    assert shown["version"] == only(kfp.versions)["name"]
    assert deerfield("unschedule", "weekly") == (0, "deleted schedule weekly\n")
    assert not kfp.recurring_runs
    code, said = deerfield("unschedule", "weekly")
    assert (code, said) == (2, f"there is no schedule 'weekly' at {kfp.address}; there are none")


def test_an_installation_with_nothing_in_it_is_listed(deerfield):
    assert deerfield("list") == (0, "no pipelines and no schedules yet\n")


@pytest.mark.parametrize(
    ("cron", "sentence"),
    [
        ("0 3 * * 1", "five fields; write six, seconds first: seconds minutes hours day-of-month month day-of-week"),
        ("0 0 3 * * 8", "day-of-week is '8'; it may be *, numbers from 0 to 6 or SUN-SAT"),
    ],
)
def test_a_wrong_cron_is_refused_before_anything_is_asked(deerfield, kfp, pipeline, cron, sentence):
    code, said = deerfield("schedule", pipeline, "--name", "weekly", "--cron", cron, "-p", f"run={RUN}")
    assert code == 2
    assert said.startswith("schedule 'weekly': cron: ")
    assert sentence in said
    assert kfp.requests == []


def test_schedules_of_a_file_and_of_the_command_line_leave_each_other_alone(deerfield, kfp, pipeline, tmp_path):
    file = tmp_path / "schedules.yaml"
    weekly = {"name": "weekly", "pipeline": "federated-training", "cron": CRON, "parameters": {"run": RUN}}
    file.write_text(yaml.safe_dump({"schedules": [weekly]}))
    assert deerfield("schedule", pipeline, "--name", "mine", "--cron", CRON, "-p", f"run={RUN}")[0] == 0
    code, said = deerfield("register", pipeline, "--schedules", file, "--owner", "lungs")
    assert code == 0, said
    assert said.splitlines()[1] == f"created   schedule weekly: federated-training at '{CRON}'"
    code, said = deerfield("schedule", pipeline, "--name", "weekly", "--cron", CRON, "-p", f"run={RUN}")
    assert (code, "is kept by 'lungs', and is not touched" in said) == (2, True)
    code, said = deerfield("unschedule", "weekly")
    assert (code, "the next registration of 'lungs' makes it again" in said) == (0, True)
    assert only(kfp.recurring_runs)["display_name"] == "mine"
    file.write_text("schedules: []\n")
    assert deerfield("register", pipeline, "--schedules", file, "--owner", "lungs")[0] == 0
    assert only(kfp.recurring_runs)["display_name"] == "mine"


def test_an_owner_that_cannot_be_noted_is_refused_before_anything_is_asked(deerfield, kfp, pipeline):
    code, said = deerfield("register", pipeline, "--owner", "two words")
    assert (code, said.startswith("--owner is 'two words'; it has 1 to 63 letters")) == (2, True)
    assert kfp.requests == []


def test_register_without_a_file_uploads_and_leaves_every_schedule_alone(deerfield, kfp, pipeline):
    assert deerfield("schedule", pipeline, "--name", "mine", "--cron", CRON, "-p", f"run={RUN}")[0] == 0
    code, said = deerfield("register", pipeline, "--owner", "command-line", "--json")
    assert (code, json.loads(said)["change"]) == (0, "unchanged")
    assert only(kfp.recurring_runs)["display_name"] == "mine"


def test_a_recurring_run_that_deerfield_has_not_made_is_not_deleted(deerfield, kfp, pipeline):
    assert deerfield("schedule", pipeline, "--name", "mine", "--cron", CRON, "-p", f"run={RUN}")[0] == 0
    only(kfp.recurring_runs)["description"] = ""
    code, said = deerfield("unschedule", "mine")
    assert (code, "deerfield has not made the recurring run 'mine'" in said) == (2, True)
    assert len(kfp.recurring_runs) == 1
    assert "others" in deerfield("list")[1]


def test_the_command_prints_a_line_for_each_object_and_nothing_else_even_beside_other_tools_settings(
    kfp, pipeline, tmp_path
):
    """As the hook of a chart calls it; a kube config and settings of kfp lie there, and nobody reads them."""
    home = tmp_path / "home"
    for path in (home / ".kube" / "config", home / ".config" / "kfp" / "context.json"):
        path.parent.mkdir(parents=True)
        path.write_text("{broken")
    where = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    program = [sys.executable, "-c", "from pipelines.cli import main; main()", "pipelines", "register", str(pipeline)]
    done = subprocess.run(
        [*program, "--kfp", kfp.address], env=where, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    version = only(kfp.versions)["name"]
    assert done.stdout == f"created   pipeline federated-training: version {version}\n"
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == ["config", "context.json"]
