"""Opens the aggregator's database: which engine, and how each connection is prepared."""

from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.pool import StaticPool

from deerfield.errors import InvalidInput
from services.aggregator.tables import metadata

BUSY_TIMEOUT_MS = 10_000
IN_MEMORY = "sqlite://"


def open_database(url: str) -> Engine:
    """An engine with the tables in place; SQLite in WAL mode, each commit on disk when it returns.

    Raises:
        InvalidInput: the database was made by a version that kept other tables.
    """
    sqlite = make_url(url).get_backend_name() == "sqlite"
    engine = create_engine(url, poolclass=StaticPool) if url == IN_MEMORY else create_engine(url)
    if sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    metadata.create_all(engine)
    _check_columns(engine)
    return engine


def _check_columns(engine: Engine) -> None:
    """Refuses at the start what would otherwise fail at the first update."""
    found = inspect(engine)
    for table in metadata.sorted_tables:
        known = {column["name"] for column in found.get_columns(table.name)}
        if missing := sorted(set(table.columns.keys()) - known):
            raise InvalidInput(
                f"database: table {table.name} has no column {missing[0]}, so another version of deerfield made it; "
                "finish its runs with that version, or name a new database"
            )


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # pysqlite must not begin transactions on its own
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # a reader that turns writer halfway would fail, not wait
