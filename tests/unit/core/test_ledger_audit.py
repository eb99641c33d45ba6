"""What a site signed and what is wrong all the same: its sums, its promises, its updates."""

from dataclasses import replace

import pytest

from deerfield.attestation import public_key
from deerfield.ledger import charging
from deerfield.ledger.account import fold
from deerfield.ledger.audit import verify
from deerfield.ledger.details import Terms
from deerfield.ledger.entry import seal
from tests.ledgers import KEY, OTHER, RENYI, TERMS, UPDATE, Chain, found, key, plan, small


@pytest.mark.parametrize(
    ("name", "factor"), [("epsilon", 1 - 1e-5), ("epsilon_after", 1 - 1e-5), ("epsilon_after", 1.1)]
)
def test_an_epsilon_that_its_site_signed_and_that_is_wrong_is_found(name: str, factor: float) -> None:
    chain = Chain()
    detail = dict(charging.run_detail(chain.account, plan()))
    detail[name] *= factor
    chain.add("run", detail)
    assert any(each.startswith("1: ") and name in each for each in found(chain))


def test_the_cost_of_a_run_is_computed_again_where_its_tasks_are_charged() -> None:
    chain = Chain(RENYI)
    detail = dict(charging.run_detail(chain.account, plan()))
    chain.add("run", {**detail, "epsilon": detail["epsilon"] * (1 - 1e-5)})
    assert [each[:32] for each in found(chain)] == ["1: epsilon of the run is written"]


@pytest.mark.parametrize(("terms", "factor"), [(RENYI, 1 - 1e-5), (TERMS, 0.5)])
def test_a_task_that_understates_the_population_is_found(terms: Terms, factor: float) -> None:
    chain = Chain(terms)
    chain.run(plan())
    detail = dict(charging.task_detail(chain.account, key(), 10))
    chain.add("task", {**detail, "epsilon_after": detail["epsilon_after"] * factor})
    assert [each[:19] for each in found(chain)] == ["2: epsilon_after is"]


def test_a_second_update_for_a_reservation_is_found() -> None:
    chain = Chain()
    chain.run(plan())
    task = chain.task(0)
    chain.commit(task)
    chain.add("commit", {"reservation": task.sequence, "update": OTHER})
    assert found(chain) == ["4: it is the second commit of reservation 2, after entry 3"]


def test_a_commit_and_a_task_without_what_they_stand_on_are_found() -> None:
    chain = Chain()
    chain.run(plan())
    detail = charging.task_detail(chain.account, key(), 10)
    chain.add("commit", {"reservation": 1, "update": UPDATE})
    chain.add("task", {**detail, "run": "r2"})
    chain.add("task", {**detail, "steps": 41})
    chain.add("task", {**detail, "attempt": 5})
    said = " ".join(found(chain))
    for what in (
        "2: entry 1, which it commits",
        "3: entry 1 is no reservation of run r2",
        "4: with it the run takes 41",
    ):
        assert what in said
    assert "5: it is written as attempt 5" in said


def test_more_than_the_terms_allow_is_found() -> None:
    chain = Chain(replace(TERMS, epsilon=0.01))
    rich = fold([seal(replace(chain.entries[0], detail=charging.open_detail(TERMS, public_key(KEY))), KEY)])
    chain.add("run", charging.run_detail(rich, plan()))
    assert any("above the 0.01 of its terms" in each for each in found(chain))


def test_a_missing_update_is_found() -> None:
    report = verify(small().lines, {UPDATE}.__contains__)
    assert [each.entry for each in report.findings] == [5]
    assert verify(small().lines, {UPDATE, OTHER}.__contains__).sound


def test_terms_that_break_a_promise_are_found() -> None:
    chain = small()
    for changes in ({"unit": "record"}, {"filter": "renyi", "order": 8.0}, {"population": "hearts"}):
        chain.add("terms", replace(TERMS, **changes).detail(public_key(KEY)))
    said = " ".join(found(chain))
    assert "one for ever" in said
    assert "changes the filter" in said
    assert "of population hearts" in said
