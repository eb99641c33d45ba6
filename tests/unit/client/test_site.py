"""What a site answers when something goes wrong: once, in a fixed sentence, and never by training twice."""

import pytest
import structlog

from deerfield.errors import (
    REFUSALS,
    BadRequest,
    EngineFault,
    InvalidInput,
    LedgerDamaged,
    NotFinite,
    RoundClosed,
    RunEnded,
    Unreachable,
)
from services.client import site
from services.client.site import Site
from tests.unit.client.sites import FakeLink, assigned, policy, serve


@pytest.fixture
def served(tmp_path):
    return lambda link, **fails: serve(link, tmp_path, **fails)


def test_a_refused_update_is_declined_with_its_reason_and_never_trained_again(served):
    link = FakeLink([assigned(), assigned(), assigned()], refuses=[NotFinite("head.bias holds a NaN")])
    assert served(link) == ["check", "trainer"]
    assert link.declined == [("NOT_FINITE", site.DECLINED["NOT_FINITE"])] * 3


def test_an_update_that_came_too_late_is_not_declined_but_never_trained_again(served):
    link = FakeLink([assigned(), assigned(1)], refuses=[RoundClosed("late")])
    assert served(link) == ["check", "trainer"] * 2
    assert len(link.sent) == 2
    assert not link.declined


def test_a_task_that_was_answered_is_answered_by_the_same_bytes(served):
    link = FakeLink([assigned(), assigned()])
    assert served(link) == ["check", "trainer"]
    first, second = link.sent
    assert all((first.delta[name] == second.delta[name]).all() for name in first.delta)
    assert first.attestation == second.attestation


def test_the_engine_is_checked_before_anything_is_charged(served):
    link = FakeLink([assigned(number) for number in range(4)])
    failing = served(link, check_fails=EngineFault("lora_B gets no gradient"))
    assert failing == ["check"] * 4
    assert {reason for reason, _ in link.declined} == {"ENGINE_FAULT"}  # BUDGET_EXHAUSTED, had each been charged


def test_data_are_not_read_for_a_task_beyond_the_schedule(served):
    link = FakeLink([assigned(number) for number in range(5)])
    order = served(link)
    assert order == ["check", "trainer"] * (len(order) // 2) + ["check"] * (order.count("check") * 2 - len(order))
    assert {reason for reason, _ in link.declined} == {"POLICY_REFUSED"}


def test_a_run_that_the_policy_refuses_loads_no_model(served):
    link = FakeLink([assigned(), assigned(1)])
    assert served(link, rules=policy(strategies=["head"])) == []
    assert link.declined == [("POLICY_REFUSED", site.DECLINED["POLICY_REFUSED"])] * 2


@pytest.mark.parametrize(("rule", "left"), [("decline", []), ("leave", ["r"])])
def test_a_run_beyond_the_budget_is_declined_task_by_task_or_left(served, rule, left):
    link = FakeLink([assigned(), assigned(1)])
    assert "trainer" not in served(link, rules=policy(population={"epsilon": 1.9}, on_exhaustion=rule))
    assert {reason for reason, _ in link.declined} == {"BUDGET_EXHAUSTED"}
    assert link.left == left
    assert len(link.declined) == (2 if rule == "decline" else 1)


def test_a_site_that_breaks_says_so_without_saying_how_and_stops(served):
    link = FakeLink([assigned()])
    with pytest.raises(MemoryError):
        served(link, fails=MemoryError("patient 17 has 4 GiB"))
    assert link.declined == [("ENGINE_FAULT", "the site failed; see its log")]


def test_data_that_cannot_be_read_stop_the_site_even_when_nobody_listens(served):
    link = FakeLink([assigned()], refuses_declines=RunEnded("over"))
    with pytest.raises(InvalidInput, match="no column"):
        served(link, fails=InvalidInput("no column 'x'"))
    assert link.declined == [("NOT_MAPPED", site.DECLINED["NOT_MAPPED"])]


def test_a_ledger_that_cannot_be_used_stops_the_site_under_a_reason_of_its_own(served, tmp_path):
    served(FakeLink([assigned()]))
    ledger = next(tmp_path.rglob("ledger.jsonl"))
    ledger.write_bytes(ledger.read_bytes().replace(b'"kind":"run"', b'"kind":"ran"'))
    link = FakeLink([assigned(1)])
    with pytest.raises(LedgerDamaged, match="entry 1"):
        served(link)
    assert link.declined == [("LEDGER_UNUSABLE", site.DECLINED["LEDGER_UNUSABLE"])]


def test_an_interrupt_is_not_an_answer(served):
    link = FakeLink([assigned()])
    with pytest.raises(KeyboardInterrupt):
        served(link, fails=KeyboardInterrupt())
    assert not link.declined


def test_a_decline_that_comes_too_late_is_no_reason_to_stop(served):
    link = FakeLink([assigned(), assigned(1)], refuses_declines=RoundClosed("closed"))
    served(link, check_fails=EngineFault("x"))
    assert len(link.declined) == 2


def test_a_lost_heartbeat_does_not_end_the_others(served):
    link = FakeLink([], beats=[BadRequest("odd"), Unreachable("gone"), False])
    alone = Site(name="north", link=link, account=lambda *_: None, build=lambda _: None, beat_s=0.001)
    with alone._progress(assigned()) as on_step, pytest.raises(RoundClosed):
        _train_on(on_step)
    assert not link.beats


def _train_on(on_step):
    for step in range(10_000_000):
        on_step(step, 1)


def test_every_reason_is_answered_by_a_sentence_without_data(served):
    assert set(site.DECLINED) <= set(REFUSALS)
    assert all("{" not in text for text in (*site.DECLINED.values(), site.OTHERWISE))
    link = FakeLink([assigned()], refuses=[BadRequest("metrics: loss of patient 17")])
    served(link)
    assert link.declined == [("BAD_REQUEST", site.OTHERWISE)]


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield
