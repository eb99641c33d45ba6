"""What a site holds in trust: the budget over runs, the only update of a task, a ledger that cannot be rolled back."""

import shutil
from dataclasses import replace
from math import inf, isinf

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deerfield.attestation import countersign, verify
from deerfield.errors import (
    AlreadySealed,
    BudgetExhausted,
    InvalidInput,
    LedgerBehind,
    LedgerBusy,
    LedgerUnwritable,
    NotMapped,
    PolicyRefused,
)
from deerfield.runspec import RunSpec
from services.client.custody.custody import Custody
from tests.unit.client.sites import AGGREGATOR, START, FakeLink, assigned, policy, serve, spec


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield


def opened(state, rules=None):
    return Custody("north", rules or policy(), state)


def answer(custody, task):
    """Reserves, pretends to train, and commits: the update that may be sent."""
    account = custody.account(task.run, task.incarnation, task.spec)
    return account.commit(account.reserve(task), task, {"head.bias": START["head.bias"]}, {})


def test_the_budget_is_that_of_all_runs_together_whatever_process_spends_it(tmp_path):
    for number, run in enumerate("ab"):
        with opened(tmp_path) as custody:
            update = answer(custody, assigned(run=run))
            assert update.attestation.epsilon_before == pytest.approx(2.0 * number, rel=0.01)
            assert update.attestation.epsilon_after == pytest.approx(2.0 * (number + 1), rel=0.01)
    link = FakeLink([assigned(run="c")])
    assert "trainer" not in serve(link, tmp_path)  # 2 + 2 + 2 is above 5
    assert [reason for reason, _ in link.declined] == ["BUDGET_EXHAUSTED"]
    with opened(tmp_path) as custody:
        assert custody.account("a", 0, spec()).ledger.account.epsilon == pytest.approx(4.0, rel=0.01)


def test_a_run_is_charged_once_for_all_its_tasks(tmp_path):
    with opened(tmp_path) as custody:
        after = [answer(custody, assigned(number)).attestation.epsilon_after for number in range(4)]
    assert len(set(after)) == 1
    assert after[0] <= 2.0


def test_a_task_that_was_reserved_and_never_finished_counts_as_spent_and_is_not_begun_again(tmp_path):
    with opened(tmp_path) as custody:
        custody.account("r", 0, spec()).reserve(assigned())
    link = FakeLink([assigned(), assigned(1)])
    assert serve(link, tmp_path) == ["check", "check", "trainer"]
    assert [reason for reason, _ in link.declined] == ["ALREADY_SEALED"]


def test_a_spare_phase_is_paid_for_from_the_start_and_begins_a_task_again_once(tmp_path):
    task = assigned(privacy={"spare_phases": 1})
    with opened(tmp_path) as custody:
        account = custody.account("r", 0, task.spec)
        first = account.reserve(task)
        second = account.reserve(task)
        with pytest.raises(AlreadySealed, match="spare"):
            account.reserve(task)
        assert (first.attempt, second.attempt) == (0, 1)
        with pytest.raises(AlreadySealed):
            account.commit(first, task, {"head.bias": START["head.bias"]}, {})
        plain = custody.account("other", 0, spec())
        assert account.plan.steps == plain.plan.steps + 8
        assert account.plan.noise_multiplier > plain.plan.noise_multiplier


def test_what_was_committed_and_not_sent_is_sent_after_a_restart_byte_for_byte(tmp_path):
    with opened(tmp_path) as custody:
        update = answer(custody, assigned())
    link = FakeLink([assigned()])
    assert serve(link, tmp_path) == []  # neither the engine nor the data are touched
    (again,) = link.sent
    assert again.attestation == update.attestation
    assert (again.delta["head.bias"] == update.delta["head.bias"]).all()
    verify(again.attestation)


