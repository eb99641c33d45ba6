"""Models of finished runs, scored at the sites under each site's own policy, and paid for before data are read."""

import json

import numpy as np
import pytest

from deerfield import partition
from deerfield.errors import InvalidInput
from deerfield.mirror import encode
from deerfield.privacy import epsilon
from deerfield.proof import prove
from deerfield.runfile import Source
from deerfield.types import Spend
from services.aggregator.ledger_mirror import phase_mirror
from services.client.custody.ledger_file import NAME
from services.client.evaluation.scoring import Scorer
from services.client.sources import data
from services.client.training.device import Device
from tests.evaluating import SITES, Hospitals, notes, prepared

PRIVACY = {"unit": "patient", "epsilon": 2.0, "delta": 1e-7}


class Evaluated(Hospitals):
    """Two runs have finished, and three sites were asked to score their models and the base; west lets nothing out."""

    def prepare(self):
        self.seeds = {"candidate": 1, "champion": 2}
        self.models = {name: self.view(self.trained(seed)).model.digest for name, seed in self.seeds.items()}
        self.spec_asked = self.changed(strategy={"name": "evaluate", **self.models}, privacy=PRIVACY)
        self.policies = {site: self.policy(site, metrics="none" if site == "west" else "dp") for site in SITES}
        self.planned = {site: self.plan(site, self.spec_asked, rules) for site, rules in self.policies.items()}
        self.name = self.run(self.spec_asked, self.policies)
        self.phases = [event.detail for event in self.events(self.name, "phase_published")]

    def view(self, run):
        """The run as an operator sees it."""
        return self.aggregator.runs.get(run)

    def entries(self, site):
        """What the site's ledger holds."""
        return [json.loads(line) for line in (self.folder / site / "ledgers/p" / NAME).read_text().splitlines()]


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    with prepared(Evaluated, tmp_path_factory.mktemp("hospitals")) as found:
        yield found


def test_each_model_is_scored_at_the_sites_that_allow_it(hospitals):
    assert hospitals.view(hospitals.name).state == "FINISHED"
    assert [sorted(phase["metrics"]) for phase in hospitals.phases] == [["east", "north"]] * 3
    assert all(set(told) == {"accuracy", "f1"} for phase in hospitals.phases for told in phase["metrics"].values())


@pytest.mark.parametrize("site", ["east", "north"])
def test_what_the_plan_said_is_what_the_ledger_was_charged_and_what_was_attested(hospitals, site):
    # one Gaussian release of each model, under the policy's noise, and nothing else
    cost = epsilon([Spend(unit="patient", noise_multiplier=10.0, sample_rate=1.0, steps=3, clip=1.0)], 1e-7)
    planned, entries = hospitals.planned[site], hospitals.entries(site)
    assert [each["kind"] for each in entries] == ["open", "run", *["task", "commit"] * 3]
    charged = entries[1]["detail"]
    assert planned["fits"]
    assert planned["epsilon"] == charged["epsilon"] == pytest.approx(cost)
    assert planned["epsilon_after"] == charged["epsilon_after"]
    assert (planned["steps"], planned["bytes_up"], charged["steps"]) == (0, 0, 0)
    assert [phase["epsilon"][site] for phase in hospitals.phases] == pytest.approx([cost] * 3)
    assert {phase["epsilon_total"][site] for phase in hospitals.phases} == {charged["epsilon_after"]}


def test_who_lets_nothing_out_declines_and_is_charged_nothing(hospitals):
    planned = hospitals.planned["west"]
    assert (planned["fits"], "needs `metrics: dp`" in planned["refusal"]) == (False, True)
    declined = [event.detail for event in hospitals.events(hospitals.name, "declined")]
    assert [(each["site"], each["reason"]) for each in declined] == [("west", "POLICY_REFUSED")] * 3
    assert not (hospitals.folder / "west" / "ledgers").exists()


def test_an_evaluation_is_proved_as_any_run_is(hospitals):
    with hospitals.aggregator.desk.store.edge() as edge:
        row = edge.run(hospitals.name)
    mirrors = [json.loads(encode(phase_mirror(hospitals.aggregator.desk, row, (n, 0)))) for n in range(3)]
    proof = prove(mirrors, row.spec)
    assert (proof.verified, proof.findings) == (True, ())
    assert proof.epsilon["east"] == pytest.approx(proof.total["east"])
    assert proof.epsilon["west"] == 0


def test_nothing_is_uploaded_and_what_is_asked_again_is_the_same_run(hospitals):
    assert {event.detail["bytes"] for event in hospitals.events(hospitals.name, "update_sealed")} == {0}
    assert all((phase["bytes_up"], phase["deviation"]) == (0, None) for phase in hospitals.phases)
    assert hospitals.run(hospitals.spec_asked, {}) == hospitals.name


def test_what_no_run_has_ended_with_is_not_scored(hospitals):
    for digest, words in {
        "f" * 64: f"champion: no run that finished here has a model with digest {'f' * 64}",
        hospitals.view(hospitals.name).model.digest: "another base model, adapter",
    }.items():
        spec = hospitals.changed(strategy={"name": "evaluate", "champion": digest})
        with pytest.raises(InvalidInput, match=words):
            hospitals.aggregator.runs.start(spec, digest)


def test_the_scores_are_those_of_each_model_on_the_patients_that_were_kept_out(hospitals):
    """Where a hospital lets exact scores out, of data that nothing protects any more."""
    strategy = {"name": "evaluate", **hospitals.models, "base": False}
    spec = hospitals.changed(strategy=strategy, federation={"sites": ["south"], "quorum": 1})
    rules = hospitals.policy("south", metrics="clear", population={"unprotected": True})
    run = hospitals.run(spec, {"south": rules}, "in the clear")
    told = [event.detail["metrics"]["south"] for event in hospitals.events(run, "phase_published")]

    table = data.read(Source(path=str(notes(hospitals.folder, "south")), patient="patient"), spec.labels, "text")
    key = (hospitals.folder / "south" / "split.key").read_bytes()
    held = table.examples.take(np.flatnonzero(partition.held_out(table.examples.units, 0.5, key=key)))
    scorer = Scorer(Device(), held)
    for seed, found in zip(hospitals.seeds.values(), told, strict=True):
        model = hospitals.model(hospitals.trained(seed))
        right = scorer.score(hospitals.spec, str(hospitals.base), model).argmax(axis=1) == held.labels
        assert found["accuracy"] == pytest.approx(right.mean())
    assert hospitals.entries("south")[1]["kind"] == "infinite"
