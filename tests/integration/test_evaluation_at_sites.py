"""Models of finished runs, scored at the sites under each site's own policy, and paid for before data are read."""

import json

import numpy as np
import pytest
import structlog
import torch

from deerfield import partition
from deerfield.errors import InvalidInput
from deerfield.mirror import encode
from deerfield.privacy import epsilon
from deerfield.proof import prove
from deerfield.runfile import Source
from deerfield.tensors import digest
from deerfield.types import Spend
from services.aggregator.ledger_mirror import phase_mirror
from services.client import data
from services.client.device import Device
from services.client.ledger_file import NAME
from services.client.scoring import Scorer
from tests.evaluating import SITES, Hospitals, notes
from tests.fakes import Clock
from tests.integration.aggregator.conftest import open_aggregator

PRIVACY = {"unit": "patient", "epsilon": 2.0, "delta": 1e-7}


@pytest.fixture(autouse=True)
def _quiet():
    torch.set_num_threads(1)
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def hospitals(tmp_path):
    aggregator = open_aggregator(tmp_path / "aggregator", Clock())
    yield Hospitals(tmp_path, aggregator)
    aggregator.desk.store.close()


@pytest.fixture
def models(hospitals):
    """By name, the digests of two models of finished runs."""
    runs = hospitals.aggregator.runs
    names = {"candidate": hospitals.trained(1), "champion": hospitals.trained(2)}
    return {name: runs.get(run).model.digest for name, run in names.items()}


def entries(hospitals, site):
    """What the site's ledger holds."""
    text = (hospitals.folder / site / "ledgers" / "p" / NAME).read_text()
    return [json.loads(each) for each in text.splitlines()]


def test_each_model_is_scored_at_the_sites_that_allow_it_and_costs_what_the_plan_said(hospitals, models):
    spec = hospitals.changed(strategy={"name": "evaluate", **models}, privacy=PRIVACY)
    policies = {site: hospitals.policy(site) for site in SITES}
    policies["west"] = hospitals.policy("west", metrics="none")
    planned = {site: hospitals.plan(site, spec, policies[site]) for site in SITES}
    run = hospitals.run(spec, policies)

    assert hospitals.aggregator.runs.get(run).state == "FINISHED", hospitals.events(run, "run_failed")
    phases = [event.detail for event in hospitals.events(run, "phase_published")]
    assert [sorted(phase["metrics"]) for phase in phases] == [["east", "north"]] * 3
    assert all(set(told) == {"accuracy", "f1"} for phase in phases for told in phase["metrics"].values())
    assert all((phase["bytes_up"], phase["deviation"]) == (0, None) for phase in phases)

    # one Gaussian release of each model, under the policy's noise, and nothing else
    cost = epsilon([Spend(unit="patient", noise_multiplier=10.0, sample_rate=1.0, steps=3, clip=1.0)], 1e-7)
    for site in ("east", "north"):
        (charged,) = [each["detail"] for each in entries(hospitals, site) if each["kind"] == "run"]
        assert planned[site]["fits"]
        assert planned[site]["epsilon"] == charged["epsilon"] == pytest.approx(cost)
        assert planned[site]["epsilon_after"] == charged["epsilon_after"]
        assert (planned[site]["steps"], planned[site]["bytes_up"], charged["steps"]) == (0, 0, 0)
        assert [phase["epsilon"][site] for phase in phases] == pytest.approx([cost] * 3)
        assert {phase["epsilon_total"][site] for phase in phases} == {charged["epsilon_after"]}
        kinds = [each["kind"] for each in entries(hospitals, site)]
        assert kinds == ["open", "run", *["task", "commit"] * 3]

    assert not planned["west"]["fits"]
    assert "metrics: dp" in planned["west"]["refusal"]
    declined = [event.detail for event in hospitals.events(run, "declined")]
    assert [(each["site"], each["reason"]) for each in declined] == [("west", "POLICY_REFUSED")] * 3
    assert not (hospitals.folder / "west" / "ledgers").exists()  # nothing was charged, because nothing was begun


def test_an_evaluation_is_proved_as_any_run_is(hospitals, models):
    spec = hospitals.changed(
        strategy={"name": "evaluate", **models}, privacy=PRIVACY, federation={"sites": ["east"], "quorum": 1}
    )
    run = hospitals.run(spec, {"east": hospitals.policy("east")})
    with hospitals.aggregator.desk.store.edge() as edge:
        row = edge.run(run)
    mirrors = [json.loads(encode(phase_mirror(hospitals.aggregator.desk, row, (n, 0)))) for n in range(3)]
    proof = prove(mirrors, row.spec)
    assert (proof.verified, proof.findings) == (True, ())
    assert proof.epsilon["east"] == pytest.approx(proof.total["east"])


def test_the_scores_are_those_of_each_model_on_the_patients_that_were_kept_out(hospitals, models):
    """Where a hospital lets exact scores out, of data that nothing protects any more."""
    strategy = {"name": "evaluate", **models, "base": False}
    federation = {"sites": ["east"], "quorum": 1}
    spec = hospitals.changed(strategy=strategy, federation=federation)
    population = {"unprotected": True}
    run = hospitals.run(spec, {"east": hospitals.policy("east", metrics="clear", population=population)})
    told = [event.detail["metrics"]["east"] for event in hospitals.events(run, "phase_published")]

    table = data.read(Source(path=str(notes(hospitals.folder, "east")), patient="patient"), spec.labels, "text")
    key = (hospitals.folder / "east" / "split.key").read_bytes()
    held = table.examples.take(np.flatnonzero(partition.held_out(table.examples.units, 0.5, key=key)))
    for name, seed, found in zip(models, (1, 2), told, strict=True):
        model = hospitals.model(hospitals.trained(seed))
        assert digest(model) == models[name]
        probabilities = Scorer(Device(), held).score(hospitals.spec, str(hospitals.base), model)
        right = probabilities.argmax(axis=1) == held.labels
        assert found["accuracy"] == pytest.approx(right.mean())
    assert entries(hospitals, "east")[1]["kind"] == "infinite"


def test_nothing_is_registered_uploaded_or_trained(hospitals, models):
    spec = hospitals.changed(
        strategy={"name": "evaluate", **models}, privacy=PRIVACY, federation={"sites": ["east"], "quorum": 1}
    )
    run = hospitals.run(spec, {"east": hospitals.policy("east")})
    assert hospitals.events(run, "registered") == []
    assert {event.detail["bytes"] for event in hospitals.events(run, "update_sealed")} == {0}
    assert hospitals.run(spec, {}) == run  # asked again, it is the same run
    with pytest.raises(InvalidInput, match=f"champion: no run that finished here has a model with digest {'f' * 64}"):
        hospitals.aggregator.runs.start(
            hospitals.changed(strategy={"name": "evaluate", "champion": "f" * 64}), "of a model from elsewhere"
        )
    with pytest.raises(InvalidInput, match="another base model, adapter"):
        hospitals.aggregator.runs.start(
            hospitals.changed(
                strategy={"name": "evaluate", "candidate": hospitals.aggregator.runs.get(run).model.digest}
            ),
            "of no model",
        )
