"""From a backup into an empty database, in one transaction; every run that was not over gets a new incarnation.

What happened after the backup is lost, but not undone: sites have trained and been charged for it. So the open phase of
each run begins again, as it was when it was opened, under a number that no task ever had; sites are charged for it
anew, and only because an operator has signed for that (`deerfield.restoration`). The noise of the phase is drawn anew
too: the backup does not hold its key, and the same noise on another sum would give both sums away.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select
from sqlalchemy.exc import DBAPIError

from deerfield.central import noise_key
from deerfield.certificates import Credentials
from deerfield.errors import InvalidInput
from deerfield.exchange import LIVE
from deerfield.restoration import sign
from deerfield.revocation import serial_text
from services.aggregator.auditing.trail import CALL, Call
from services.aggregator.backups.archive import Archive, reading
from services.aggregator.backups.backup import LEFT_OUT
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.blobstore.bucket import open_blobs, open_marks
from services.aggregator.blobstore.ownership import take_over
from services.aggregator.sql.database import open_database
from services.aggregator.sql.records import RunRow
from services.aggregator.sql.schema import MIGRATE, newest
from services.aggregator.sql.store import Edge
from services.aggregator.sql.tables import events, identity, metadata
from services.databases import read_address, sentence
from services.objects import Bucket

TAKEOVER_S = 5.0  # an empty database is nobody's
GAP = 1_000_000  # events that may have been seen of what is lost: no number comes twice
BATCH = 500


def restore(archive: Path, database: str, place: Path | Bucket, operator: Credentials, now: datetime) -> dict[str, Any]:
    """Brings a backup into an empty database, and its blobs to `place`, which is taken over from the database that was.

    Answers what is in it, and the new incarnations.

    Raises:
        InvalidInput: the archive is damaged or of another revision, the database is not empty or is in use, the blobs
            belong to a third database, or the caller is no operator.
    """
    if operator.peer.role != "operator":
        raise InvalidInput(f"the certificate is of {operator.peer.uri}; only an operator restores")
    with reading(archive) as found:
        _check(found)
        address = read_address(database)
        opened = open_database(database, TAKEOVER_S)
        try:
            with opened.engine.begin() as connection:
                _check_empty(connection)
                new = connection.execute(select(identity)).scalar_one()
            _, published = open_blobs(place)
            take_over(open_marks(place), place, new, found.manifest["database"])
            _put(found, published)  # before the rows that name them
            with opened.engine.begin() as connection:
                counts = {table.name: _fill(connection, table, found.rows(table.name)) for table in _tables(found)}
                raised = _raise(connection, found.sha256, operator, now)
                _go_on_counting(connection)
        except DBAPIError as error:
            raise InvalidInput(sentence(address, error)) from error
        finally:
            opened.close()
        return {
            "file": str(archive),
            "time": found.manifest["time"],
            "rows": counts,
            "incarnations": raised,
            "aggregator_keys": found.manifest["aggregator_keys"],
        }


def _put(archive: Archive, published: Blobs) -> None:
    try:
        for sha, data in archive.blobs():
            published.put(sha, data)
    except OSError as error:
        raise InvalidInput(f"blobs: they cannot be written ({error.strerror}); name a place with space") from error


def _check(archive: Archive) -> None:
    known = newest()
    if (revision := archive.manifest.get("revision")) != known:
        raise InvalidInput(
            f"the backup's tables are of revision {revision}, and this version of deerfield has {known}; restore it "
            f"with the version that made it, then run {MIGRATE} of the newer one on that database"
        )


def _tables(archive: Archive) -> list[Table]:
    """Those of the archive, in an order in which rows find what they refer to."""
    return [table for table in metadata.sorted_tables if table.name in archive.tables and table.name not in LEFT_OUT]


def _check_empty(connection: Connection) -> None:
    for table in metadata.sorted_tables:
        if table.name not in LEFT_OUT and connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise InvalidInput(
                f"database: it holds rows already ({table.name}), and a restore overwrites nothing; name an empty one"
            )


def _fill(connection: Connection, table: Table, rows: Iterator[dict[str, Any]]) -> int:
    count, batch = 0, []
    for row in rows:
        batch.append({name: _value(value) for name, value in row.items()})
        if len(batch) == BATCH:
            connection.execute(insert(table), batch)
            count, batch = count + len(batch), []
    if batch:
        connection.execute(insert(table), batch)
    return count + len(batch)


def _value(plain: Any) -> Any:
    return bytes.fromhex(plain["hex"]) if isinstance(plain, dict) else plain


def _raise(connection: Connection, sha256: str, operator: Credentials, now: datetime) -> Mapping[str, int]:
    """Opens the open phase of every run that is not over again, under a new incarnation."""
    edge = Edge(connection)
    live = edge.runs(*LIVE)
    # the time, and not the next number: one backup may be restored twice, and no task's name may come twice
    raised = {row.run: max(row.incarnation + 1, int(now.timestamp())) for row in live}
    for row in live:
        _reopen(edge, row, raised[row.run], now.timestamp())
    edge.operations.restored(raised, sign(operator, raised, sha256, now))
    last = connection.execute(select(func.max(events.c.number))).scalar_one() or 0
    said = {"operator": operator.peer.name, "backup": sha256}
    for number, (run, incarnation) in enumerate(raised.items(), last + GAP):
        detail = json.dumps({**said, "incarnation": incarnation}, sort_keys=True)
        told = {"number": number, "run": run, "kind": "run_restored", "detail": detail, "time": now.timestamp()}
        connection.execute(insert(events).values(told))
    _log(edge, operator)
    return raised


def _log(edge: Edge, operator: Credentials) -> None:
    """Writes what the restore has changed behind the restored audit log, and who did it."""
    peer = operator.peer
    whose = {
        "role": peer.role,
        "name": peer.name,
        "federation": peer.federation,
        "serial": serial_text(operator.serial),
    }
    before = CALL.set(Call("restore", whose))
    edge.trail.close(edge.changes.made)
    CALL.reset(before)


def _reopen(edge: Edge, row: RunRow, incarnation: int, now: float) -> None:
    phase = edge.newest_phase(row)
    secret = noise_key() if row.spec.privacy.unit == "site" else None
    key = replace(phase.key, incarnation=incarnation)
    fresh = [replace(task, state="WAITING", away="", detail="") for task in edge.tasks(phase.key)]
    edge.add_phase(replace(phase, key=key, state="OPEN", opened_at=now, noise_key=secret), fresh)


def _go_on_counting(connection: Connection) -> None:
    """Tells PostgreSQL which numbers are taken; SQLite sees them."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            name = connection.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar_one()
            last = connection.execute(select(func.max(column))).scalar_one()
            if name and last:
                connection.execute(select(func.setval(name, last)))
