"""What the steps that ask the aggregator answer, and how they fail."""

import json
import threading
from types import SimpleNamespace

import pytest
import yaml

from deerfield import __version__
from deerfield.errors import (
    InvalidInput,
    NotRegistered,
    RunAborted,
    RunFailed,
    TooFewSites,
    TooLarge,
    UnknownRun,
    Unreachable,
)
from deerfield.exchange import run_id
from deerfield.wire import limits
from deerfield.wire.backoff import Backoff
from pipelines.compiled import components
from pipelines.steps.keep import begin
from pipelines.steps.reach import runs_at, way
from pipelines.steps.register import register
from pipelines.steps.rounds import completed, rounds, start
from pipelines.steps.running import step
from pipelines.steps.sites import Cluster, check_gpus, members, pods
from services.aggregator.rounds.recorder import Registered
from services.client import policy
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.federation import wait_for
from tests.registry import Tracked

SITES = ("north", "south")


class Registry(Tracked):
    """Tracking that registers a run's model, or is away."""

    def __init__(self, trouble: str = "") -> None:
        super().__init__()
        self.trouble = trouble

    def record(self, event):
        if event.kind == "phase_published" and event.detail["last"]:
            if self.trouble:
                raise OSError(self.trouble)
            return Registered(name="lung notes", version="7")
        return None


@pytest.fixture
def address(server):
    return server.ports.listening


def text(*sites, digest="d" * 64, **changes):
    spec = run_spec(*sites, rounds=1, name="lung notes")
    document = spec.model_dump(mode="json")
    document["model"]["digest"] = digest
    return yaml.safe_dump(document | changes)


def work(server, run, *names):
    """Each site answers both phases of the run's one round."""
    sites = [TeachingSite(name, server.site(name, run), adapter(seed)) for seed, name in enumerate(names)]
    for _ in range(2):
        for site in sites:
            assert site.step()


def test_the_request_names_the_run_and_another_run_needs_another_request(server, address):
    begun = start(text(*SITES), "job-1", address)
    assert (begun.run, begun.sites) == (run_id("lung notes", "job-1"), SITES)
    assert begun.base_digest == "d" * 64
    assert start(text(*SITES), "job-1", address) == begun
    assert [view.run for view in server.runs.list()] == [begun.run]
    with pytest.raises(InvalidInput, match=f"this request_id started {begun.run}, which is another run"):
        start(text(*SITES, seed=5), "job-1", address)


def test_each_phase_is_one_line_and_steps_are_none(server, address):
    begun, lines = start(text(*SITES), "job-1", address), []
    work(server, begun.run, *SITES)
    outcome = rounds(text(*SITES), "job-1", address, lines.append)
    assert (outcome.run, outcome.state) == (begun.run, "FINISHED")
    assert outcome.digest == server.runs.get(begun.run).model.digest
    assert lines[0].startswith(f"run {begun.run}: ")
    kinds = [line[29:45].strip() for line in lines[1:]]
    assert kinds == ["run started", "phase published", "phase published", "run finished"]
    assert "round 0 phase 1: A from north, south" in lines[3]


def test_fewer_sites_than_the_quorum_end_the_run_and_every_try_says_so(server, address):
    begun = start(text(*SITES), "job-1", address)
    TeachingSite("north", server.site("north", begun.run), adapter(0)).step()
    for _ in range(2):
        with pytest.raises(TooFewSites, match=r"1 of 2 sites joined within 0.2 s \(north\), a phase needs 2"):
            rounds(text(*SITES), "job-1", address, lambda line: None, join_timeout_s=0.2)
    assert server.runs.get(begun.run).state == "ABORTED"


class Followed(threading.Thread):
    """The rounds step on a thread, which gives sites a tenth of a second."""

    def __init__(self, address):
        super().__init__()
        self.address, self.lines, self.error = address, [], None

    def run(self):
        try:
            rounds(text(*SITES), "job-1", self.address, self.lines.append, join_timeout_s=0.1)
        except RunFailed as error:
            self.error = error

    def over(self):
        self.join(20)
        assert not self.is_alive()
        return self.error


def test_a_paused_run_is_waited_for(server, address):
    begun = start(text(*SITES), "job-1", address)
    server.runs.pause(begun.run, "maintenance")
    step = Followed(address)
    step.start()
    wait_for(lambda: any("maintenance" in line for line in step.lines))
    step.join(0.5)  # five times what sites are given
    server.runs.abort(begun.run, "enough")
    assert type(step.over()) is RunAborted


def test_sites_that_have_joined_may_take_their_time(server, address):
    begun = start(text(*SITES), "job-1", address)
    sites = [TeachingSite(name, server.site(name, begun.run), adapter(0)) for name in SITES]
    tasks = [site.link.next_task() for site in sites]
    step = Followed(address)
    step.start()
    wait_for(lambda: step.lines)
    step.join(0.5)
    for site, task in zip(sites, tasks, strict=True):
        site.link.send(task, site.update(task))
    for site in sites:
        assert site.step()
    assert step.over() is None
    assert "run finished" in step.lines[-1]


