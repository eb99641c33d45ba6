"""The Job that the chart gives an agent: the agent can read it, and makes a pod of it that may do one task."""

from pathlib import Path

import pytest
import yaml

from deerfield.exchange import Key
from services.client.ondemand import manifest
from tests.charts import restricted, schemas
from tests.charts.pods import pods
from tests.charts.rendering import documents, of, values_files

ONDEMAND = [path for path in values_files("deerfield-site") if "\nmode: ondemand\n" in path.read_text()]


@pytest.fixture(params=ONDEMAND, ids=lambda path: path.stem)
def render(request):
    return of("deerfield-site", request.param)


def parts(render) -> tuple[dict, dict]:
    """The agent's pod, and the text of the ConfigMap that it reads the Job from."""
    (agent,) = [pod.spec for pod in pods(render.objects) if pod.component == "agent"]
    mounted = {each["name"]: each for each in agent["volumes"]}["job"]["configMap"]["name"]
    (config,) = [each for each in render.objects if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", mounted)]
    return agent, config["data"]


@pytest.fixture
def job(render, tmp_path):
    _, data = parts(render)
    (tmp_path / "job.yaml").write_text(data["job.yaml"])
    site = "North General"
    key = Key(run="lung-run-3f2a91c07d", incarnation=0, round=3, phase=1)
    made = manifest.load(tmp_path / "job.yaml", site)
    return made.job(manifest.new_name(site, key), key, Path("/work/one"), 3600.0)


def test_the_api_takes_the_job_that_an_agent_makes(job):
    (said,) = documents(yaml.safe_dump(job))
    assert list(schemas.refusals(said, schemas.NEWEST)) == []
    assert [offence for pod in pods([said]) for offence in restricted.offences(pod)] == []


def test_a_task_runs_the_client_on_the_agent_s_folders_and_as_its_user(render, job):
    agent, _ = parts(render)
    box, spec = job["spec"]["template"]["spec"]["containers"][0], job["spec"]["template"]["spec"]
    assert [*box["command"], *box["args"]] == ["python", "-m", "services.client", "task", "--work", "/work/one"]
    ours = {each["mountPath"]: each["name"] for each in box["volumeMounts"]}
    theirs = {each["mountPath"]: each["name"] for each in agent["containers"][0]["volumeMounts"]}
    for path in ours.keys() & theirs.keys() - {"/tmp"}:
        claims = [{each["name"]: each for each in pod["volumes"]}[ours[path]] for pod in (spec, agent)]
        assert claims[0] == claims[1]
    assert "/work" in ours.keys() & theirs.keys()
    assert spec["securityContext"] == agent["securityContext"]


def test_a_task_has_no_certificate_state_policy_or_token(job):
    spec = job["spec"]["template"]["spec"]
    box = spec["containers"][0]
    assert {each["mountPath"] for each in box["volumeMounts"]} <= {
        "/work", "/data", "/models", "/etc/deerfield/s3", "/tmp", "/dev/shm",
    }  # fmt: skip
    assert not [each["name"] for each in box["env"] if "TLS" in each["name"] or "AGGREGATOR" in each["name"]]
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
