"""The strategy that trains nothing: what it hands out, in which order, and what it costs."""

from math import inf

import numpy as np
import pytest

from deerfield.budget import check_spend
from deerfield.errors import BadRequest, BudgetExhausted, InvalidInput
from deerfield.plan import Standing, plan, schedule
from deerfield.privacy import epsilon
from deerfield.runspec import RunSpec
from deerfield.strategies import STRATEGIES, describe, make
from deerfield.tensors import digest, gathered, member, shapes
from deerfield.types import Spend
from tests.adapters import adapter

ONE, OTHER = "1" * 64, "2" * 64


def spec(unit="record", **options):
    privacy = {"unit": unit, **({} if unit == "none" else {"epsilon": 1.0})}
    return RunSpec.model_validate(
        {
            "name": "trial",
            "population": "notes",
            "labels": ["a", "b", "c"],
            "strategy": {"name": "evaluate", **options},
            "model": {"base": "m", "input": "text"},
            "privacy": privacy,
            "adapter": shapes(adapter(0)),
        }
    )


def test_each_round_hands_out_one_model_as_it_was_given_and_no_update_changes_any():
    given = {"candidate": adapter(1), "champion": adapter(2), "base": adapter(3)}
    strategy = make(spec(candidate=ONE, champion=OTHER))
    declares, state = strategy.declares, strategy.init(gathered(given))
    assert declares.models == {"candidate": ONE, "champion": OTHER, "base": ""}
    assert (declares.rounds, declares.phases, declares.epochs) == (3, ("",), 0)
    for number, model in enumerate(given.values()):
        task = strategy.plan(state, "north")
        assert (task.round, task.phase, task.factors, task.epochs) == (number, 0, "", 0)
        assert digest(task.start) == digest(model)
        assert all(np.shares_memory(array, model[name]) for name, array in task.start.items())
        assert (declares.upload(task), strategy.release(strategy.train(None, task), task)) == ({}, {})
        state = strategy.aggregate(state, [])
    assert state.round == declares.rounds


def test_a_model_whose_name_begins_anothers_is_not_mixed_up_with_it():
    both = gathered({"a": {"head.bias": np.zeros(1)}, "ab": {"head.bias": np.ones(1)}})
    assert {name: float(member(both, name)["head.bias"][0]) for name in ("a", "ab")} == {"a": 0.0, "ab": 1.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": False}, "nothing to score; name candidate or champion"),
        ({"candidate": "tiny/3"}, "candidate is 'tiny/3', and a model is named by the 64"),
        ({"challenger": ONE}, "evaluate has no option 'challenger'"),
    ],
)
def test_what_it_cannot_score_is_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        make(spec(**options))


def test_it_is_known_and_is_none_of_the_methods_that_train():
    assert "evaluate" not in STRATEGIES
    assert describe("evaluate").options["base"].default is True


@pytest.mark.parametrize(
    ("changes", "takes"),
    [
        ({"model": {"base": "elsewhere/m"}}, True),  # the digest names it, and the run may be of other places
        ({"model": {"lora": {"scale": 0.125}}}, False),
        ({"labels": ["b", "a", "c"]}, False),
        ({"adapter": {"head.weight": (3, 4)}}, False),
        ({"privacy": {"unit": "none"}, "rounds": 3, "population": "others"}, True),
    ],
)
def test_a_run_takes_the_models_that_it_could_have_trained(changes, takes):
    one = spec()
    whole = one.model_dump()
    for name, value in changes.items():
        whole[name] = {**whole[name], **value} if name == "model" else value
    assert one.takes(RunSpec.model_validate(whole)) is takes


def counts(times):
    return (Spend(unit="record", noise_multiplier=10.0, sample_rate=1.0, steps=times, clip=1.0),)


def test_all_that_it_costs_is_what_the_sites_report():
    asked = spec(candidate=ONE)
    declares = make(asked).declares
    found = plan(asked, declares, Standing(units=(50, 60), cap=None, metrics=counts(2)))
    assert found.epsilon == epsilon(counts(2), asked.privacy.delta)
    assert (found.steps, found.bytes_up, found.warnings, found.step_signal_to_noise) == (0, 0, (), None)
    assert found.bytes_down == 2 * 4 * sum(array.size for array in adapter(0).values())
    unprotected = spec("none", candidate=ONE)
    assert plan(unprotected, declares, Standing(units=(50, 60), cap=None)).epsilon == inf


def test_the_aggregator_takes_no_report_that_was_not_paid_for():
    asked = spec(candidate=ONE)
    declares, told = (
        make(asked).declares,
        Spend(unit="record", noise_multiplier=10.0, sample_rate=0.125, steps=0, clip=1),
    )
    check_spend(asked, declares, 0, told, counts(2))
    for beside in ((), counts(1)):
        with pytest.raises(BadRequest, match="the run scores 2 models, and the site was charged for the counts of"):
            check_spend(asked, declares, 0, told, beside)
    with pytest.raises(BudgetExhausted, match="the run allows 1"):
        check_spend(asked, declares, 0, told, counts(200))


def test_reports_that_cost_more_than_the_run_may_are_refused():
    asked = spec(candidate=ONE)
    with pytest.raises(BudgetExhausted, match=r"the run's epsilon is 1.*ask for a run with a larger epsilon"):
        schedule(asked, make(asked).declares, counts(200))