def test_an_old_copy_of_the_ledger_trains_nothing(tmp_path):
    state, backup = tmp_path / "state", tmp_path / "backup"
    with opened(state) as custody:
        answer(custody, assigned())
    shutil.copytree(state, backup)
    with opened(state) as custody:
        record = countersign(AGGREGATOR, answer(custody, assigned(1)).attestation)
    shutil.rmtree(state)
    backup.rename(state)
    link = FakeLink([assigned(2), assigned(3)], record=record)
    assert "trainer" not in serve(link, state)
    assert {reason for reason, _ in link.declined} == {"LEDGER_BEHIND"}


def test_a_ledger_that_is_ahead_of_the_aggregators_record_goes_on(tmp_path):
    with opened(tmp_path) as custody:
        record = countersign(AGGREGATOR, answer(custody, assigned()).attestation)
        account = custody.account("r", 0, spec())
        answer(custody, assigned(1))
        account.check_head(record)
        account.check_head(None)


def test_another_aggregators_record_stops_the_site(tmp_path):
    with opened(tmp_path) as custody:
        account, attestation = custody.account("r", 0, spec()), answer(custody, assigned()).attestation
        account.check_head(countersign(AGGREGATOR, attestation))
        with pytest.raises(InvalidInput, match="signs with key"):
            account.check_head(countersign(Ed25519PrivateKey.generate(), attestation))


def test_a_forked_ledger_is_behind_even_at_the_same_length(tmp_path):
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        record = countersign(AGGREGATOR, answer(one, assigned()).attestation)
        answer(two, assigned())
        with pytest.raises(LedgerBehind):
            two.account("r", 0, spec()).check_head(record)


@pytest.mark.parametrize(
    ("rules", "run", "says"),
    [
        ({}, {"privacy": {"unit": "patient"}}, "has one for ever"),
        ({}, {"privacy": {"unit": "none", "epsilon": None}}, "unprotected: true"),
        ({"population": {"unit": "patient"}}, {}, "'record', that of population 'p' is 'patient'"),
        ({"strategies": ["head"]}, {}, "not allowed here (head)"),
        ({"population": {"units_high": 2_000_000, "delta": 1e-8}}, {}, "above 1/(10 x 2000000 units)"),
        (
            {"population": {"epsilon": 50.0}},
            {"federation": {"lifetime_epsilon": 10.0}},
            "at most 10, population 'p' allows 50",
        ),
        ({"population": {"unprotected": True}}, {"federation": {"lifetime_epsilon": 50.0}}, "`unprotected: true` lets"),
        ({"metrics": "clear"}, {"federation": {"lifetime_epsilon": 50.0}}, "`metrics: clear` lets"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_in_one_sentence_before_anything_is_opened(
    tmp_path, rules, run, says
):
    asked = RunSpec.model_validate(
        {
            **spec(**{k: v for k, v in run.items() if k == "privacy"}).model_dump(),
            **{k: v for k, v in run.items() if k != "privacy"},
        }
    )
    with opened(tmp_path, policy(**rules)) as custody, pytest.raises(PolicyRefused) as refused:
        custody.account("r", 0, asked)
    assert says in str(refused.value)
    assert not (tmp_path / "ledgers").exists()


def test_a_second_process_of_a_site_is_refused_before_it_asks_for_a_task(tmp_path):
    with opened(tmp_path) as custody:
        with pytest.raises(LedgerBusy, match="another process of this site has"), opened(tmp_path):
            pass
        answer(custody, assigned())
    with opened(tmp_path) as custody:
        answer(custody, assigned(1))


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"epochs": 2}, {"factors": "A"}, {"factors": ""}, {"round": 2}, {"phase": 2}, {"round": 40}],
)
def test_a_task_that_the_run_does_not_have_is_refused_before_a_charge(tmp_path, changes):
    odd = replace(assigned(), task=replace(assigned().task, **changes))
    with opened(tmp_path) as custody:
        account = custody.account(odd.run, odd.incarnation, odd.spec)
        with pytest.raises(PolicyRefused, match="the run has rounds 0 to 1 with the phases 'B', 'A' of 1 epochs"):
            account.reserve(odd)
        assert account.ledger.account.epsilon == 0
        account.reserve(assigned())


