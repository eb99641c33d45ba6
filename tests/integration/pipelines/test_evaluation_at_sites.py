"""Scores from real sites, of a model that they have trained: for the evaluation step, and `deerfield runs evaluate`."""

import json
from contextlib import ExitStack
from functools import partial
from math import inf, nan

import pytest

from deerfield.errors import InvalidInput, RunEnded
from deerfield.gate.evaluated import read_evaluation
from deerfield.runfile import load_spec
from deerfield.wire.client import RunsClient
from pipelines.embedded import running
from pipelines.evaluation import at_sites
from pipelines.registry.reader import Version
from pipelines.steps.at_sites import report
from pipelines.steps.evaluate import evaluate
from services.client import workbench
from services.client.site import Site
from tests import command, mlflow_server
from tests.evaluating import SITES, Hospitals, notes, prepared
from tests.integration.aggregator.conftest import served

EPSILON = 1.5
PRIVACY = {"unit": "patient", "epsilon": 3.0, "sample_rate": 0.5}


class Trained(Hospitals):
    """The sites have trained the candidate, and others the champion; west lets nothing out."""

    def prepare(self):
        spec = self.changed(privacy=PRIVACY, training={"lr_adapter": 0.5, "lr_head": 0.5})
        self.policies = {site: self.policy(site, metrics="none" if site == "west" else "dp") for site in SITES}
        self.champion, self.candidate = self.trained(1), self.run(spec, self.policies, "candidate")

    def serve(self, server, run):
        """The sites answer the run over gRPC, one after another."""
        with ExitStack() as stack:
            sites = []
            for name, rules in self.policies.items():
                custody = stack.enter_context(self.custody(name, rules))
                build, link = partial(workbench.build, name, rules, custody.split_key), server.site(name, run)
                sites.append(Site(name=name, link=link, account=custody.account, build=build, beats=False))
            while sites:
                try:
                    sites[0].step()
                    sites.append(sites.pop(0))
                except RunEnded:
                    sites.pop(0)

    def version(self, number, run):
        """What the registry would say of a run's model."""
        digest = self.aggregator.runs.get(run).model.digest
        tags = {"deerfield.run": run, "deerfield.digest": digest}
        return Version(model="tiny", version=number, mlflow_run="", created_s=0.0, aliases=(), tags=tags)

    def reported(self, epsilon=EPSILON, **champion):
        """What the step adds to an evaluation on the hub's test set."""
        judged = {"models": {name: {} for name in ("candidate", "champion", "base")}, "notes": [], "reported": {}}
        champions = champion.get("champion", self.version("1", self.champion))
        report(judged, self.version("2", self.candidate), champions, self.address, epsilon)
        return judged


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with prepared(Trained, tmp_path_factory.mktemp("trained")) as found, served(found.aggregator) as server:
        found.address = server.ports.listening
        request = at_sites.Request(candidate=found.candidate, champion=found.champion, epsilon=EPSILON)
        found.asked = at_sites.asked(server.runs, request)
        found.evaluating = server.runs.start(found.asked, f"evaluation {found.asked.sha256}")
        found.serve(server, found.evaluating)
        yield found


@pytest.fixture(scope="module")
def judged(trained):
    return trained.reported()


def test_each_model_stands_with_what_the_sites_that_allow_it_report(trained, judged):
    reported = {name: model["reported"] for name, model in judged["models"].items()}
    for told in reported.values():
        assert sorted(told) == ["east", "north"]
        assert all(set(row) == {"accuracy", "macro_f1"} for row in told.values())
        assert all(0 <= value <= 1 for row in told.values() for value in row.values())
    assert judged["reported"] == reported["candidate"]
    assert judged["notes"] == [f"what sites report, under the noise of their policies, is of run {trained.evaluating}"]


def test_the_run_is_of_the_registered_models_for_a_tenth_of_the_delta(trained):
    spec, runs = trained.asked, trained.aggregator.runs
    for name in ("candidate", "champion"):
        assert spec.strategy[name] == runs.get(getattr(trained, name)).model.digest
    assert (spec.privacy.unit, spec.privacy.epsilon, spec.privacy.delta) == ("patient", EPSILON, 1e-7)
    assert (spec.federation.sites, spec.federation.quorum, spec.population) == (SITES, 1, "p")


def test_asked_again_it_is_the_same_run_and_costs_nothing_more(trained, judged):
    before = [view.run for view in trained.aggregator.runs.list()]
    assert trained.reported() == judged
    assert [view.run for view in trained.aggregator.runs.list()] == before


