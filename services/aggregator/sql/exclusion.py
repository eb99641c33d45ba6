"""One aggregator at a time has a database: the next one waits for a lock, and a number shuts out the last one.

The lock ends with the process that holds it: `flock` on a file beside SQLite, an advisory lock of a session in
PostgreSQL. A session may end before its process does (a broken link, a restarted server), so whoever gets the lock also
raises the number in `fence`, and every transaction begins with a look at it.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog
from sqlalchemy import Connection, Engine, delete, insert, select, text
from sqlalchemy.exc import DBAPIError

from deerfield.errors import InvalidInput, Superseded
from services.aggregator.sql.tables import fence

SESSION_LOCK = 0x6465_6572_0001  # "deer": advisory locks of one database are numbers that its programs agree on
PAUSE_S = 0.2

log = structlog.get_logger()


@contextmanager
def locked_file(path: Path, wait: Callable[[Callable[[], bool]], None]) -> Iterator[None]:
    """Holds the lock on a file, which is made where there is none."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput(
            f"database: {path} cannot be made ({error.strerror}); name a file in a folder that this user may write to"
        ) from error
    try:
        wait(lambda: _flock(handle))
        yield
    finally:
        os.close(handle)


class SessionLock:
    """The lock of a session of its own in PostgreSQL; `engine` neither pools nor opens transactions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._held = False

    def take(self) -> bool:
        """Whether this session holds the lock, which is asked for if it does not; raises DBAPIError."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            if self._held:
                self._connection.execute(text("SELECT 1"))  # a session that is gone has no lock
            else:
                ask = text(f"SELECT pg_try_advisory_lock({SESSION_LOCK})")
                self._held = bool(self._connection.execute(ask).scalar_one())
        except DBAPIError:
            self.close()
            raise
        return self._held

    def close(self) -> None:
        """Ends the session, and the lock with it."""
        connection, self._connection, self._held = self._connection, None, False
        if connection is not None:
            with suppress(DBAPIError):  # it is gone already
                connection.close()


def waiting(engine: Engine, where: str, takeover_s: float) -> Callable[[Callable[[], bool]], None]:
    """Waits until what it is given answers yes; raises InvalidInput, naming the holder, after `takeover_s`."""

    def wait(get: Callable[[], bool]) -> None:
        end = time.monotonic() + takeover_s
        if get():
            return
        log.info("waits for another aggregator to end", database=where, holder=_holder(engine), takeover_s=takeover_s)
        while not get():
            if time.monotonic() >= end:
                raise InvalidInput(
                    f"database: {where} is in use by {_holder(engine)}, and still was after {takeover_s:g} s; "
                    "stop that aggregator, or name another database"
                )
            time.sleep(PAUSE_S)

    return wait


def take_over(connection: Connection, now: float) -> int:
    """Writes down who has the database from here on; answers the number that shuts out everybody before."""
    number = (connection.execute(select(fence.c.number)).scalar_one_or_none() or 0) + 1
    connection.execute(delete(fence))
    values = {"number": number, "host": socket.gethostname(), "pid": os.getpid(), "since": now}
    connection.execute(insert(fence).values(values))
    return number


def check_number(connection: Connection, number: int) -> None:
    """Raises Superseded unless `number` is still the newest."""
    row = connection.execute(select(fence)).one_or_none()
    if row is None or row.number != number:
        raise Superseded(
            f"the database was taken over by {_named(row.host, row.pid, row.since) if row else 'nobody known'}; "
            "this aggregator ends"
        )


def _flock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InvalidInput(f"database: its file cannot be locked ({error.strerror}); use a local disk") from error
    return True


def _holder(engine: Engine) -> str:
    try:
        with engine.connect() as connection:
            row = connection.execute(select(fence)).one_or_none()
    except DBAPIError:  # it has only just begun, and has no tables yet
        row = None
    return _named(row.host, row.pid, row.since) if row else "an aggregator that is starting"


def _named(host: str, pid: int, since: float) -> str:
    return f"the aggregator on {host}, process {pid}, since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC"
