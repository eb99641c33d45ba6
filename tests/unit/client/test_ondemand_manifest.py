"""What a Job looks like to the cluster, and what an agent never imports."""

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from deerfield.errors import InvalidInput
from deerfield.exchange import Key
from services.client.__main__ import main
from services.client.ondemand.jobs import connect
from services.client.ondemand.manifest import Template, load, new_name, value

KEY = Key(run="run 7/" + "x" * 80, incarnation=1, round=99_999, phase=3)
SITE = "St. Mary's Hospital, Ward 3 (north-west)"
CHART = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "replaced", "namespace": "hospital", "labels": {"app.kubernetes.io/instance": "north"}},
    "spec": {
        "activeDeadlineSeconds": 7200,
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/component": "task"}},
            "spec": {
                "restartPolicy": "OnFailure",
                "automountServiceAccountToken": True,
                "containers": [{"name": "task", "image": "client", "args": ["--log", "json"]}],
            },
        },
    },
}


def job(deadline_s=3600.5, **spec):
    template = Template({**CHART, "spec": {**CHART["spec"], **spec}}, SITE)
    return template.job(new_name(SITE, KEY), KEY, Path("/tasks/one"), deadline_s)


def test_a_job_is_one_that_the_api_takes_and_says_whose_it_is():
    made = job()
    kubernetes_validate.validate(made, "1.37", strict=True)
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "task"
    assert labels["deerfield.io/site"] == value(SITE) == "St.-Mary-s-Hospital--Ward-3--north-west"
    assert (labels["deerfield.io/round"], labels["deerfield.io/phase"]) == ("99999", "3")
    for each in (*labels.values(), *made["metadata"]["labels"].values()):
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", each), each
    assert CHART["spec"]["template"]["spec"]["containers"][0]["args"] == ["--log", "json"]  # the chart's stays as it is


def test_a_job_is_tried_once_has_no_token_and_no_more_time_than_its_phase():
    spec = job()["spec"]
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (0, 1, 1)
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (3601, 3600)
    assert job(deadline_s=1e9)["spec"]["activeDeadlineSeconds"] == 7200
    assert job(ttlSecondsAfterFinished=60)["spec"]["ttlSecondsAfterFinished"] == 60
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    assert pod["containers"][0]["args"] == ["--log", "json", "task", "--work", "/tasks/one"]


def test_no_two_names_are_alike_and_each_is_one_of_dns():
    names = {new_name(SITE, KEY) for _ in range(50)}
    assert len(names) == 50
    for name in (*names, new_name("ü", Key(run="-", incarnation=1, round=0, phase=0))):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), name


def test_jobs_of_a_site_are_found_whatever_version_of_its_chart_made_them():
    template = Template(CHART, "north")
    assert template.selector == "deerfield.io/site=north,app.kubernetes.io/instance=north"
    assert Template({**CHART, "metadata": {"namespace": "hospital"}}, "north").selector == "deerfield.io/site=north"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "metadata.namespace is missing"),
        (yaml.safe_dump({**CHART, "metadata": {"name": "x"}}), "metadata.namespace is missing"),
        (yaml.safe_dump({**CHART, "spec": {"template": {"spec": {"containers": []}}}}), "containers.0 is missing"),
        (yaml.safe_dump({**CHART, "kind": "CronJob"}), "is batch/v1 CronJob; give a batch/v1 Job"),
    ],
)
def test_what_is_no_job_is_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInput, match=words):
        load(path, "north")


def test_without_a_cluster_an_agent_says_so(tmp_path):
    for environment in ({}, {"KUBECONFIG": str(tmp_path / "gone")}):
        with pytest.raises(InvalidInput, match="no Kubernetes API server is known here"):
            connect(environment)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "--work is missing; give it, or set DEERFIELD_WORK"),
        (("--work", "tasks", "--job-start-s", "soon"), "--job-start-s 'soon' is no number of seconds above 0"),
        (("--work", "tasks", "--job-start-s", "-1"), "--job-start-s '-1' is no number of seconds above 0"),
    ],
)
def test_what_an_agent_cannot_start_with_is_one_sentence(capsys, given, words):
    assert main(["--log", "console", "agent", *given]) == 2
    assert words in capsys.readouterr().err


def test_an_agent_imports_no_torch():
    code = (
        "import sys, services.client.__main__, services.client.ondemand.restart, services.client.ondemand.job, "
        "services.client.metrics, services.client.reporting; "
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'peft', 'opacus'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