def test_the_command_shows_the_same_and_writes_a_run_file_that_can_be_planned(trained, judged, tmp_path):
    asked = ("runs", "evaluate", trained.candidate, "--champion", trained.champion, "--epsilon", EPSILON)
    where = {"DEERFIELD_AGGREGATOR": trained.address}
    code, said = command.deerfield(*asked, "--json", **where)
    assert code == 0
    found = json.loads(said[said.index("{") :])
    assert found["run"] == trained.evaluating
    assert found["models"] == {name: model["reported"] for name, model in judged["models"].items()}
    code, said = command.deerfield(*asked, **where)
    assert code == 0
    words = ("round 2 phase 0: no tensor from east, north", "champion", "macro_f1", "under the noise of each site")
    assert all(each in said for each in words)
    path = tmp_path / "evaluation.yaml"
    code, said = command.deerfield(*asked, "--out", path, **where)
    assert code == 0, said
    assert load_spec(path) == trained.asked
    assert trained.plan("east", load_spec(path), trained.policies["east"])["fits"]


def test_what_cannot_be_scored_is_said_in_one_sentence(trained):
    where = {"DEERFIELD_AGGREGATOR": trained.address}
    for options, words in {
        (trained.candidate,): "epsilon is missing: run",
        (trained.candidate, "--epsilon", "5000"): "less than or equal to 1000",
        (trained.candidate, "--epsilon", "1", "--champion", trained.evaluating): "to score: it only scored others",
        ("nothing", "--epsilon", "1"): "no run is called 'nothing'",
    }.items():
        code, said = command.deerfield("runs", "evaluate", *options, **where)
        assert (code != 0, words in said) == (True, True), said


def test_an_aggregator_that_is_started_for_one_run_has_no_models_to_score(trained):
    with pytest.raises(InvalidInput, match="scores models of finished runs"):
        running.training(trained.asked)
    assert running.training(trained.spec).declares.rounds == 1


def test_where_no_site_reports_the_evaluation_stands_and_says_so(trained):
    with RunsClient.connect(trained.address) as runs:
        request = at_sites.Request(candidate=trained.candidate, champion=trained.champion, epsilon=0.4)
        spec = at_sites.asked(runs, request)
        run = runs.start(spec, f"evaluation {spec.sha256}")
        runs.abort(run, "nobody is there")
    found = trained.reported(0.4)
    (note,) = found["notes"]
    assert note.startswith(f"no site has scored the models: run {run} aborted: nobody is there; ")
    assert note.endswith("ask at another epsilon")
    assert (found["reported"], found["models"]["candidate"]) == ({}, {})
    for wrong in (-1.0, inf, nan):
        with pytest.raises(InvalidInput, match=f"evaluate_at_sites is {wrong:g}: it is the epsilon"):
            trained.reported(wrong)


def test_a_champion_of_another_aggregator_is_left_out_and_it_is_said(trained):
    with RunsClient.connect(trained.address) as runs:
        spec = at_sites.asked(runs, at_sites.Request(candidate=trained.candidate, epsilon=0.5))
        runs.abort(runs.start(spec, f"evaluation {spec.sha256}"), "nobody is there")
    assert list(spec.strategy) == ["name", "candidate", "base"]
    away = Version(model="tiny", version="1", mlflow_run="", created_s=0, aliases=(), tags={"deerfield.run": "gone"})
    first, second = trained.reported(0.5, champion=away)["notes"]
    assert first == "the champion was not scored at the sites: no run is called 'gone'"
    assert second.startswith("no site has scored the models")


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
def test_the_whole_step_joins_the_hubs_scores_and_the_sites(trained, judged, tmp_path):
    uri = mlflow_server.database(tmp_path)
    for run in (trained.champion, trained.candidate):
        mlflow_server.add(uri, trained.aggregator.runs.get(run).spec, trained.model(run), run)
    mlflow_server.client(uri).set_registered_model_alias("tiny", "champion", "1")
    out, test_set = tmp_path / "evaluation.json", f"{{path: {notes(trained.folder, 'north')}, patient: patient}}"
    reach = {"aggregator": trained.address, "at_sites": EPSILON}
    evaluate("tiny", "2", uri, str(trained.base), test_set, out, **reach)
    found = json.loads(out.read_text())
    assert {name: model["reported"] for name, model in found["models"].items()} == {
        name: model["reported"] for name, model in judged["models"].items()
    }
    assert {found["models"][name]["digest"] for name in ("candidate", "champion")} < {*trained.asked.strategy.values()}
    read = read_evaluation(out)
    assert (read.candidate.sites, read.champion.sites) == (
        found["models"]["candidate"]["reported"],
        found["models"]["champion"]["reported"],
    )
