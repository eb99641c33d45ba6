"""Databases by URL, and what their failures mean to a person. The aggregator and the MLflow server use it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from deerfield import mounts
from deerfield.endpoint import without_password
from deerfield.errors import InvalidInput

FORMS = "sqlite:////FOLDER/FILE or postgresql://USER@HOST/NAME"
KINDS: dict[str, Literal["sqlite", "postgresql"]] = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
}
CONNECT_S = "10"  # a server that does not answer at all
SILENCE = {  # of libpq: a server whose machine or network is gone is noticed in 25 s
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
USER = "check the user and the password (in the URL, PGPASSWORD or a passfile)"
ADVICE = (  # what the server or the system says: what to do; read in this order
    (r"password|authentication|pg_hba|role \"", USER),
    (r"database \".*\" does not exist", "create it, or name another"),
    (r"permission denied", "let this user create tables in it"),
    (r"read-?only", "name one that this user may write to"),
    (r"not a database", "name another file"),
    (r"full|disk I/O|unable to open", "name a file in a folder with space that this user may write to"),
    (r"locked|lock timeout", "end the other program that is using it"),
)
ELSE = "check the address, and that the server runs and can be reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A database that can be asked for."""

    url: URL
    kind: Literal["memory", "sqlite", "postgresql"]
    where: str  # for people: without the password

    @property
    def file(self) -> Path:
        """Of SQLite: one path, by whatever name it was called."""
        return Path(self.url.database or "").resolve()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Whose database it is."""

    name: str  # as a server sees it
    setting: str  # where its URL stands


AGGREGATOR = Program(name="deerfield-aggregator", setting="the aggregator's --database")


def read_address(text: str, table: Path = mounts.MOUNTS, program: Program = AGGREGATOR) -> Address:
    """The address that a URL stands for; `table` lists the mounted file systems.

    Raises:
        InvalidInput: it is none, of another kind of database, or of SQLite on a network file system.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InvalidInput(f"database: {without_password(text)!r} is no database URL; write {FORMS}") from None
    kind = KINDS.get(url.drivername)
    if kind is None:
        raise InvalidInput(f"database: {url.drivername} is not supported; write {FORMS}")
    return _sqlite(url, table, program) if kind == "sqlite" else _postgresql(url, program)


def check_lasting(text: str) -> None:
    """Raises InvalidInput for a database in memory, and for all that `read_address` refuses."""
    if read_address(text).kind == "memory":
        raise InvalidInput(
            f"database: {text} is a database in memory, which would forget every run; name a file: "
            "sqlite:////FOLDER/FILE"
        )


def sentence(address: Address, error: DBAPIError) -> str:
    """What went wrong, where, and what to do."""
    return f"database: {address.where} cannot be used ({first_line(error)}); {known(error) or ELSE}"


def first_line(error: DBAPIError) -> str:
    """What the server or the system said."""
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


def known(error: DBAPIError) -> str | None:
    """What to do about an error that says what is wrong with the database itself."""
    reason = first_line(error)
    return next((advice for pattern, advice in ADVICE if re.search(pattern, reason)), None)


def _sqlite(url: URL, table: Path, program: Program) -> Address:
    if not url.database or url.database == ":memory:":
        return Address(url=url, kind="memory", where="memory")
    if url.database.startswith("file:"):
        raise InvalidInput(f"database: {url.database} is a URI within a URL; write sqlite:////FOLDER/FILE")
    address = Address(url=url, kind="sqlite", where=url.database)
    if kind := mounts.network(address.file.parent, table):
        raise InvalidInput(
            f"database: {url.database} is on a network file system ({kind}), where a lock may not hold; set "
            f"{program.setting}, or the storage class of its volume, to a local or block disk, or use PostgreSQL"
        )
    return address


def _postgresql(url: URL, program: Program) -> Address:
    if not url.database:
        raise InvalidInput(f"database: {without_password(str(url))} names no database; write {FORMS}")
    host = url.host or url.query.get("host")
    shown = URL.create("postgresql", url.username, None, str(host or "localhost"), url.port, url.database)
    fixed = {"connect_timeout": CONNECT_S, "application_name": program.name, **SILENCE, **url.query}
    return Address(url=url.set(query={**fixed, "client_encoding": "utf8"}), kind="postgresql", where=str(shown))
