import pytest
from pydantic import ValidationError

from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import completed

RUN = {
    "name": "trial",
    "population": "notes",
    "labels": ["a", "b"],
    "model": {"base": "some/model", "input": "text"},
    "privacy": {"unit": "record", "epsilon": 3},
}


def spec(**changes):
    return RunSpec.model_validate(RUN | changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"privacy": {"epsilon": 0}},
        {"privacy": {"epsilon": -1}},
        {"privacy": {"epsilon": float("nan")}},
        {"privacy": {"epsilon": float("inf")}},
        {"privacy": {"unit": "record"}},
        {"privacy": {"unit": "none", "epsilon": 3}},
        {"privacy": {"unit": "family", "epsilon": 3}},
        {"privacy": {"unit": "patient"}},
        {"privacy": {"unit": "patient", "epsilon": 3, "clip": None}},
        {"privacy": {"unit": "patient", "epsilon": 3, "examples_per_unit": 0}},
        {"privacy": {"unit": "record", "epsilon": 3, "examples_per_unit": 4}},
        {"privacy": {"unit": "none", "examples_per_unit": 4}},
        {"privacy": {"epsilon": 3, "delta": 2e-5}},
        {"privacy": {"epsilon": 3, "delta": 0}},
        {"privacy": {"epsilon": 3, "clip": 0}},
        {"privacy": {"epsilon": 3, "clip": None}},
        {"privacy": {"epsilon": 3, "sample_rate": 0}},
        {"privacy": {"epsilon": 3, "sample_rate": 1.1}},
        {"privacy": {"epsilon": 3, "noise_multiplier": 1}},
        {"round": 3},
        {"rounds": 0},
        {"epochs": 0},
        {"seed": -1},
        {"name": "../trial"},
        {"labels": ["a"]},
        {"labels": ["a", "a"]},
        {"strategy": {"regulator": "off"}},
        {"model": {"base": "m", "input": "text", "lora": {"rank": 0}}},
        {"model": {"base": "m", "input": "text", "head": {"kind": "prompt", "prompts": "no place"}}},
        {"training": {"momentum": 1}},
        {"federation": {"sites": ["a", "a"]}},
        {"federation": {"sites": ["a"], "quorum": 2}},
        {"federation": {"sites": ["a"], "weights": {"b": 1}}},
        {"federation": {"weights": {"a": 0}}},
    ],
)
def test_a_run_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        spec(**wrong)


def test_a_bare_strategy_is_its_name():
    assert spec(strategy="ffa") == spec(strategy={"name": "ffa"})


def test_what_travels_comes_back_equal():
    run = spec(federation={"sites": ["b", "a"], "weights": {"a": 2}}, adapter={"head.bias": [2]})
    assert RunSpec.model_validate_json(run.canonical()) == run
    assert RunSpec.model_validate_json(run.canonical()).sha256 == run.sha256
    assert spec(seed=1).sha256 != spec(seed=2).sha256


def test_a_patient_brings_four_examples_to_a_step_unless_the_run_says_otherwise():
    run = spec(privacy={"unit": "patient", "epsilon": 3})
    assert run.privacy.examples_per_unit == 4
    assert RunSpec.model_validate_json(run.canonical()) == run
    assert spec(privacy={"unit": "patient", "epsilon": 3, "examples_per_unit": 9}).privacy.examples_per_unit == 9
    assert spec().privacy.examples_per_unit is None


def test_shares_sum_to_one_over_the_sites_that_answered():
    run = spec(federation={"sites": ["a", "b", "c"], "weights": {"a": 2}})
    assert run.shares(["a", "b", "c"]) == (0.5, 0.25, 0.25)
    assert run.shares(["c", "a"]) == pytest.approx((1 / 3, 2 / 3))


@pytest.mark.parametrize(("sample_rate", "epochs", "steps"), [(0.125, 1, 8), (0.1, 3, 30), (0.3, 1, 4), (1, 2, 2)])
def test_an_epoch_is_one_over_the_sample_rate_steps(sample_rate, epochs, steps):
    assert spec(privacy={"epsilon": 3, "sample_rate": sample_rate}).steps(epochs) == steps


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"privacy": {"epsilon": 1}}, (0.2, 0.2)),
        ({"privacy": {"epsilon": 3}}, (0.8, 0.5)),
        ({"privacy": {"unit": "none"}}, (0.8, 0.8)),
        ({"training": {"lr_head": 0.05}}, (0.8, 0.05)),
        ({"strategy": "fedavg"}, (0.05, 0.5)),
        ({"strategy": {"name": "deer", "regulator": "off"}}, (0.05, 0.5)),
        ({"strategy": "ffa", "training": {"lr_adapter": 2}}, (2, 0.5)),
    ],
)
def test_learning_rates_follow_the_method_and_the_budget_unless_given(changes, rates):
    run = spec(**{"strategy": "deer", "privacy": {"epsilon": 3}, **changes})
    assert completed(run, make(run).declares).learning_rates == pytest.approx(rates)


def test_a_run_without_learning_rates_trains_nothing():
    with pytest.raises(ValueError, match="never completed"):
        _ = spec().learning_rates
