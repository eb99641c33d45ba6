"""Who called and what was decided is in the audit log, however many call."""

import json

from deerfield.errors import NotAuthenticated, NotMember, Unreachable
from services.aggregator.auditing.decisions import MOST, Decisions
from services.aggregator.auditing.trail import CALL, Call
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.fakes import run_spec
from tests.integration.aggregator.audited import findings, logged, whats
from tests.integration.aggregator.conftest import served, sqlite_in
from tests.integration.aggregator.security import METHODS, Consortium, answer, channel_of
from tests.integration.aggregator.teaching import sites
from tests.integration.aggregator.test_security_matrix import CELLS

NORTH = {"role": "site", "name": "north", "serial": "0a"}


def test_every_call_by_every_role_leaves_the_decision_that_was_taken(aggregator, tmp_path):
    consortium = Consortium.found(tmp_path / "consortium")
    with served(aggregator, gate=consortium.gate()) as server:
        for role in ("site", "operator", "observer"):
            with channel_of(server.ports.listening, consortium.files(role, "north")) as channel:
                for method in METHODS:
                    answer(channel, method)
        revoked = consortium.files("site", "gone")
        consortium.revoke(revoked)
        with channel_of(server.ports.listening, revoked) as channel:
            for method in METHODS:
                answer(channel, method)
    found = {}
    for entry in logged(aggregator.desk.store, "decision"):
        actor, detail = json.loads(entry.actor), json.loads(entry.detail)
        assert actor["serial"]
        assert detail["count"] == 1
        found[actor["role"], actor["name"], entry.what] = detail
    for method in METHODS:
        for role in ("site", "operator", "observer"):
            told = found[role, "north", method.name]
            allowed = (method.name, role, "no") not in CELLS
            assert told["answer"] == ("allowed" if allowed else "denied"), (role, method.name)
            assert allowed or told["reason"] == "NOT_MEMBER"
        told = found["site", "gone", method.name]
        assert (told["answer"], told["reason"]) == ("denied", "NOT_AUTHENTICATED")
        assert "is revoked" in told["sentence"]
    assert len(found) == 4 * len(METHODS)
    assert whats(aggregator.desk.store, "process") == ["started", "ended"]


def test_what_an_operator_does_is_in_the_log_with_who_did_it_also_where_it_changes_nothing(aggregator):
    with served(aggregator) as server:
        runs = server.runs
        run = runs.start(run_spec("north", rounds=1), "once")
        site = sites(aggregator, run, "north")[0]
        site.step()
        aggregator.coordinator.close_due()
        runs.evaluated(run, 0, 0, {"accuracy": 0.5})
        runs.abort(run, "enough")
        runs.abort(run, "again")
        at_once = logged(aggregator.desk.store)
    by = [entry for entry in at_once if json.loads(entry.actor)["role"] == "operator"]
    assert [(entry.kind, entry.what, json.loads(entry.detail).get("call")) for entry in by] == [
        ("edge", "run_started", "Start"),
        ("edge", "phase_open", "Start"),
        ("edge", "evaluated", "Evaluated"),
        ("edge", "run_aborted", "Abort"),
        ("decision", "Abort", None),
    ]
    assert findings(aggregator.desk.store) == []


def test_a_flood_of_denials_is_one_entry_at_once_and_one_count_a_minute(store):
    decisions = Decisions(store, lambda: 5.0)
    for number in range(1000):
        call = Call("Start", NORTH)
        call.refused = NotMember(f"attempt {number}")
        decisions.made(call)
    assert [json.loads(entry.detail)["count"] for entry in logged(store)] == [1]
    decisions.flush()
    told = [json.loads(entry.detail) for entry in logged(store)]
    assert [detail["count"] for detail in told] == [1, 999]
    assert {(detail["answer"], detail["reason"], detail["sentence"]) for detail in told} == {
        ("denied", "NOT_MEMBER", "attempt 0")
    }
    decisions.flush()
    assert len(logged(store)) == 2


def test_polls_of_many_callers_are_counted_in_bounded_memory_and_none_is_lost(tmp_path):
    store = Store(open_database(sqlite_in(tmp_path)))
    decisions = Decisions(store, lambda: 5.0)
    for number in range(MOST + 500):
        for _ in range(2):
            decisions.made(Call("NextTask", {"role": "site", "name": str(number)}))
    assert logged(store) == []
    assert len(decisions._counts) == MOST + 1
    decisions.flush()
    told = logged(store)
    assert sum(json.loads(entry.detail)["count"] for entry in told) == 2 * (MOST + 500)
    assert json.loads(told[-1].actor) == {"role": "others"}
    store.close()


def test_however_many_poll_denials_and_operators_actions_are_named(tmp_path):
    store = Store(open_database(sqlite_in(tmp_path)))
    decisions = Decisions(store, lambda: 5.0)
    for number in range(MOST + 1):
        decisions.made(Call("NextTask", {"role": "site", "name": str(number)}))
    denied = Call("Start", NORTH)
    denied.refused = NotMember("no operator")
    decisions.made(denied)
    for _ in range(2):  # of a run that is over: nothing changes
        decisions.made(Call("Abort", {"role": "operator", "name": "ada"}))
    told = [(entry.what, json.loads(entry.actor)["name"], json.loads(entry.detail)["count"]) for entry in logged(store)]
    assert told == [("Start", NORTH["name"], 1), ("Abort", "ada", 1), ("Abort", "ada", 1)]
    store.close()


def test_a_call_that_changed_something_is_named_by_its_edge_alone(store):
    decisions, call = Decisions(store, lambda: 5.0), Call("Decline", NORTH)
    CALL.set(call)
    with store.edge() as edge:
        edge.set_away(key_of_nothing(), "north", "LEFT")
    CALL.set(None)
    decisions.made(call)
    decisions.flush()
    assert [(entry.what, json.loads(entry.actor)) for entry in logged(store)] == [("site_left", NORTH)]


def key_of_nothing():
    from deerfield.exchange import Key

    return Key(run="r", incarnation=1, round=0, phase=0)


def test_decisions_wait_for_a_database_that_is_away(tmp_path):
    class Away(Store):
        gone = True

        def edge(self):
            if self.gone:
                raise Unreachable("the database failed: gone")
            return super().edge()

    store = Away(open_database(sqlite_in(tmp_path)))
    decisions, call = Decisions(store, lambda: 5.0), Call("Start", NORTH)
    call.refused = NotAuthenticated("revoked")
    decisions.made(call)
    decisions.flush()
    store.gone = False
    decisions.flush()
    assert [json.loads(entry.detail)["count"] for entry in logged(store)] == [1]
    store.close()
