"""The database, of either kind: what it keeps, and who may have it."""

import socket
import subprocess
import sys
import threading
from math import inf, isinf
from time import monotonic

import pytest
from sqlalchemy import create_engine, insert, inspect, select

from deerfield.errors import InvalidInput, Superseded
from services.aggregator.sql.database import IN_MEMORY, open_database
from services.aggregator.sql.exclusion import take_over
from services.aggregator.sql.store import Store
from services.aggregator.sql.tables import events, heads, phases, runs


def test_a_new_database_that_is_not_wanted_stays_empty(url):
    def refuse() -> None:
        raise InvalidInput("not here")

    for _ in range(2):  # nor does the second start find it used
        with pytest.raises(InvalidInput, match="not here"):
            open_database(url, on_new=refuse)
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    open_database(url).close()
    open_database(url, on_new=refuse).close()


def test_numbers_bytes_and_texts_come_back_as_they_were(opened):
    with opened.engine.begin() as connection:
        row = {"incarnation": 2**32 - 1, "spec": "ä\n🦌", "state": "RUNNING", "started_at": 0.1}
        connection.execute(insert(runs).values(run="r", request_id="q", **row))
        start = {"state": "OPEN", "opened_at": 1e300, "before": "{}", "noise_key": bytes(range(32))}
        connection.execute(insert(phases).values(run="r", incarnation=2**32 - 1, round=2**40, phase=1, **start))
        head = {"head": "", "delta_after": 1e-308, "aggregator_key": "", "signature": "", "public_key": ""}
        place = {"population": "p", "sequence": 2**53, "recorded_at": 0.0}
        connection.execute(insert(heads).values(site="s", epsilon_after=inf, **place, **head))
    with opened.engine.begin() as connection:
        assert connection.execute(select(runs.c.spec, runs.c.incarnation)).one() == ("ä\n🦌", 2**32 - 1)
        assert connection.execute(select(phases.c.noise_key, phases.c.round)).one() == (bytes(range(32)), 2**40)
        found = connection.execute(select(heads)).one()
        assert (isinf(found.epsilon_after), found.delta_after, found.sequence) == (True, 1e-308, 2**53)


def test_names_are_in_the_order_of_their_bytes(opened):
    names = ["b", "A", "a-b", "B", "a", "ab"]
    with opened.engine.begin() as connection:
        for name in names:
            row = {"incarnation": 1, "spec": "", "state": "RUNNING", "started_at": 0.0}
            connection.execute(insert(runs).values(run=name, request_id=name, **row))
        assert list(connection.execute(select(runs.c.run).order_by(runs.c.run)).scalars()) == sorted(names)


def test_events_are_numbered_upwards_and_no_number_comes_twice(opened):
    store = Store(opened)
    for _ in range(2):
        with store.edge() as edge:
            edge.add_event("r", "kind", {}, 0.0)
    with opened.engine.begin() as connection:
        connection.execute(events.delete().where(events.c.number == 2))
    with store.edge() as edge:
        edge.add_event("r", "kind", {}, 0.0)
        assert [event.number for event in edge.events(0)] == [1, 3]
        assert edge.events(2**64 - 1) == []


def test_transactions_run_one_after_another(opened):
    store, inside, most = Store(opened), [], []

    def count() -> None:
        for _ in range(10):
            with store.edge() as edge:
                inside.append(1)
                edge.set_cursor("r", edge.cursor("r") + 1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(most) == 1
    with store.edge() as edge:
        assert edge.cursor("r") == 40


def test_a_second_aggregator_waits_and_then_names_the_holder(opened, url):
    begun = monotonic()
    with pytest.raises(
        InvalidInput, match=rf"is in use by the aggregator on {socket.gethostname()}, process \d+, since"
    ):
        open_database(url, takeover_s=0.5)
    assert 0.5 <= monotonic() - begun < 10


def test_a_second_aggregator_goes_on_as_soon_as_the_first_has_ended(opened, url):
    threading.Timer(0.5, opened.close).start()
    begun = monotonic()
    open_database(url, takeover_s=30).close()
    assert monotonic() - begun < 10


def test_whoever_has_lost_the_database_writes_nothing_more(opened):
    store, other = Store(opened), create_engine(opened.engine.url)
    with other.begin() as connection:  # as when the lock went with a broken link, and another one got it
        assert take_over(connection, 0.0) == 2
    other.dispose()
    with pytest.raises(Superseded, match=r"taken over by the aggregator on .*, since 1970-01-01"), store.edge() as edge:
        edge.set_cursor("r", 1)


def test_the_lock_ends_with_its_process(url):
    code = f"import os; from services.aggregator.sql.database import open_database as o; d = o({url!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    open_database(url, takeover_s=5).close()


def test_a_database_in_memory_is_nobody_elses():
    first, second = open_database(IN_MEMORY), open_database(IN_MEMORY)
    first.close()
    second.close()


def test_every_edge_of_a_run_is_named_before_and_after_its_commit(tmp_path):
    named = []
    store = Store(open_database(f"sqlite:///{tmp_path / 'a.db'}"), on_edge=named.append)
    with store.edge() as edge:
        edge.end_run("nobody", "ABORTED", "test")
        assert named == []
    store.close()
    assert named == ["run_aborted:before_commit", "run_aborted:after_commit"]
