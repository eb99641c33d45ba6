"""What a ledger refuses: beyond its budget, its reservations, its spare phases, its terms."""

from dataclasses import replace
from math import isclose

import pytest

from deerfield.errors import AlreadySealed, BudgetExhausted, InvalidInput, PolicyRefused
from deerfield.filters import Charge, spent
from deerfield.ledger import charging
from tests.ledgers import RENYI, TERMS, Chain, found, plan


def test_a_run_of_another_unit_is_refused() -> None:
    with pytest.raises(PolicyRefused, match="one unit for ever"):
        Chain().run(plan(unit="record"))


def test_the_budget_stops_before_the_run_that_would_exceed_it() -> None:
    cost = plan().epsilon
    chain = Chain(replace(TERMS, epsilon=2.5 * cost))
    chain.run(plan("a"))
    chain.run(plan("b"))
    with pytest.raises(BudgetExhausted, match="is left"):
        chain.run(plan("c"))
    assert isclose(chain.account.remaining, 0.5 * cost)


def test_the_delta_stops_a_run_too() -> None:
    chain = Chain()
    for number in range(10):
        chain.run(plan(f"r{number}", noise_multiplier=30.0))
    with pytest.raises(BudgetExhausted, match="delta is used up"):
        chain.run(plan("one more", noise_multiplier=30.0))


def test_renyi_stops_before_the_task_that_would_exceed_the_budget() -> None:
    one = spent(RENYI.cap, [Charge(epsilon=0, delta=0, spends=(plan().spend(10),))])
    chain = Chain(replace(RENYI, epsilon=one * 1.0001))
    chain.run(plan())
    chain.task(0)
    with pytest.raises(BudgetExhausted, match="does not fit population"):
        chain.task(1)
    assert chain.account.epsilon <= chain.account.terms.epsilon


def test_no_task_takes_a_step_beyond_its_run() -> None:
    chain = Chain()
    with pytest.raises(BudgetExhausted, match="was not reserved"):
        chain.task(0)
    chain.run(plan())
    chain.task(0, steps=35)
    with pytest.raises(BudgetExhausted, match="5 are left of the 40"):
        chain.task(1, steps=6)
    chain.task(1, steps=5)


def test_a_run_has_no_more_tasks_than_were_reserved_even_without_a_step() -> None:
    chain = Chain()
    chain.run(plan())
    for number in range(plan().tasks):
        chain.task(number, steps=0)
    with pytest.raises(BudgetExhausted, match=f"one task more than the {plan().tasks}"):
        chain.task(plan().tasks, steps=0)
    known = {**chain.entries[-1].detail, "round": 90}
    chain.add("task", known)
    assert any("and 4 were reserved" in each for each in found(chain))


def test_a_task_is_tried_again_only_on_a_spare_phase_and_only_its_last_try_is_sent() -> None:
    chain = Chain()
    chain.run(plan())
    first = chain.task(0)
    second = chain.task(0)
    assert second.detail["attempt"] == 1
    with pytest.raises(AlreadySealed, match="spare"):
        chain.task(0)
    with pytest.raises(AlreadySealed, match="reserved again by entry 3"):
        chain.commit(first)
    chain.commit(second)
    with pytest.raises(AlreadySealed, match="was answered"):
        chain.task(0)
    chain.task(1)
    with pytest.raises(AlreadySealed, match="spare"):
        chain.task(1)
    assert found(chain) == []


def test_terms_may_change_but_not_the_unit_population_or_a_filter_in_use() -> None:
    chain = Chain()
    assert charging.terms_detail(chain.account, TERMS) is None
    assert charging.terms_detail(chain.account, RENYI) is not None
    chain.run(plan())
    assert charging.terms_detail(chain.account, replace(TERMS, epsilon=4.0)) is not None
    for changes in ({"unit": "record"}, {"population": "x"}, {"filter": "renyi", "order": 8.0}):
        with pytest.raises(InvalidInput, match="'lungs'"):
            charging.terms_detail(chain.account, replace(TERMS, **changes))
