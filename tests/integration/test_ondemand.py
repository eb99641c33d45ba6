"""A site that makes a Job for each task: the same run, charged once, whatever becomes of its Jobs."""

import threading
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
import structlog

from deerfield.errors import InvalidInput, NoMachine, RunEnded
from deerfield.manifest import assemble
from deerfield.runspec import RunSpec
from deerfield.tensors import digest
from deerfield.types import Task
from pipelines.embedded.simulation import LocalLink
from services.client.custody.custody import Custody
from services.client.custody.operator import read_account
from services.client.ondemand import job
from services.client.ondemand.folder import PREFIX, PROGRESS, Folder, folders, try_out
from services.client.policy import Policy
from services.client.site import Site
from tests.chaos import site as chaos
from tests.cluster.processes import ROLE, UNSCHEDULABLE
from tests.fakes import Clock
from tests.integration import tasked
from tests.integration.aggregator.conftest import open_aggregator
from tests.integration.federation import wait_for
from tests.integration.ondemand import QUICK, Agent, clustered
from tests.unit.client.sites import START, FakeLink, assigned, policy

MODEL = "1" * 64
E2E = pytest.mark.e2e  # the same edge again, another way, or what a resident site's tests show, too


@pytest.fixture
def cluster(tmp_path):
    with structlog.testing.capture_logs() as said, clustered(tmp_path) as found:
        found.said = said
        yield found


def mapped(rules: Policy) -> Policy:
    """The policy, and a base model in it."""
    return rules.model_copy(update={"models": {MODEL: "/models/base"}})


def asked(spec: RunSpec) -> RunSpec:
    """The run on that base model."""
    return spec.model_copy(update={"model": spec.model.model_copy(update={"digest": MODEL})})


def task(number=0, **changes):
    """A task as a link hands it out."""
    given = assigned(number, **changes)
    return replace(given, spec=asked(given.spec))


def agent(tmp_path, cluster, **how):
    rules = how.pop("rules", policy(population={"epsilon": 50.0}))
    return Agent(tmp_path, cluster, mapped(rules), **how)


def account(tmp_path):
    return read_account(tmp_path / "state" / "ledgers" / "p" / "ledger.jsonl")


def model(folder, spec, site):
    """What a run ends with whose one site is made by `site`, from a link."""
    aggregator = open_aggregator(folder, Clock())
    run = aggregator.runs.start(spec, "once")
    with site(LocalLink(aggregator, "north", run)) as working, suppress(RunEnded):
        while True:
            if not working.step():
                aggregator.coordinator.close_due()
    found = digest(assemble(aggregator.runs.get(run).model, aggregator.desk.published.get))
    assert aggregator.runs.get(run).state == "FINISHED"
    aggregator.desk.store.close()
    return found


def test_a_run_with_a_job_for_each_task_ends_as_that_of_a_site_that_holds_its_gpu(tmp_path, cluster):
    spec = asked(chaos.spec("north", rounds=1))
    rules = mapped(chaos.policy(spec))
    on_demand = agent(tmp_path, cluster, rules=rules)

    wanted = tasked.target("north", spec)

    @contextmanager
    def resident(link):
        with Custody("north", rules, tmp_path / "resident") as custody:
            made = chaos.Bench(wanted)
            yield Site(name="north", link=link, account=custody.account, build=lambda _: made, beats=False)

    held = model(tmp_path / "one", spec, resident)
    assert model(tmp_path / "other", spec, on_demand.site) == held
    assert len(cluster.made) == len(account(tmp_path).reservations) == len(account(tmp_path).commits) == 2
    assert (cluster.jobs, folders(on_demand.work)) == ({}, [])
    logged = cluster.log.read_text()
    assert '"round": 0, "phase": 1' in logged or "phase=1" in logged


@E2E
def test_models_are_scored_in_jobs_too(tmp_path, cluster):
    strategy = {"name": "evaluate", "candidate": MODEL}
    given = replace(task(strategy=strategy), task=Task(round=0, phase=0, factors="", epochs=0, start=START))
    link = FakeLink([given])
    with agent(tmp_path, cluster, rules=policy(metrics="dp", population={"validation": 0.1})).site(link) as site:
        site.serve()
    (update,) = link.sent
    assert (update.delta, update.metrics, link.declined) == ({}, {"accuracy": 0.75}, [])