def test_a_run_that_was_aborted_or_failed_says_why(server, address):
    server.runs.abort(start(text(*SITES), "job-1", address).run, "enough")
    with pytest.raises(RunAborted, match="was aborted: enough"):
        rounds(text(*SITES), "job-1", address, lambda line: None)
    begun, lines = start(text(*SITES), "job-2", address), []
    link = server.site("south", begun.run)
    link.decline(link.next_task(), "BUDGET_EXHAUSTED", "nothing is left")
    with pytest.raises(RunFailed, match=r"failed: .*nothing is left"):
        rounds(text(*SITES), "job-2", address, lines.append)
    assert any("declined" in line and "south: BUDGET_EXHAUSTED: nothing is left" in line for line in lines)


def test_an_aggregator_that_does_not_answer_is_named_with_how_long_it_was_asked():
    with (
        pytest.raises(Unreachable, match=r"127.0.0.1:9 cannot be reached .*; tried for 0.2 s"),
        runs_at("127.0.0.1:9", Backoff(first_s=0.1, patience_s=0.2)) as runs,
    ):
        runs.list()


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (text(), "federation: sites is empty"),
        (text(*SITES, digest=None), "does not describe its base model .* let deerfield runs describe write"),
        (text(*SITES, round=3), "run: unknown key 'round'; did you mean 'rounds'"),
        ("a: [", "run, line 1, column 5: not YAML"),
        ("runs/today.yaml", "run: a run file is a mapping of keys"),
    ],
)
def test_a_run_that_cannot_be_started_is_one_sentence(run, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        completed(run, ())


def test_a_run_file_that_names_no_sites_has_those_of_the_partition():
    assert completed(text(), ("a", "b")).federation.sites == ("a", "b")
    assert completed(text(*SITES), ("a", "b")).federation.sites == SITES


@pytest.mark.parametrize("tracking", [Registry()])
def test_the_version_is_the_one_that_the_aggregator_registered(server, address):
    begun, lines = start(text(*SITES), "job-1", address), []
    with pytest.raises(InvalidInput, match="is RUNNING: it is registered when it has finished"):
        register(begun.run, address)
    work(server, begun.run, *SITES)
    rounds(text(*SITES), "job-1", address, lines.append)
    found = register(begun.run, address)
    assert (found.model, found.version) == ("lung notes", "7")
    assert any("registered" in line and "lung notes version 7" in line for line in lines)
    with pytest.raises(UnknownRun):
        register("nobody", address)


def test_a_run_without_a_version_says_why(server, address):
    begun = start(text(*SITES), "job-1", address)
    work(server, begun.run, *SITES)
    rounds(text(*SITES), "job-1", address, lambda line: None)
    with pytest.raises(NotRegistered, match="its aggregator was started without --tracking"):
        register(begun.run, address)
    ended = start(text(*SITES), "job-2", address)
    server.runs.abort(ended.run, "enough")
    with pytest.raises(NotRegistered, match="it is ABORTED"):
        register(ended.run, address)


def given(path):
    """An artifact as KFP hands it over."""
    return SimpleNamespace(path=str(path))


@pytest.mark.parametrize("tracking", [Registry()])
def test_the_tasks_of_a_pipeline_keep_the_manifest_with_the_run_and_answer_for_those_behind(
    server, address, tracking, tmp_path
):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "kind": "consortium", "sites": {site: {} for site in SITES}}))
    where = {"compiled_by": __version__, "aggregator": address}
    run = start(text(*SITES), "job-1", address).run
    work(server, run, *SITES)
    asked = {"run": text(), "request_id": "job-1", "join_timeout_s": 60, "manifest": given(manifest)}
    assert components.rounds(**where, **asked) == run
    wait_for(lambda: tracking.files)
    (kept,) = tracking.files
    assert (kept.run, kept.name) == (run, "manifest.json")
    assert components.register(**where, run_id=run) == ("lung notes", "7")


def test_a_run_that_nobody_would_register_is_aborted_at_once(server, address, tmp_path, capsys):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "kind": "consortium", "sites": {}}))
    asked = {"run": text(*SITES), "request_id": "job-1", "join_timeout_s": 60, "manifest": given(manifest)}
    with pytest.raises(SystemExit, match="2"):
        components.rounds(compiled_by=__version__, aggregator=address, **asked)
    assert "--tracking" in capsys.readouterr().err
    (view,) = server.runs.list()
    assert view.state == "ABORTED"
    assert view.reason.startswith("its manifest could not be kept: ")


