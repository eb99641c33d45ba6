"""Brings the database of an earlier version to today's tables, in one transaction, while no aggregator has it."""

from typing import Any

from deerfield.errors import InvalidInput
from services.aggregator.sql.database import open_database
from services.aggregator.sql.schema import newest, upgrade
from services.databases import read_address

TAKEOVER_S = 30.0  # longer than a server needs to notice that the last aggregator's machine is gone


def migrate(database: str) -> dict[str, Any]:
    """Migrates a database that is there; answers where it is, its revision now, and the migrations done.

    Raises:
        InvalidInput: it is not there, is empty, newer, or in use, or a migration cannot be done.
    """
    address = read_address(database)

    def refuse() -> None:
        raise InvalidInput(f"database: {address.where} is empty; an aggregator makes its tables when it starts")

    if address.kind == "memory" or (address.kind == "sqlite" and not address.file.is_file()):
        raise InvalidInput(f"database: {address.where} does not exist; name the one that the aggregator uses")
    opened = open_database(database, TAKEOVER_S, refuse, upgrade)
    opened.close()
    return {"where": address.where, "revision": newest(), "migrations": opened.lacked}
