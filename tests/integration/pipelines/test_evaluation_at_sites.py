"""The evaluation step and `deerfield runs evaluate` over real sites, of models that these have trained."""

import json
from contextlib import ExitStack
from functools import partial

import pytest
import structlog
import torch
import yaml

from deerfield.errors import InvalidInput, RunEnded
from deerfield.runfile import load_spec
from deerfield.wire.client import RunsClient
from pipelines.evaluation import at_sites
from pipelines.gate.reading import read_evaluation
from pipelines.registry.reader import open_registry
from pipelines.report_page.documents import Evaluation
from pipelines.report_page.found import Found
from pipelines.report_page.spread import AT_SITES, spread
from pipelines.steps.at_sites import report
from pipelines.steps.evaluate import evaluate
from services.client import workbench
from services.client.site import Site
from tests import command, mlflow_server
from tests.evaluating import SITES, Hospitals, notes
from tests.fakes import Clock
from tests.integration.aggregator.conftest import open_aggregator, served

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
EPSILON = 1.5
PRIVACY = {"unit": "patient", "epsilon": 3.0, "sample_rate": 0.5}


class Trained(Hospitals):
    """Two runs have finished, and are versions 1, the champion, and 2; west lets nothing out."""

    def prepare(self):
        spec = self.changed(privacy=PRIVACY, training={"lr_adapter": 0.5, "lr_head": 0.5})
        self.policies = {site: self.policy(site, metrics="none" if site == "west" else "dp") for site in SITES}
        self.runs = [self.run(spec, self.policies, name) for name in ("first", "second")]
        self.uri = mlflow_server.database(self.folder)
        for run in self.runs:
            mlflow_server.add(self.uri, self.aggregator.runs.get(run).spec, self.model(run), run)
        mlflow_server.client(self.uri).set_registered_model_alias("tiny", "champion", "1")

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

    def evaluation(self, name):
        """Runs the step on version 2."""
        out, test_set = self.folder / name, f"{{path: {notes(self.folder, 'north')}, patient: patient}}"
        evaluate("tiny", "2", self.uri, str(self.base), test_set, out, aggregator=self.address, at_sites=EPSILON)
        return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    found = Trained(folder, open_aggregator(folder / "aggregator", Clock()))
    with structlog.testing.capture_logs():
        found.prepare()
        with served(found.aggregator) as server:
            found.address = server.ports.listening
            champion, candidate = found.runs
            asked = at_sites.Request(candidate=candidate, champion=champion, epsilon=EPSILON)
            found.asked = at_sites.asked(server.runs, asked)
            found.evaluating = server.runs.start(found.asked, f"evaluation {found.asked.sha256}")
            found.serve(server, found.evaluating)
            found.path = found.evaluation("evaluation.json")
            yield found
    found.aggregator.desk.store.close()


@pytest.fixture(scope="module")
def evaluated(trained):
    return json.loads(trained.path.read_text())


def test_each_model_stands_with_what_the_sites_that_allow_it_report(trained, evaluated):
    assert trained.aggregator.runs.get(trained.evaluating).state == "FINISHED"
    reported = {name: model["reported"] for name, model in evaluated["models"].items()}
    assert sorted(reported) == ["base", "candidate", "champion"]
    for told in reported.values():
        assert sorted(told) == ["east", "north"]
        assert all(set(row) == {"accuracy", "macro_f1"} for row in told.values())
        assert all(0 <= value <= 1 for row in told.values() for value in row.values())
    assert evaluated["reported"] == reported["candidate"]
    assert evaluated["notes"][-1].endswith(f"is of run {trained.evaluating}")


def test_what_was_scored_is_what_is_registered(trained, evaluated):
    strategy = trained.asked.strategy
    for name in ("candidate", "champion"):
        assert strategy[name] == evaluated["models"][name]["digest"]


def test_the_step_again_is_the_same_run_and_costs_nothing_more(trained, evaluated):
    before = [view.run for view in trained.aggregator.runs.list()]
    again = json.loads(trained.evaluation("again.json").read_text())
    assert again["models"] == evaluated["models"]
    assert [view.run for view in trained.aggregator.runs.list()] == before


def test_the_gate_can_hold_the_worst_sites_of_candidate_and_champion_together(trained, evaluated):
    read = read_evaluation(trained.path)
    assert read.candidate.sites == evaluated["models"]["candidate"]["reported"]
    assert read.champion.sites == evaluated["models"]["champion"]["reported"]


def test_the_page_shows_every_model_at_every_site(evaluated):
    page = spread(Found(evaluation=Evaluation.model_validate(evaluated)))
    assert AT_SITES in page
    assert all(each in page for each in ("east", "north", "candidate", "champion", "base", "noise of each site"))


def test_the_command_shows_the_same_and_writes_a_run_file_that_can_be_planned(trained, evaluated, tmp_path):
    champion, candidate = trained.runs
    asked = ("runs", "evaluate", candidate, "--champion", champion, "--epsilon", EPSILON)
    where = {"DEERFIELD_AGGREGATOR": trained.address}
    code, said = command.deerfield(*asked, "--json", **where)
    assert code == 0
    found = json.loads(said[said.index("{") :])
    assert found["run"] == trained.evaluating
    assert found["models"] == {name: model["reported"] for name, model in evaluated["models"].items()}
    code, said = command.deerfield(*asked, **where)
    assert code == 0
    assert all(each in said for each in ("east", "champion", "macro_f1"))

    path = tmp_path / "evaluation.yaml"
    code, said = command.deerfield(*asked, "--out", path, **where)
    assert code == 0, said
    assert load_spec(path) == trained.asked
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(trained.policies["east"].model_dump(mode="json")))
    code, said = command.deerfield(
        "plan", path, "--policy", tmp_path / "policy.yaml", "--state", trained.folder / "east"
    )
    assert code == 0, said
    assert "nothing is trained: 3 models are scored" in said


def test_what_cannot_be_scored_is_said_in_one_sentence(trained):
    candidate = trained.runs[1]
    where = {"DEERFIELD_AGGREGATOR": trained.address}
    for options, words in {
        (candidate,): "epsilon is missing: run",
        (candidate, "--epsilon", "5000"): "less than or equal to 1000",
        (candidate, "--epsilon", "1", "--champion", trained.evaluating): "has no model to score: it only scored others",
        ("nothing", "--epsilon", "1"): "no run is called 'nothing'",
    }.items():
        code, said = command.deerfield("runs", "evaluate", *options, **where)
        assert (code != 0, words in said) == (True, True), said


def test_where_no_site_reports_the_evaluation_stands_and_says_so(trained, evaluated):
    judged = json.loads(json.dumps(evaluated))
    with RunsClient.connect(trained.address) as runs:
        request = at_sites.Request(candidate=trained.runs[1], champion=trained.runs[0], epsilon=0.4)
        spec = at_sites.asked(runs, request)
        run = runs.start(spec, f"evaluation {spec.sha256}")
        runs.abort(run, "nobody is there")
    registry = open_registry(trained.uri)
    report(judged, registry.version("tiny", "2"), registry.champion("tiny"), trained.address, 0.4)
    assert judged["notes"][-1] == f"no site has scored the models: run {run} aborted: nobody is there"
    assert judged["reported"] == evaluated["reported"]
    with pytest.raises(InvalidInput, match="evaluate_at_sites is -1"):
        report(judged, registry.version("tiny", "2"), None, trained.address, -1.0)