@pytest.mark.parametrize("tracking", [Tracked()])
def test_a_begun_run_keeps_its_manifest_once_and_one_that_cannot_be_kept_ends_it(server, address, tracking, tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "kind": "consortium", "sites": {site: {} for site in SITES}}))
    begun = begin(text(), "job-1", address, manifest)
    assert begun.sites == SITES
    assert begin(text(), "job-1", address, manifest) == begun  # KFP's retry
    told = [event.kind for event in server.runs.past(begun.run)]
    assert (told.count("run_started"), told.count("attached")) == (1, 1)
    wait_for(lambda: [file.run for file in tracking.files] == [begun.run])
    manifest.write_text(manifest.read_text() + " " * limits.ATTACHMENT_BYTES)
    with pytest.raises(TooLarge, match="bytes in a file"):
        begin(text(), "job-2", address, manifest)
    states = {view.run: view.state for view in server.runs.list()}
    assert states == {begun.run: "RUNNING", run_id("lung notes", "job-2"): "ABORTED"}


def test_gpus_that_the_pipeline_was_not_compiled_for_are_refused_before_the_run_starts(server, address, capsys):
    asked = {"names": "site-", "base": "/models/tiny", "manifest": given("manifest.json")}
    where = {"compiled_by": __version__, "aggregator": address, "run": text(*SITES), "request_id": "job-1"}
    for gpus, compiled, says in (
        (2, 0, "gpus is 2, and the pipeline was compiled with sites: gpu: count 0"),
        (-1, 1, "gpus is -1"),
    ):
        with pytest.raises(SystemExit, match="2"):
            components.start(gpus=gpus, gpus_compiled=compiled, **where, **asked)
        assert says in capsys.readouterr().err
    assert server.runs.list() == ()
    for gpus, compiled in ((0, 0), (0, 1), (8, 1)):
        check_gpus(gpus, compiled)


@pytest.mark.parametrize("tracking", [Registry("MLflow is away")])
def test_a_registry_that_could_not_be_told_is_a_failure(server, address):
    begun, lines = start(text(*SITES), "job-1", address), []
    work(server, begun.run, *SITES)
    rounds(text(*SITES), "job-1", address, lines.append)
    with pytest.raises(NotRegistered, match="MLflow could not be told of phase_published: OSError: MLflow is away"):
        register(begun.run, address)
    assert any("tracking failed" in line and "MLflow is away" in line for line in lines)


def test_a_task_is_reached_by_its_argument_or_its_environment_and_by_mounted_files(tmp_path):
    assert way("a:1", {}, tmp_path).address == "a:1"
    assert way("", {"DEERFIELD_AGGREGATOR": "b:2"}, tmp_path).address == "b:2"
    with pytest.raises(InvalidInput, match="aggregator is empty and DEERFIELD_AGGREGATOR is not set"):
        way("", {}, tmp_path)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).touch()
    with pytest.raises(InvalidInput, match="belong together"):
        way("a:1", {}, tmp_path)
    (tmp_path / "ca.crt").touch()
    assert way("a:1", {}, tmp_path).files.key == tmp_path / "tls.key"
    assert str(way("a:1", {"DEERFIELD_TLS_KEY": "/own.key"}, tmp_path).files.key) == "/own.key"


def test_an_image_of_another_version_refuses_in_one_sentence(capsys):
    with pytest.raises(SystemExit, match="2"), step("0.0.9"):
        raise AssertionError("it ran")
    said = capsys.readouterr().err
    assert said.startswith(f"error: the pipeline was compiled by deerfield 0.0.9, this image is {__version__}; compile")
    assert said.count("\n") == 1
    with step(__version__):
        pass
    with pytest.raises(SystemExit, match="1"), step(__version__):
        raise RunFailed("it ended")
    assert capsys.readouterr().err == "error: it ended\n"


def test_each_pod_is_given_its_own_secret_claim_and_a_policy_that_its_site_reads(tmp_path, server, address):
    parts = {
        site: {"units": units, "examples": units, "labels": {}, "sha256": "", "part": f"/data/parts/{site}.csv"}
        for site, units in (("North clinic", 120), ("south", 80))
    }
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "kind": "simulation", "sites": parts}))
    privacy = {"unit": "record", "epsilon": 2.0, "delta": 1e-6}
    run = text(privacy=privacy, embedded={"source": {"path": "notes.csv", "label": "diagnosis"}})
    begun = start(run, "job-1", address, members(manifest))
    cluster = Cluster(base="/models/tiny", names="site-", data=tmp_path)
    north, south = pods(begun, run, manifest, cluster)
    assert (north["site"], north["secret"], north["claim"]) == (
        "North clinic",
        "site-north-clinic",
        "site-north-clinic",
    )
    rules = policy.load(tmp_path / "policies" / begun.run / "south.yaml")
    assert south["policy"] == str(tmp_path / "policies" / begun.run / "south.yaml")
    population = rules.populations["patients"]
    assert (population.source.path, population.source.label) == ("/data/parts/south.csv", "diagnosis")
    assert (population.units_low, population.units_high, population.epsilon) == (80, 120, 2.0)
    assert rules.models == {"d" * 64: "/models/tiny"}
    assert pods(begun, run, manifest, cluster) == [north, south]
    manifest.write_text(json.dumps({"schema": 1, "kind": "consortium", "sites": parts}))
    with pytest.raises(InvalidInput, match="simulated-consortium starts sites over parts"):
        pods(begun, run, manifest, cluster)
