"""A backup while the aggregator runs: all rows as they are in one instant, then the published blobs that they name.

It takes no lock, writes nothing to the database, and stops nobody: one read transaction sees one state of it (SQLite:
WAL; PostgreSQL: REPEATABLE READ). Blobs are named by their content and stay for `gc_grace` after no row names them any
more, so they are read after the rows.

Left out, on purpose: the keys of noise, which would undo the noise of what a phase publishes later; what sites have
sent, which under unit site is not noised yet; and the fence, which is about a process. A restore does the open phase
again, so that none of them is missed. Which database it is stands in the manifest: a restored one is another.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Table, create_engine, event, select
from sqlalchemy.exc import DBAPIError

from deerfield.errors import ChunksMissing, InvalidInput, Unreachable
from services.aggregator.backups.archive import Writer, writing
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.sql.attachments import Attachments
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.records import StateRecord, manifest_of, state_of
from services.aggregator.sql.schema import newest
from services.aggregator.sql.tables import fence, heads, identity, metadata, phases, runs, tasks
from services.databases import Address, read_address, sentence

LEFT_OUT = (fence.name, identity.name)
BATCH = 500  # rows in memory
SECRET = (phases.c.noise_key,)


def backup(out: Path, database: str, published: Blobs) -> dict[str, Any]:
    """Writes a backup of `database` and of the `published` blobs to `out`; answers what is in it.

    Raises:
        InvalidInput: the database cannot be read or is not of this code's revision, a blob is missing, or `out` cannot
            be written.
    """
    address = read_address(database)
    try:
        with _snapshot(address) as connection:
            about = _about(connection)
            counts: dict[str, int] = {}
            with writing(out, about) as writer:
                for table in metadata.sorted_tables:
                    if table.name not in LEFT_OUT:
                        counts[table.name] = writer.rows(table.name, _rows(connection, table))
                blobs = _copy(*_named(connection), published, writer)
    except DBAPIError as error:
        raise InvalidInput(sentence(address, error)) from error
    return {"file": str(out), **about, "rows": counts, "blobs": blobs, "bytes": out.stat().st_size}


@contextmanager
def _snapshot(address: Address) -> Iterator[Connection]:
    if address.kind == "postgresql":
        engine = create_engine(address.url, isolation_level="REPEATABLE READ")
        begin = "SET TRANSACTION READ ONLY"
    elif address.kind == "sqlite" and address.file.is_file():
        engine = create_engine(address.url)
        event.listen(engine, "connect", _prepare_sqlite)
        begin = "BEGIN"
    else:
        raise InvalidInput(f"database: {address.where} does not exist; name the one that the aggregator uses")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(begin)
            yield connection
            connection.rollback()
    finally:
        engine.dispose()


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")


def _about(connection: Connection) -> dict[str, Any]:
    found, known = MigrationContext.configure(connection).get_current_revision(), newest()
    if found != known:
        raise InvalidInput(
            f"database: its tables are of revision {found or 'none'}, and this version of deerfield writes backups of "
            f"{known}; use the version that the aggregator has"
        )
    keys = connection.execute(select(heads.c.aggregator_key).distinct()).scalars()
    which = connection.execute(select(identity)).scalar_one()
    when = datetime.now(UTC).isoformat()
    return {"revision": found, "database": which, "time": when, "aggregator_keys": sorted(keys)}


def _rows(connection: Connection, table: Table) -> Iterator[Mapping[str, Any]]:
    secret = {column.name for column in SECRET if column.table is table}
    rows = connection.execute(select(table).order_by(*table.primary_key), execution_options={"yield_per": BATCH})
    for row in rows.mappings():
        yield {name: None if name in secret else _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _named(connection: Connection) -> tuple[set[str], set[str]]:
    """(chunks that a restored run cannot do without, all chunks of published states and start tensors)."""
    every: set[str] = set()
    last: dict[tuple[str, int], StateRecord] = {}  # by run and incarnation: its newest state
    order = (phases.c.run, phases.c.incarnation, phases.c.round, phases.c.phase)
    columns = (phases.c.run, phases.c.incarnation, phases.c.before, phases.c.after)
    for row in connection.execute(select(*columns).order_by(*order), execution_options={"yield_per": BATCH}):
        states = [state_of(text) for text in (row.before, row.after) if text]
        last[row.run, row.incarnation] = states[-1]
        every = every.union(*map(_chunks, states))
    for start in connection.execute(select(tasks.c.start).distinct(), execution_options={"yield_per": BATCH}).scalars():
        every |= manifest_of(start).chunks
    current = connection.execute(select(runs.c.run, runs.c.incarnation)).all()
    needed = {each.sha256 for each in Attachments(connection, Changes()).waiting()}
    needed = needed.union(*(_chunks(last[run, incarnation]) for run, incarnation in current))
    return needed, every | needed


def _chunks(state: StateRecord) -> set[str]:
    return set(state.shared.chunks).union(*(own.chunks for own in state.personal.values()))


def _copy(needed: set[str], every: set[str], published: Blobs, writer: Writer) -> int:
    """Adds the blobs; what retention has removed of older states is not missed."""
    count = 0
    for sha in sorted(every):
        try:
            data = published.get(sha)
        except ChunksMissing:
            if sha in needed:
                raise InvalidInput(
                    f"blobs: {sha} is named by the database and is not here; name the blobs of this database"
                ) from None
            continue
        except Unreachable as error:
            raise InvalidInput(f"blobs: {error}") from error
        writer.blob(sha, data)
        count += 1
    return count
