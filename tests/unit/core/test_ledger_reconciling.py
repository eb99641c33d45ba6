"""A restored ledger is charged what the aggregator's record has and it lacks."""

from math import inf, isclose

import pytest

from deerfield.errors import BudgetExhausted, InvalidInput
from deerfield.ledger import charging
from deerfield.ledger.details import Known
from deerfield.ledger.entry import Head
from tests.ledgers import OTHER, TERMS, found, plan, small


def test_a_restored_ledger_is_charged_what_the_record_has_and_it_lacks() -> None:
    old = small()
    before = old.account.epsilon
    head = Head(sequence=30, hash=OTHER)
    known = Known(head=head, epsilon=before + 1.5, delta=3e-6)
    agreed = Known(head=old.account.head, epsilon=before, delta=1e-6)
    detail = charging.reconcile_detail(old.account, "op", "why", known, agreed)
    assert isclose(detail["epsilon"], 1.5)
    assert isclose(detail["delta"], 2e-6)
    entry = old.add("reconcile", detail, sequence=31)
    assert isclose(old.account.epsilon, before + 1.5)
    assert old.account.knows(head)
    assert entry.sequence > head.sequence
    assert found(old) == []
    with pytest.raises(InvalidInput, match="nothing to reconcile"):
        charging.reconcile_detail(old.account, "op", "again", Known(head=head, epsilon=9.0), None)


@pytest.mark.parametrize(
    ("known", "epsilon"),
    [
        (Known(), inf),
        (Known(head=Head(sequence=30, hash=OTHER)), inf),
        (Known(head=Head(sequence=2, hash=OTHER), epsilon=1.25, delta=0.0), 1.25),  # the chains have parted
    ],
)
def test_what_nobody_knows_about_a_restored_ledger_costs_all_there_can_be(known: Known, epsilon: float) -> None:
    assert charging.missing(small().account, known, None)[0] == epsilon


def test_what_a_restored_copy_has_spent_since_is_never_taken_for_what_the_record_has() -> None:
    chain = small()
    agreed = Known(head=chain.account.head, epsilon=chain.account.epsilon, delta=chain.account.delta)
    lost = Known(head=Head(sequence=30, hash=OTHER), epsilon=agreed.epsilon + 1.5, delta=agreed.delta + 1e-6)
    chain.run(plan("elsewhere"))  # under an aggregator that had lost its memory
    since = chain.account.epsilon - agreed.epsilon
    chain.add("reconcile", charging.reconcile_detail(chain.account, "op", "why", lost, agreed), sequence=31)
    assert chain.account.epsilon == pytest.approx(agreed.epsilon + since + 1.5)
    assert chain.account.delta == pytest.approx(agreed.delta + 2e-6)
    assert found(chain) == []


def test_a_head_that_the_chain_does_not_hold_is_not_agreed_on() -> None:
    account = small().account
    known = Known(head=Head(sequence=30, hash=OTHER), epsilon=5.0, delta=5e-6)
    foreign = Known(head=Head(sequence=1, hash=OTHER), epsilon=4.0, delta=1e-6)
    assert charging.missing(account, known, foreign) == charging.missing(account, known, None) == (5.0, 5e-6)


def test_the_delta_of_a_record_is_charged_too() -> None:
    chain = small()
    known = Known(head=Head(sequence=30, hash=OTHER), epsilon=chain.account.epsilon, delta=TERMS.delta - 1e-6)
    chain.add("reconcile", charging.reconcile_detail(chain.account, "op", "why", known, None), sequence=31)
    assert chain.account.epsilon < inf
    with pytest.raises(BudgetExhausted, match="delta is used up"):
        chain.run(plan("r2"))


@pytest.mark.parametrize("name", ["epsilon", "delta"])
def test_a_reconciliation_that_charges_too_little_is_found(name: str) -> None:
    chain = small()
    known = Known(head=Head(sequence=30, hash=OTHER), epsilon=5.0, delta=5e-6)
    detail = charging.reconcile_detail(chain.account, "op", "why", known, None)
    chain.add("reconcile", {**detail, name: detail[name] / 2}, sequence=31)
    assert any(f"it charges {name}" in each for each in found(chain))
