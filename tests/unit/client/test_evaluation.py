"""What a site does with a run that trains nothing: what its policy allows, what that costs, and after a crash."""

from dataclasses import dataclass, replace

import pytest
import structlog

from deerfield.errors import InvalidInput, PolicyRefused
from deerfield.privacy import epsilon
from deerfield.types import Spend, Task
from services.client.auditing import audit
from services.client.custody.custody import Custody
from services.client.policy import Policy
from services.client.site import Site
from tests.unit.client.sites import START, Bench, FakeLink, assigned, policy, spec

MODELS = {"name": "evaluate", "candidate": "1" * 64, "champion": "2" * 64}
HELD = {"validation": 0.1}


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield


def task(round_=0, **changes):
    asked = assigned(strategy=MODELS, **changes)
    return replace(asked, task=Task(round=round_, phase=0, factors="", epochs=0, start=START))


def rules(**changes) -> Policy:
    return policy(**{"metrics": "dp", "population": HELD, **changes})


@dataclass
class Scoring(Bench):
    """Gives another figure each time it is asked, as noise does."""

    asked: int = 0

    def metrics(self):
        self.asked += 1
        return {"accuracy": 0.5 + self.asked / 100}


def serve(link, state, mine):
    order = []
    with Custody("north", mine, state) as custody:
        Site(name="north", link=link, account=custody.account, build=lambda _: Scoring(order), beats=False).serve()
    return order


def cost(times, noise=10.0):
    return epsilon([Spend(unit="record", noise_multiplier=noise, sample_rate=1.0, steps=times, clip=1.0)], 1e-6)


@pytest.mark.parametrize("filter_", [{}, {"filter": "renyi", "order": 8}])
def test_the_counts_of_each_model_are_charged_whole_before_the_first_is_scored_and_nothing_else_is(tmp_path, filter_):
    link = FakeLink([task(0), task(1), task(2)])
    mine = rules(population={**HELD, **filter_}, dp_metrics={"noise_multiplier": 10.0, "every": 4})
    assert serve(link, tmp_path, mine) == ["check", "trainer"] * 3
    assert [sorted(update.metrics) for update in link.sent] == [["accuracy"]] * 3
    assert all(not update.delta and update.attestation.spend.steps == 0 for update in link.sent)
    assert {update.attestation.beside[0].steps for update in link.sent} == {3}  # of each model, whatever `every` says
    after = {update.attestation.epsilon_after for update in link.sent}
    with Custody("north", mine, tmp_path) as custody:
        account = custody.account("r", 0, task().spec).ledger.account
    assert account.runs["r", 0].epsilon == cost(3)
    assert after == {account.epsilon}
    if not filter_:
        assert after == {cost(3)}


def test_a_crash_between_the_charge_and_the_answer_is_charged_once_and_scored_no_more(tmp_path):
    with Custody("north", rules(), tmp_path) as custody:
        custody.account("r", 0, task().spec).reserve(task())  # and here the site dies
    link = FakeLink([task(0), task(1)])
    assert serve(link, tmp_path, rules()) == ["check", "check", "trainer"]
    assert [reason for reason, _ in link.declined] == ["ALREADY_SEALED"]
    assert link.sent[0].attestation.epsilon_after == cost(3)


def test_a_crash_before_the_answer_arrived_sends_the_same_noised_figures_again(tmp_path):
    first = FakeLink([task()])
    serve(first, tmp_path, rules())
    again = FakeLink([task()])
    assert serve(again, tmp_path, rules()) == []
    assert (again.sent[0].metrics, again.sent[0].attestation) == (first.sent[0].metrics, first.sent[0].attestation)


@pytest.mark.parametrize(
    ("mine", "asked", "words"),
    [
        ({"metrics": "none"}, {}, "needs `metrics: dp`, and the policy says `metrics: none`"),
        ({"metrics": "clear"}, {}, "under unit 'record' needs `metrics: dp`"),
        (
            {"population": {**HELD, "unprotected": True}},
            {"privacy": {"unit": "none", "epsilon": None}},
            "under unit 'none' needs `metrics: clear`",
        ),
        ({"strategies": ["deer"]}, {}, "strategy 'evaluate' is not allowed here"),
    ],
)
def test_what_a_policy_lets_nobody_see_is_declined_and_costs_nothing(tmp_path, mine, asked, words):
    link = FakeLink([task(**asked)])
    assert serve(link, tmp_path, rules(**mine)) == []
    assert [reason for reason, _ in link.declined] == ["POLICY_REFUSED"]
    assert not (tmp_path / "ledgers").exists()
    with pytest.raises(PolicyRefused, match=words):
        rules(**mine).population(task(**asked).spec)


def test_nobody_is_scored_where_everybody_was_trained_on():
    clear = rules(metrics="clear", population={"validation": 0.0, "unprotected": True})
    with pytest.raises(PolicyRefused, match="keeps nobody out of training"):
        clear.population(task(privacy={"unit": "none", "epsilon": None}).spec)


def test_a_run_that_may_cost_less_than_the_policys_noise_asks_is_declined_and_the_site_goes_on(tmp_path):
    link = FakeLink([task(privacy={"epsilon": 0.1}), assigned(1, run="other")])
    assert serve(link, tmp_path, rules()) == ["check", "trainer"]
    assert [reason for reason, _ in link.declined] == ["BUDGET_EXHAUSTED"]
    with Custody("north", rules(), tmp_path) as custody:
        assert list(custody.account("other", 0, spec()).ledger.account.runs) == [("other", 0)]


def test_there_is_nothing_to_audit_where_nothing_is_trained():
    with pytest.raises(InvalidInput, match="evaluate trains nothing that could be audited"):
        audit.check(task().spec)
