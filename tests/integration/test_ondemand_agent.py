"""The agent as a process: killed in the middle of a Job, and a whole run on a model beside a resident site's."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml

from deerfield import runfile
from deerfield.manifest import assemble
from deerfield.tensors import digest
from pipelines.embedded.running import resolved, site_policy
from services.client.custody.operator import read_account
from services.client.prepare import prepare
from tests.chaos import site as chaos
from tests.fakes import Clock
from tests.integration import federation
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.federation import wait_for
from tests.integration.ondemand import clustered, write_job
from tests.integration.test_ondemand import asked, mapped


@contextmanager
def process(command, folder, cluster, address, **environment):
    """A site's process: its settings come from the environment, as in a pod."""
    given = {
        "DEERFIELD_SITE": "north",
        "DEERFIELD_AGGREGATOR": address,
        "DEERFIELD_POLICY": folder / "policy.yaml",
        "DEERFIELD_STATE": folder / f"state-{command}",
        "DEERFIELD_JOB": folder / "job.yaml",
        "DEERFIELD_WORK": folder / "tasks",
        "DEERFIELD_READY": folder / "ready",
        "KUBECONFIG": cluster.kubeconfig(folder),
        **environment,
    }
    told = os.environ | {name: str(value) for name, value in given.items()}
    with (folder / f"{command}.log").open("ab") as log:
        program = [sys.executable, "-m", "services.client", command]
        with subprocess.Popen(program, env=told, stderr=log) as started:
            try:
                yield started
            finally:
                started.kill()


@pytest.mark.e2e
def test_an_agent_killed_in_the_middle_of_a_job_deletes_it_and_the_run_goes_on(tmp_path):
    spec = asked(
        chaos.spec("north", rounds=1, noise=True, privacy={"unit": "record", "epsilon": 2.0, "spare_phases": 1})
    )
    rules = mapped(chaos.policy(spec))
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(rules.model_dump(mode="json")))
    write_job(tmp_path / "job.yaml", environment={"DOES": "release"})
    aggregator = open_aggregator(tmp_path / "aggregator", Clock())
    with clustered(tmp_path) as cluster, served(aggregator) as server:
        run = server.runs.start(spec, "once")
        log = tmp_path / "agent.log"
        with process("agent", tmp_path, cluster, server.ports.listening) as agent:
            wait_for(lambda: (assert_alive(agent, log), list(tmp_path.glob("tasks/*/progress.json")))[1])
            assert (tmp_path / "ready").exists()
            agent.send_signal(signal.SIGKILL)
            agent.wait()
        (lost,) = cluster.running
        write_job(tmp_path / "job.yaml")
        with process("agent", tmp_path, cluster, server.ports.listening) as agent:
            wait_for(lambda: (assert_alive(agent, log), server.runs.get(run).state == "FINISHED")[1])
            assert lost not in cluster.jobs
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(20) == 128 + signal.SIGTERM
    aggregator.desk.store.close()
    held = read_account(tmp_path / "state-agent" / "ledgers" / "p" / "ledger.jsonl")
    assert (len(held.reservations), len(held.commits)) == (3, 2)
    assert list((tmp_path / "tasks").iterdir()) == []


@pytest.mark.e2e
def test_a_run_on_a_model_ends_in_the_hash_of_a_resident_sites(tmp_path):
    file = federation.write(tmp_path)
    resident, on_demand = (whole_run(command, file, tmp_path / command) for command in ("site", "agent"))
    assert resident == on_demand


def whole_run(command, file, folder):
    """What a run of an embedded file's one site ends with."""
    folder.mkdir()
    spec = prepared(file, folder)
    write_job(folder / "job.yaml", "services.client")
    aggregator, log = open_aggregator(folder / "aggregator", Clock()), folder / f"{command}.log"
    with clustered(folder) as cluster, served(aggregator) as server:
        run = server.runs.start(spec, "once")
        with process(command, folder, cluster, server.ports.listening) as started:
            wait_for(lambda: (assert_alive(started, log), server.runs.get(run).state == "FINISHED")[1], 240)
        found = digest(assemble(server.runs.get(run).model, aggregator.desk.published.get))
        assert len(cluster.made) == (2 if command == "agent" else 0)
    aggregator.desk.store.close()
    return found


def prepared(file, folder):
    """The run for the file's one site, whose policy is written as an embedded run would."""
    whole = runfile.load(file)
    known = prepare(whole, folder / "prepared", pooled=False)
    spec = resolved(whole, known)
    (folder / "policy.yaml").write_text(yaml.safe_dump(site_policy(whole, spec, known["sites"]["north"], known)))
    alone = spec.federation.model_copy(update={"sites": ("north",)})
    return spec.model_copy(update={"federation": alone})


def assert_alive(process, log):
    assert process.poll() is None, log.read_text()
