"""The database, of either kind: its tables, who may have it, and what is said when it cannot be used."""

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from math import inf, isinf
from time import monotonic

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, insert, inspect, select

from deerfield.errors import InvalidInput, Superseded, Unreachable
from services.aggregator.sql import schema
from services.aggregator.sql.address import read_address
from services.aggregator.sql.database import IN_MEMORY, open_database
from services.aggregator.sql.exclusion import SESSION_LOCK, take_over
from services.aggregator.sql.store import Store
from services.aggregator.sql.tables import events, heads, metadata, phases, runs
from tests.integration.aggregator.migrating import migrations, newest, upgraded
from tests.integration.federation import wait_for


@pytest.fixture
def url(database, tmp_path):
    return database(tmp_path)


@pytest.fixture
def opened(url):
    found = open_database(url, takeover_s=1)
    yield found
    found.close()


def columns(engine) -> list[str]:
    return [column["name"] for column in inspect(engine).get_columns("runs")]


# --- tables ---


def test_the_migrations_make_exactly_the_tables_of_the_code(opened):
    with opened.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_an_older_database_is_migrated_and_keeps_its_rows(url, tmp_path):
    first = open_database(url)
    row = {"run": "r", "request_id": "q", "incarnation": 1, "spec": "{}", "state": "RUNNING", "started_at": 1.0}
    with first.engine.begin() as connection:
        connection.execute(insert(runs).values(row))
    assert "colour" not in columns(first.engine)
    first.close()
    upgraded(url, migrations(tmp_path))
    engine = create_engine(url)
    assert "colour" in columns(engine)
    with engine.begin() as connection:
        assert connection.execute(select(runs.c.run)).scalar_one() == "r"
    engine.dispose()


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


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(url, tmp_path):
    open_database(url).close()
    later = migrations(tmp_path, "raise RuntimeError('in the middle')")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        engine.dispose()
        engine = open_database(url).engine  # with our way to begin a transaction
    with pytest.raises(RuntimeError, match="in the middle"), engine.begin() as connection:
        schema.upgrade(connection, "here", later)
    assert "colour" not in columns(engine)
    engine.dispose()


def test_a_newer_database_is_refused_by_naming_both_revisions(url, tmp_path):
    open_database(url).close()
    upgraded(url, migrations(tmp_path))
    with pytest.raises(InvalidInput, match=rf"revision 9999, .* up to {newest()}; install the newer version"):
        open_database(url)


def test_another_programs_database_is_refused_and_left_alone(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE patients (id INTEGER)")
    with pytest.raises(InvalidInput, match="holds a table patients and no revision"):
        open_database(url)
    assert inspect(engine).get_table_names() == ["patients"]
    engine.dispose()


# --- the same on both ---


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


# --- one aggregator at a time ---


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


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("nonsense", "'nonsense' is no database URL; write sqlite:"),
        ("postgresql://me:sec/r@et@db:port/x", r"'postgresql://\*\*\*@db:port/x' is no database URL"),
        ("mysql://me:secret@db/x", "mysql is not supported; write sqlite:"),
        ("postgresql+psycopg2://me:secret@db/x", r"postgresql\+psycopg2 is not supported"),
        ("postgresql://me:secret@db", r"postgresql://\*\*\*@db names no database"),
        ("sqlite:///file:x.db?uri=true", "is a URI within a URL"),
        ("sqlite:////no such folder/x.db", r"/no such folder/x.db.lock cannot be made \(No such file"),
        (
            "postgresql://me:secret@no-such-host.invalid/x",
            r"me@no-such-host.invalid/x cannot be used \(.*check the address",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_one_sentence_without_its_password(wrong, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        open_database(wrong, takeover_s=0.1)
    assert "secret" not in str(caught.value)
    assert "sec/r" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"something else\n" * 100)
    with pytest.raises(InvalidInput, match=r"x.db cannot be used \(file is not a database\); name another file"):
        open_database(f"sqlite:///{tmp_path / 'x.db'}")


def test_sqlite_on_a_network_file_system_is_refused_naming_what_to_change(tmp_path):
    table = tmp_path / "mounts"
    table.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/far nfs4 rw 0 0\n")
    assert read_address(f"sqlite:///{tmp_path}/near/x.db", table).file == tmp_path / "near" / "x.db"
    with pytest.raises(InvalidInput, match=r"on a network file system \(nfs4\).*--database"):
        read_address(f"sqlite:///{tmp_path}/far/x.db", table)


def test_a_server_that_cannot_be_used_is_one_sentence(postgres_server):
    name, server = postgres_server.create(), postgres_server
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    for url, said in (
        (server.url(name, "guess"), r"cannot be used \(.*password authentication failed.*check the user and the passw"),
        (server.url("nowhere"), r'cannot be used \(.*database "nowhere" does not exist\); create it'),
        (server.url(name).replace(str(server.port), str(closed)), r"refused.*check the address, and that the server"),
    ):
        with pytest.raises(InvalidInput, match=said) as caught:
            open_database(url)
        assert f"postgresql://deerfield@127.0.0.1:{closed if 'refused' in said else server.port}/" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "guess" not in str(caught.value)
    server.drop(name)


def test_a_database_that_cannot_keep_every_text_is_refused(postgres_server):
    name = postgres_server.create("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(InvalidInput, match="its encoding is LATIN1"):
        open_database(postgres_server.url(name))
    postgres_server.drop(name)


def test_a_server_keeps_no_lock_for_a_machine_that_is_gone_and_answers_once_a_commit_is_on_its_disk(postgres_server):
    name = postgres_server.create()
    with postgres_server.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    opened = open_database(postgres_server.url(name))
    with opened.engine.begin() as connection:
        show = [
            connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
            for setting in ("tcp_keepalives_idle", "lock_timeout", "synchronous_commit", "transaction_isolation")
        ]
    assert show == ["10", "10s", "on", "read committed"]
    opened.close()
    postgres_server.drop(name)


def test_sessions_that_the_server_has_ended_are_made_again_and_the_one_of_the_lock_too(postgres_server):
    name = postgres_server.create()
    opened = open_database(postgres_server.url(name))
    store = Store(opened)
    with store.edge() as edge:
        edge.set_cursor("r", 1)
    with postgres_server.connect() as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with store.edge() as edge:
        assert edge.cursor("r") == 1
    wait_for(lambda: postgres_server.holds(name, SESSION_LOCK), 20)
    opened.close()
    assert not postgres_server.holds(name, SESSION_LOCK)
    postgres_server.drop(name)


def test_a_transaction_whose_session_ends_is_unreachable_and_leaves_nothing(postgres_server):
    name = postgres_server.create()
    opened = open_database(postgres_server.url(name))
    store = Store(opened)
    with pytest.raises(Unreachable, match="the database failed: "), store.edge() as edge:  # noqa: PT012
        edge.set_cursor("r", 2)
        with postgres_server.connect() as connection:
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def cursor() -> bool:
        with suppress(Unreachable), store.edge() as edge:
            return edge.cursor("r") == 0
        return False

    wait_for(cursor, 20)
    opened.close()
    postgres_server.drop(name)


def test_every_edge_of_a_run_is_named_before_and_after_its_commit(tmp_path):
    named = []
    store = Store(open_database(f"sqlite:///{tmp_path / 'a.db'}"), on_edge=named.append)
    with store.edge() as edge:
        edge.end_run("nobody", "ABORTED", "test")
        assert named == []
    store.close()
    assert named == ["run_aborted:before_commit", "run_aborted:after_commit"]
