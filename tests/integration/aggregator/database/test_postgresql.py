"""What only a server of databases has: sessions that it ends, and settings of its own."""

from contextlib import suppress

import pytest

from deerfield.errors import Unreachable
from services.aggregator.sql.database import open_database
from services.aggregator.sql.exclusion import SESSION_LOCK
from services.aggregator.sql.store import Store
from tests.integration.federation import wait_for


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
