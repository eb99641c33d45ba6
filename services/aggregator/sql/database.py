"""Opens the aggregator's database: for this process alone, with today's tables, one transaction after another.

Both databases give the same guarantee: transactions run one at a time, each sees all that the one before has committed,
a commit is on the disk when it returns, and none begins once another aggregator has taken over. SQLite does so by
`BEGIN IMMEDIATE`. PostgreSQL runs them beside each other; its SERIALIZABLE would refuse some at their end, to be tried
again, so here each first takes a lock that it gives back at its end. One aggregator is all the load there is.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

import deerfield
from deerfield.errors import InvalidInput
from services.aggregator.auditing.audit_chain import Draft
from services.aggregator.auditing.trail import AGGREGATOR, Trail
from services.aggregator.sql.exclusion import SessionLock, check_number, locked_file, take_over, waiting
from services.aggregator.sql.keeper import FileKeeper, Keeper, ServerKeeper
from services.aggregator.sql.schema import create, missing, newest
from services.databases import Address, read_address, sentence

BUSY_TIMEOUT_MS = 10_000
IN_MEMORY = "sqlite://"
TAKEOVER_S = 60.0  # longer than the last aggregator needs to end, or a server to notice that its machine is gone
TRANSACTION_LOCK = 0x6465_6572_0002
SESSION = {  # where the server has such a setting
    "lock_timeout": str(BUSY_TIMEOUT_MS),
    "idle_session_timeout": "0",  # the lock's session only waits
    "tcp_keepalives_idle": "10",  # with the next two: in 25 s it lets go of what a machine held that is gone
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
SET = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database, this process' own until it is closed."""

    engine: Engine
    keeper: Keeper
    lacked: Sequence[str] = ()  # the migrations that were done when it was opened, unless it was empty
    close: Callable[[], None]


def open_database(
    url: str,
    takeover_s: float = TAKEOVER_S,
    on_new: Callable[[], object] = lambda: None,
    prepare: Callable[[Connection, str], str | None] = create,
) -> Database:
    """Opens a database, makes its tables, and shuts out whoever had it before.

    `on_new` is called before the tables of an empty one are kept: if it raises, the database stays empty. `prepare`
    is one of `schema`: `create` refuses an older database, `upgrade` brings it to today's tables.

    Raises:
        InvalidInput: it cannot be reached or used, is older or newer than this code or another program's, or belongs
            to an aggregator that has not ended after `takeover_s`.
    """
    address = read_address(url)
    engine = _engine(address)
    try:
        with ExitStack() as stack:
            stack.callback(engine.dispose)
            lock = stack.enter_context(_lock(address, engine, takeover_s))
            stack.callback(engine.dispose)  # before the lock is given back
            with engine.begin() as connection:
                _check_encoding(connection)
                before = prepare(connection, address.where)
                if before is None:
                    on_new()
                number = take_over(connection, time.time())
                lacked = missing(before) if before else []
                migrated = {"from_revision": before, "to_revision": newest(), "migrations": lacked}
                if lacked:
                    Trail(connection, time.time).append([_migration(migrated)])
            if lacked:
                log.info("migrated the database", where=address.where, **migrated)
            event.listen(engine, "begin", partial(check_number, number=number))
            keeper = stack.enter_context(_kept(engine, lock))
            return Database(engine=engine, keeper=keeper, lacked=lacked, close=stack.pop_all().close)
    except DBAPIError as error:
        raise InvalidInput(sentence(address, error)) from error


def _migration(migrated: Mapping[str, Any]) -> Draft:
    """What the audit log says of it, in the very transaction: whoever migrates has shown no certificate."""
    detail = {"host": socket.gethostname(), "pid": os.getpid(), "version": deerfield.__version__, **migrated}
    return Draft(kind="process", what="migrated", actor=AGGREGATOR, detail=detail)


def _engine(address: Address) -> Engine:
    if address.kind == "postgresql":
        # a snapshot for each statement: the first one waits for the lock, the others see what was there by then
        engine = create_engine(address.url, isolation_level="READ COMMITTED", pool_pre_ping=True)
        event.listen(engine, "connect", _prepare_postgresql)
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    memory = address.kind == "memory"
    engine = create_engine(address.url, poolclass=StaticPool) if memory else create_engine(address.url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _lock(address: Address, engine: Engine, takeover_s: float) -> AbstractContextManager[SessionLock | None]:
    if address.kind == "memory":
        return nullcontext()
    wait = waiting(engine, address.where, takeover_s)
    if address.kind == "sqlite":
        return locked_file(address.file.with_name(f"{address.file.name}.lock"), wait)
    session = create_engine(address.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    event.listen(session, "connect", _prepare_postgresql)
    return _locked_session(SessionLock(session), wait)


@contextmanager
def _locked_session(lock: SessionLock, wait: Callable[[Callable[[], bool]], None]) -> Iterator[SessionLock]:
    try:
        wait(lock.take)
        yield lock
    finally:
        lock.close()


@contextmanager
def _kept(engine: Engine, lock: SessionLock | None) -> Iterator[Keeper]:
    if lock is None:
        yield FileKeeper()
        return
    keeper = ServerKeeper(engine, lock)
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # pysqlite must not begin transactions on its own
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # a reader that turns writer halfway would fail, not wait


def _prepare_postgresql(connection: Any, _: object) -> None:
    for name, value in SESSION.items():
        connection.execute(SET, (value, name))
    connection.execute(  # a server may be set to answer before a commit is on its disk
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def _begin_postgresql(connection: Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TRANSACTION_LOCK})")


def _check_encoding(connection: Connection) -> None:
    """Raises InvalidInput where not every text could be kept."""
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise InvalidInput(
                f"database: its encoding is {encoding}; create one with ENCODING 'UTF8' TEMPLATE template0"
            )