@pytest.mark.parametrize("refusal", ["quota", pytest.param("role", marks=E2E)])
def test_a_job_that_the_cluster_refuses_is_a_phase_missed_and_nothing_charged(tmp_path, cluster, refusal):
    cluster.quota = 0 if refusal == "quota" else 100
    cluster.role = ROLE if refusal == "quota" else ROLE - {("jobs", "create")}
    link = FakeLink([task(), task(1)])
    with agent(tmp_path, cluster).site(link) as site:
        site.step()
        assert [reason for reason, _ in link.declined] == ["NO_MACHINE"]
        assert account(tmp_path).reservations == {}
        cluster.quota, cluster.role = 100, ROLE
        site.step()
    assert len(link.sent) == 1
    words = {"quota": "exceeded quota: gpu", "role": 'cannot create resource "jobs"'}[refusal]
    assert words in next(each["error"] for each in cluster.said if each["event"] == "declined")


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        ("node", f"Unschedulable, {UNSCHEDULABLE}"),
        ("image", "ImagePullBackOff, Back-off pulling image deerfield-client:test"),
        ("queue", "it is suspended, as by a queue"),
    ],
)
def test_a_job_that_does_not_start_in_time_is_a_phase_missed_and_deleted(tmp_path, cluster, lacks, words):
    cluster.lacks = lacks
    link = FakeLink([task()])
    with agent(tmp_path, cluster, patience=replace(QUICK, start_s=0.3)).site(link) as site:
        site.serve()
    assert [reason for reason, _ in link.declined] == ["NO_MACHINE"]
    assert (account(tmp_path).reservations, cluster.jobs) == ({}, {})
    said = next(each["error"] for each in cluster.said if each["event"] == "declined")
    assert f"has not started within 0.3 s: {words}; see `kubectl describe job" in said


def test_an_api_server_that_does_not_answer_says_nothing_about_a_job(tmp_path):
    with clustered(tmp_path) as gone:
        on_demand = agent(tmp_path, gone)
        jobs = on_demand.jobs()
    assert jobs.look("one").state == "unknown"
    jobs.delete("one")
    for call in (jobs.running, lambda: jobs.create("one", task().key, tmp_path, 60.0)):
        with pytest.raises(NoMachine, match="the Kubernetes API server does not answer"):
            call()


@pytest.mark.parametrize(
    ("reason", "words"), [("", "exit code 137"), pytest.param("Evicted", "Evicted, The node was low", marks=E2E)]
)
def test_a_job_that_dies_in_training_stays_spent_and_the_run_goes_on(tmp_path, cluster, reason, words):
    on_demand = agent(tmp_path, cluster, environment={"DOES": "release"})
    link = FakeLink([task(), task(1)])
    with on_demand.site(link) as site:
        worker = threading.Thread(target=site.step)
        worker.start()
        wait_for(lambda: any(folder.has(PROGRESS) for folder in folders(on_demand.work)))
        (name,) = cluster.running
        cluster.kill(name, reason)
        worker.join(20)
        assert [reason for reason, _ in link.declined] == ["NO_MACHINE"]
        assert len(account(tmp_path).reservations) == 1
        assert name in cluster.jobs  # for its log, until its time is over
    with agent(tmp_path, cluster).site(link) as site:
        site.serve()
    assert (len(link.sent), len(account(tmp_path).reservations), len(account(tmp_path).commits)) == (1, 2, 1)
    said = next(each["error"] for each in cluster.said if each["event"] == "declined")
    assert (name in said, words in said) == (True, True), said


@pytest.mark.parametrize(
    ("where", "fault", "expected"),
    [
        pytest.param("check", "EngineFault", ("ENGINE_FAULT", 0), marks=E2E),
        pytest.param("check", "NotMapped", ("NOT_MAPPED", 0), marks=E2E),
        pytest.param("release", "BudgetExhausted", ("BUDGET_EXHAUSTED", 1), marks=E2E),
        ("release", "MemoryError", ("ENGINE_FAULT", 1)),
    ],
)
def test_what_fails_in_a_job_is_declined_as_in_the_sites_own_process(tmp_path, cluster, where, fault, expected):
    link = FakeLink([task()])
    with agent(tmp_path, cluster, environment={"DOES": where, "FAULT": fault}).site(link) as site:
        site.serve()
    ((reason, detail),) = link.declined
    assert (reason, len(account(tmp_path).reservations)) == expected
    assert "patient 17" not in detail
    said = next(each["error"] for each in cluster.said if each["event"] == "declined")
    assert ("patient 17" in said) == (fault != "MemoryError")  # of what has no name, no more than its kind


@E2E
def test_data_that_a_job_cannot_read_stop_the_agent_as_they_stop_a_site(tmp_path, cluster):
    link = FakeLink([task()])
    on_demand = agent(tmp_path, cluster, environment={"DOES": "release", "FAULT": "InvalidInput"})
    with on_demand.site(link) as site, pytest.raises(InvalidInput, match="no column 'label'"):
        site.serve()
    assert [reason for reason, _ in link.declined] == ["NOT_MAPPED"]


def test_a_phase_that_closes_ends_its_job(tmp_path, cluster):
    on_demand = agent(tmp_path, cluster, environment={"DOES": "release"})
    link = FakeLink([task()], beats=[True, True, False])
    with on_demand.site(link, beat_s=0.5) as site:
        site.beats = True
        site.serve()
    assert (link.declined, link.sent, cluster.jobs, cluster.running) == ([], [], {}, [])
    assert folders(on_demand.work) == []