def test_a_population_that_is_not_mapped_is_refused(tmp_path):
    with opened(tmp_path) as custody, pytest.raises(NotMapped, match="'q' is not in this site's policy"):
        custody.account("r", 0, spec(population="q"))


@pytest.mark.parametrize(
    ("rules", "run"),
    [
        ({"population": {"unprotected": True}}, {"privacy": {"unit": "none", "epsilon": None}}),
        ({"metrics": "clear"}, {}),
    ],
)
def test_what_no_noise_protects_makes_the_population_infinite_for_ever(tmp_path, rules, run):
    with opened(tmp_path, policy(**rules)) as custody:
        assert isinf(answer(custody, assigned(**run)).attestation.epsilon_after)
    with opened(tmp_path) as custody:
        account = custody.account("later", 0, spec())
        assert account.ledger.account.epsilon == inf
        with pytest.raises(BudgetExhausted, match="infinite"):
            account.reserve(assigned(run="later"))


def test_validation_counts_are_paid_from_the_runs_epsilon(tmp_path):
    rules = policy(metrics="dp", population={"validation": 0.2}, dp_metrics={"noise_multiplier": 8.0, "every": 2})
    with opened(tmp_path, rules) as custody:
        account = custody.account("r", 0, spec())
        silent = Custody("north", policy(), tmp_path / "silent")
        with silent:
            plain = silent.account("r", 0, spec())
            assert account.plan.noise_multiplier > plain.plan.noise_multiplier
        (extra,) = account.plan.extra
        assert (extra.noise_multiplier, extra.sample_rate, extra.steps) == (8.0, 1.0, 2)  # four phases, every other
        account.reserve(assigned())
        assert account.ledger.account.epsilon <= 2.0


@pytest.mark.parametrize(("every", "spare", "steps"), [(2, 1, 3), (3, 0, 2), (3, 2, 4)])
def test_each_spare_phase_pays_for_the_counts_of_the_phase_that_it_repeats(tmp_path, every, spare, steps):
    rules = policy(metrics="dp", population={"validation": 0.2}, dp_metrics={"every": every})
    with opened(tmp_path, rules) as custody:
        (extra,) = custody.account("r", 0, spec(privacy={"spare_phases": spare})).plan.extra
        assert extra.steps == steps  # four phases


@pytest.mark.parametrize(
    "in_the_way", [lambda path: path.touch(), lambda path: path.symlink_to("nowhere")], ids=["file", "broken link"]
)
def test_metrics_that_cannot_be_kept_seal_nothing(tmp_path, in_the_way):
    in_the_way(tmp_path / "metrics")
    with opened(tmp_path) as custody:
        account = custody.account("r", 0, spec())
        reservation = account.reserve(assigned())
        with pytest.raises(LedgerUnwritable, match="give the site a folder that it may write to"):
            account.commit(reservation, assigned(), {"head.bias": START["head.bias"]}, {"accuracy": 0.5})
        assert account.stored(assigned()) is None


def test_metrics_that_were_noised_are_kept_with_the_update(tmp_path):
    with opened(tmp_path) as custody:
        account = custody.account("r", 0, spec())
        account.commit(account.reserve(assigned()), assigned(), {"head.bias": START["head.bias"]}, {"accuracy": 0.5})
    with opened(tmp_path) as custody:
        assert custody.account("r", 0, spec()).stored(assigned()).metrics == {"accuracy": 0.5}


def test_a_run_that_comes_back_in_other_terms_is_refused(tmp_path):
    with opened(tmp_path) as custody:
        answer(custody, assigned())
        with pytest.raises(PolicyRefused, match="start it as a new run"):
            custody.account("r", 0, spec(privacy={"epsilon": 3.0}))
