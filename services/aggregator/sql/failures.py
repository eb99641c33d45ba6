"""Which errors of a database are troubles that pass, and whether room or the database itself is missing."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from deerfield.errors import NoRoom, Unreachable

SQLITE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHM", "SQLITE_IOERR_TRUNCATE")
POSTGRESQL = ("53100", "25006")  # disk_full, read_only_sql_transaction


def failure(error: DBAPIError) -> Unreachable | None:
    """What an error means to whoever asks again; None: it does not pass, and is a bug."""
    reason = (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]
    name = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or ""
    if name.startswith(SQLITE) or name in POSTGRESQL:
        return NoRoom(f"the database cannot be written ({reason}); make room on its disk, or let it be written")
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return Unreachable(f"the database failed: {reason}")
    return None