@E2E
def test_a_job_whose_agent_has_taken_the_task_back_stops_by_itself(tmp_path, cluster):
    on_demand = agent(tmp_path, cluster, environment={"DOES": "check"})
    cluster.role = ROLE - {("jobs", "delete")}
    link = FakeLink([task()], beats=[True, True, True, False])
    with on_demand.site(link, beat_s=0.5) as site:
        site.beats = True
        site.serve()
    wait_for(lambda: not cluster.running)
    ((_, job),) = cluster.jobs.items()
    assert job.process.wait(10) == 0


class Gone(Exception):
    """The agent's process ends here."""


@pytest.mark.parametrize("left", ["complete", "damaged", "made under another policy"])
def test_an_agent_that_starts_again_commits_a_release_that_is_complete_once(tmp_path, cluster, left):
    on_demand, given = agent(tmp_path, cluster), task()
    delta = released(on_demand, given)
    if left == "damaged":
        next(on_demand.work.glob("*/release.safetensors")).write_bytes(b"")
    if left == "made under another policy":
        on_demand.rules = on_demand.rules.model_copy(update={"threads": 2})
    link = FakeLink([given, given])
    with on_demand.site(link) as site:
        assert folders(on_demand.work) == []
        if left != "complete":
            on_demand.cluster.quota = 0
        site.serve()
    assert len(account(tmp_path).reservations) == 1
    assert [digest(update.delta) for update in link.sent] == ([digest(delta)] * 2 if left == "complete" else [])


def released(on_demand, given):
    """A release on the volume, whose agent died before it read it."""
    folder = Folder(on_demand.work / f"{PREFIX}one")
    with Custody("north", on_demand.rules, on_demand.folder / "state") as custody:
        folder.begin("north", on_demand.rules, custody.split_key, given)
        folder.reserve(custody.account("r", 0, given.spec).reserve(given))
    job.work(folder.path, tasked.build)
    return folder.released()[0]


def test_an_agent_that_starts_again_gives_up_what_is_under_way_and_its_charge(tmp_path, cluster):
    on_demand, given = agent(tmp_path, cluster, environment={"DOES": "release"}), task()

    def die(_done, _steps):
        if folders(on_demand.work)[0].has(PROGRESS):
            raise Gone

    with Custody("north", on_demand.rules, tmp_path / "state") as custody:
        made = on_demand.workbench(custody)
        made.check(given, print)
        with pytest.raises(Gone):
            made.release(given, custody.account("r", 0, given.spec).reserve(given), die)
    (lost,) = cluster.running
    on_demand.environment = {}
    link = FakeLink([given])
    with on_demand.site(link) as site:
        assert (folders(on_demand.work), cluster.running) == ([], [])
        site.serve()
    assert lost not in cluster.jobs
    assert [reason for reason, _ in link.declined] == ["ALREADY_SEALED"]
    assert len(account(tmp_path).reservations) == 1


def test_what_else_is_on_the_volume_is_left_alone_and_one_that_cannot_be_written_is_told_at_once(tmp_path):
    for name in ("lost+found", "deerfield-north-r-r0-p0-1"):
        (tmp_path / name).mkdir()
    try_out(tmp_path)
    assert [folder.path.name for folder in folders(tmp_path)] == ["deerfield-north-r-r0-p0-1"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written \\(Not a directory\\); mount a volume there"):
        try_out(tmp_path / "file" / "tasks")


def test_nothing_of_the_raw_update_is_ever_on_the_shared_volume(tmp_path):
    """The Job's side in this process: what it holds is compared with every byte that it has written."""
    raw, given, folder = {}, task(), Folder(tmp_path / "tasks" / "one")

    class Noising(chaos.Bench):
        def release(self, assignment, reservation, on_step):
            raw.update(super().release(assignment, reservation, on_step))
            return {name: (value + np.float32(1)).astype(np.float32) for name, value in raw.items()}

    folder.begin("north", mapped(policy()), bytes(32), given)
    with Custody("north", mapped(policy()), tmp_path / "state") as custody:
        folder.reserve(custody.account("r", 0, given.spec).reserve(given))
    job.work(folder.path, lambda request: Noising(tasked.target("north", request.spec)))
    written = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    assert set(written) == {
        "request.json", "start.safetensors", "started", "checked", "progress.json", "reservation.json",
        "release.safetensors", "released.json",
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.path.iterdir())
    assert folder.path.stat().st_mode & 0o777 == 0o700
    released, _ = folder.released()
    for name, value in raw.items():
        assert all(value.tobytes() not in data for data in written.values())
        assert released[name].tobytes() in written["release.safetensors"]
