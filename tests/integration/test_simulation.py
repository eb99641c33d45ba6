"""Every strategy over the real coordinator, sites and torch trainer in one process."""

import pytest
import torch

from benchmarks.real_data import in_process
from deerfield.runfile import load
from deerfield.strategies import STRATEGIES
from tests.integration.federation import SITES, write


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def simulated(folder, strategy, **changes):
    file = load(write(folder, **{"strategy": strategy, "rounds": 2, **changes}))
    return in_process(file, folder / "prepared")


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_run_of_every_strategy_finishes_and_says_what_it_spent(tmp_path, strategy):
    found = simulated(tmp_path, strategy, privacy={"unit": "record", "epsilon": 3.0})
    assert found.state == "finished"
    assert set(found.sites) == ({"central"} if strategy == "central" else set(SITES))
    assert all(2.97 <= site["epsilon"] <= 3.0 for site in found.sites.values())
    assert all(site["epsilon_total"] > 0 for site in found.sites.values())
    assert all(set(phase["epsilon_total"]) == set(found.sites) for phase in found.phases)
    assert 0 <= found.final["accuracy"] <= 1
    steps = 8 * 2 * (2 if strategy == "deer" else 1)
    assert all(site["steps"] == steps for site in found.sites.values())


@pytest.mark.parametrize("strategy", ["deer", pytest.param("head", marks=pytest.mark.e2e)])
def test_under_unit_site_the_noise_is_the_aggregators_and_everybody_counts_the_same(tmp_path, strategy):
    privacy = {"unit": "site", "epsilon": 3.0, "clip": 0.5}
    found = simulated(tmp_path, strategy, privacy=privacy)
    phases = 2 * (2 if strategy == "deer" else 1)
    assert (found.state, len(found.phases), set(found.sites)) == ("finished", phases, set(SITES))
    for site in found.sites.values():
        assert (site["unit"], site["steps"], site["sample_rate"], site["clip"]) == ("site", phases, 1.0, 0.5)
        assert 2.97 <= site["epsilon"] <= 3.0
        assert site["epsilon_total"] == pytest.approx(site["epsilon"], rel=1e-9)
    assert all(phase["deviation"] is None for phase in found.phases)
    again = simulated(tmp_path / "again", strategy, privacy=privacy)
    assert again.digest != found.digest


@pytest.mark.parametrize(("strategy", "low", "high"), [("deer", 0, 1e-6), ("ffa", 0, 1e-6), ("fedavg", 1e-6, 1)])
def test_deviation_is_rounding_for_exact_methods_and_real_for_fedavg(tmp_path, strategy, low, high):
    found = simulated(tmp_path, strategy, training={"lr_adapter": 5.0})
    assert all(low <= phase["deviation"] < high for phase in found.phases)


def test_sites_that_may_say_so_report_their_loss(tmp_path):
    open_hearted = simulated(tmp_path, "deer", embedded={**EMBEDDED, "metrics": "clear"})
    assert all(phase["metrics"]["loss"] > 0 for phase in open_hearted.phases)
    assert open_hearted.phases[-1]["metrics"]["loss"] < open_hearted.phases[0]["metrics"]["loss"]


EMBEDDED = {
    "base": "model",
    "source": {"path": "notes.csv", "patient": "patient", "site": "hospital"},
    "partition": {"kind": "column"},
}


def test_training_learns_something(tmp_path):
    found = simulated(tmp_path, "deer", rounds=6)
    assert found.final["accuracy"] > 0.6  # three labels; the label is the first word of each note


def test_weights_move_the_mean(tmp_path):
    even = simulated(tmp_path, "ffa")
    weighted = simulated(tmp_path, "ffa", federation={"weights": {"north": 5.0}})
    assert even.digest != weighted.digest


@pytest.mark.e2e
def test_the_noise_is_what_epsilon_asks_for(tmp_path):
    tight = simulated(tmp_path, "ffa", privacy={"unit": "record", "epsilon": 0.5})
    loose = simulated(tmp_path, "ffa", privacy={"unit": "record", "epsilon": 8.0})
    tight_z, loose_z = ({site["noise_multiplier"] for site in run.sites.values()} for run in (tight, loose))
    assert len(tight_z) == len(loose_z) == 1
    assert min(tight_z) > 4 * max(loose_z)


def test_both_engines_give_the_same_model_without_noise(tmp_path):
    fused = simulated(tmp_path, "fedavg")
    opacus = simulated(tmp_path, "fedavg", training={"engine": "opacus"})
    assert opacus.final == pytest.approx(fused.final, abs=1e-3)


def test_a_site_fetches_only_what_it_does_not_have(tmp_path):
    head = simulated(tmp_path, "head", rounds=3)
    first, *later = [phase["bytes_down"] for phase in head.phases]
    assert first > 2 * later[0]  # the adapter, once
    assert later == [phase["bytes_up"] for phase in head.phases[1:]]  # then the head alone, as it goes up
