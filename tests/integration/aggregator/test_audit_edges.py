"""Every edge that was committed is in the audit log, none that was not, and nobody can change it there."""

import json
import threading

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError

from deerfield.attestation import public_key
from deerfield.errors import BadRequest
from services.aggregator.auditing.audit_chain import Draft
from services.aggregator.auditing.trail import CALL, Call
from services.aggregator.sql.tables import audit
from tests.fakes import run_spec
from tests.integration.aggregator.audited import findings, logged, whats
from tests.integration.aggregator.teaching import sites


def test_a_runs_edges_are_all_in_the_log_and_each_published_phase_signs_it(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", rounds=1), "once")
    both = sites(aggregator, run, "north", "south")
    for _ in "BA":
        for site in both:
            site.step()
        aggregator.coordinator.close_due()
    store, key = aggregator.desk.store, public_key(aggregator.desk.key)
    told = whats(store)
    assert told[:2] == ["run_started", "phase_open"]
    assert [told.count(kind) for kind in ("task_taken", "upload_sealed", "phase_published", "run_finished")] == [
        4, 4, 2, 1
    ]  # fmt: skip
    assert findings(store, key=key) == []
    heads = logged(store, "head")
    assert [json.loads(head.detail)["sequence"] for head in heads] == [head.sequence - 1 for head in heads]
    assert len(heads) == 2
    sealed = next(entry for entry in logged(store) if entry.what == "upload_sealed")
    assert (sealed.run, json.loads(sealed.detail)) == (
        run, {"incarnation": 1, "round": 0, "phase": 0, "site": "north"}
    )  # fmt: skip


def test_a_rolled_back_edge_is_not_in_the_log(store):
    def fails() -> None:
        with store.edge() as edge:
            edge.end_run("r", "ABORTED", "test")
            raise BadRequest("no")

    with pytest.raises(BadRequest):
        fails()
    assert logged(store) == []
    with store.edge() as edge:
        edge.end_run("r", "ABORTED", "test")
    assert whats(store) == ["run_aborted"]


def test_no_entry_can_be_changed_or_deleted_and_none_follows_another_ones_place(store):
    with store.edge() as edge:
        edge.trail.append([Draft(kind="edge", what=word, actor={}, detail={}) for word in ("one", "two")])
    before = logged(store)
    row = {name: getattr(before[0], name) for name in before[0].__dataclass_fields__}
    columns, values = ", ".join(f'"{name}"' for name in row), ", ".join(f":{name}" for name in row)
    tries = [
        (update(audit).values(what="x"), {}),
        (delete(audit).where(audit.c.sequence == 2), {}),
        (text(f"INSERT INTO audit ({columns}) VALUES ({values})"), {**row, "sequence": 3}),
        (text(f"INSERT INTO audit ({columns}) VALUES ({values})"), {**row, "previous": "f" * 64}),
    ]
    if store._engine.dialect.name == "sqlite":
        tries.append((text(f"INSERT OR REPLACE INTO audit ({columns}) VALUES ({values})"), {**row, "what": "x"}))
    else:
        tries.append((text("TRUNCATE audit"), {}))
    for statement, parameters in tries:
        with pytest.raises(DBAPIError, match=r"append-only|unique|UNIQUE"), store._engine.begin() as connection:
            connection.execute(statement, parameters)
    assert logged(store) == before


def test_calls_beside_each_other_make_one_chain_and_each_names_its_own_caller(store):
    def work(name: str) -> None:
        CALL.set(Call("Abort", {"role": "operator", "name": name}))
        for _ in range(20):
            with store.edge() as edge:
                edge.end_run(name, "ABORTED", "test")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert findings(store) == []
    told = logged(store, "edge")
    assert len(told) == 80
    assert all(json.loads(entry.actor)["name"] == entry.run for entry in told)
    assert {json.loads(entry.detail)["call"] for entry in told} == {"Abort"}
