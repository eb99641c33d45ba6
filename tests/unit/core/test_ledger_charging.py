"""What runs and tasks cost by each filter, and what stays infinite."""

from dataclasses import replace
from math import inf, isclose

import pytest

from deerfield import privacy
from deerfield.attestation import public_key
from deerfield.errors import BudgetExhausted
from deerfield.filters import Charge, spent
from deerfield.ledger import charging
from deerfield.ledger.details import Known, Terms
from deerfield.ledger.entry import Head
from deerfield.ledger.statement import rows
from deerfield.types import Spend
from tests.ledgers import KEY, NONE_RUN, OTHER, RENYI, TERMS, Chain, found, plan


def test_sum_charges_a_run_whole_before_its_first_task_and_never_again() -> None:
    chain = Chain()
    chain.run(plan())
    whole = privacy.epsilon(plan().spends, 1e-6)
    assert chain.account.epsilon == whole
    chain.task(0)
    chain.run(plan("r2"))
    assert isclose(chain.account.epsilon, 2 * whole)
    assert isclose(chain.account.delta, 2e-6)


def test_a_run_pays_for_what_it_releases_beside_its_schedule() -> None:
    extra = Spend(unit="patient", noise_multiplier=5.0, sample_rate=1.0, steps=3, clip=inf)
    with_extra = plan(extra=(extra,))
    for terms in (TERMS, RENYI):
        chain = Chain(terms)
        chain.run(with_extra)
        assert chain.account.epsilon > 0
        assert found(chain) == []
    assert with_extra.epsilon > plan().epsilon


def test_renyi_charges_each_task_its_steps_however_many_tasks_they_come_in() -> None:
    one, many = Chain(RENYI), Chain(RENYI)
    for chain in (one, many):
        chain.run(plan())
        assert chain.account.epsilon == 0
    one.task(0, steps=30)
    for round in range(3):
        many.task(round, steps=10)
    together = Charge(epsilon=0, delta=0, spends=(plan().spend(30),))
    assert isclose(many.account.epsilon, spent(RENYI.cap, [together]), rel_tol=1e-12)
    assert isclose(one.account.epsilon, many.account.epsilon, rel_tol=1e-12)


@pytest.mark.parametrize("terms", [TERMS, RENYI], ids=["sum", "renyi"])
def test_what_is_infinite_stays_infinite(terms: Terms) -> None:
    chain = Chain(terms)
    chain.run(plan())
    chain.add("infinite", charging.infinite_detail("metrics: clear"))
    chain.add("terms", replace(terms, epsilon=1e6).detail(public_key(KEY)))
    known = Known(head=Head(sequence=90, hash=OTHER), epsilon=1.0, delta=0.0)
    detail = charging.reconcile_detail(chain.account, "op", "restored", known, None)
    chain.add("reconcile", detail, sequence=91)
    assert chain.account.epsilon == inf
    assert chain.account.remaining == 0
    with pytest.raises(BudgetExhausted, match="infinite for good"):
        chain.run(plan("r2"))
    chain.run(plan("r3", infinite_allowed=True))
    chain.task(0, run="r3")
    assert all(row.epsilon == inf for row in list(rows(chain.entries))[2:])
    assert found(chain) == []


@pytest.mark.parametrize("terms", [TERMS, RENYI], ids=["sum", "renyi"])
def test_a_run_without_a_unit_needs_the_policy_and_is_infinite(terms: Terms) -> None:
    chain = Chain(terms)
    with pytest.raises(BudgetExhausted, match="infinite epsilon"):
        chain.run(NONE_RUN)
    chain.run(replace(NONE_RUN, infinite_allowed=True))
    assert chain.account.epsilon == inf
    public = Chain(replace(TERMS, unit="none", epsilon=inf))
    public.run(NONE_RUN)
    public.task(0, run="open")
    assert found(public) == found(chain) == []
