"""Keeps hold of a database: an outage is told once, and a server that comes back is still this process' own.

SQLite has no connection to lose. PostgreSQL has: from the first transaction that lost it on, all others fail at once
rather than wait on the network, while a thread asks for the server. Once it is back, the number in `fence` says whether
another aggregator has taken over, and the lock of the lost session is taken again.
"""

import threading
from typing import Protocol

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from deerfield.errors import NoRoom, Superseded, Unreachable
from services.aggregator.outage import Outage
from services.aggregator.sql.exclusion import SessionLock
from services.aggregator.sql.failures import failure

WATCH_S = 5.0  # between two looks at a session that only holds a lock
FIRST_S, LAST_S = 0.2, 5.0  # between two attempts to reach a server that is away
END_S = 5.0

log = structlog.get_logger()


class Keeper(Protocol):
    """Is told how transactions go, and says whether another one is worth to begin. May be called from any thread."""

    def check(self) -> None:
        """Raises Superseded or Unreachable where a transaction could only fail."""

    def failed(self, error: Unreachable) -> None:
        """A transaction failed."""

    def worked(self, *, wrote: bool) -> None:
        """A transaction was committed."""


class FileKeeper:
    """Of SQLite: every transaction is tried."""

    def __init__(self) -> None:
        self._outage = Outage("database")

    def check(self) -> None:
        """Nothing is known before it is tried."""

    def failed(self, error: Unreachable) -> None:
        """A transaction failed."""
        self._outage.began(error)

    def worked(self, *, wrote: bool) -> None:
        """A transaction was committed; where room was missing, only one that has written shows that there is some."""
        if wrote or not isinstance(self._outage.error, NoRoom):
            self._outage.ended()


class ServerKeeper:
    """Of PostgreSQL; `engine` checks the number in `fence` at the beginning of every transaction."""

    def __init__(self, engine: Engine, lock: SessionLock) -> None:
        self._engine = engine
        self._lock = lock
        self._held = True
        self._room, self._reach = Outage("database"), Outage("database")
        self._superseded = ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)

    def start(self) -> None:
        """Begins to watch the session of the lock."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._wake.set()
        self._thread.join(END_S)

    def check(self) -> None:
        """Raises Superseded once another aggregator has the database, Unreachable while its server is away."""
        if self._superseded:
            raise Superseded(self._superseded)
        if (error := self._reach.error) is not None:
            raise Unreachable(str(error))

    def failed(self, error: Unreachable) -> None:
        """A transaction failed; the next ones wait until the thread has reached the server."""
        if isinstance(error, NoRoom):
            self._room.began(error)
        else:
            self._reach.began(error)
            self._wake.set()

    def worked(self, *, wrote: bool) -> None:
        """A transaction was committed."""
        if wrote:
            self._room.ended()

    def _watch(self) -> None:
        pause_s = FIRST_S
        while True:
            well = self._held and self._reach.error is None
            self._wake.wait(WATCH_S if well else pause_s)
            if self._stop.is_set():
                return
            self._wake.clear()
            try:
                self._reach_server()
                self._lock_again()
            except Superseded as error:
                self._superseded = str(error)
                return
            except DBAPIError as error:
                self._reach.began(failure(error) or Unreachable(f"the database failed: {error.orig}"))
            pause_s = FIRST_S if self._held and self._reach.error is None else min(2 * pause_s, LAST_S)

    def _reach_server(self) -> None:
        with self._engine.begin():  # looks at the number
            pass
        self._reach.ended()

    def _lock_again(self) -> None:
        """Whoever gets the lock instead raises the number before it writes, so that nothing is in danger meanwhile."""
        held = False
        try:
            held = self._lock.take()
        except DBAPIError as error:
            log.debug("the session of the database's lock failed", error=str(error.orig))
        if held != self._held:
            log.info("has the lock of the database again" if held else "has lost the lock of the database")
        self._held = held
