"""The sites that have ever said Hello, and what each said of itself, as one transaction reads and writes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from deerfield.roster import KnownSite, PopulationReport, SiteReport
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.tables import sites


class Roster:
    """`Edge.roster`: the part of a transaction that is about sites, whatever their runs."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def put(self, known: KnownSite) -> None:
        """Keeps what a site says in the place of what it said before; the same again moves nothing but its time."""
        said: dict[str, Any] = {
            "protocol": known.protocol,
            "build": known.build,
            "report": json.dumps(asdict(known.report), sort_keys=True),
        }
        row = self._connection.execute(select(sites).where(sites.c.site == known.site)).one_or_none()
        self._connection.execute(sites.delete().where(sites.c.site == known.site))
        self._connection.execute(insert(sites).values(site=known.site, said_at=known.said_at, **said))
        if row is None or any(getattr(row, name) != value for name, value in said.items()):
            # by its hash: a site may say so much, and so often, that the log would grow by it without end
            report = sha256(said["report"].encode()).hexdigest()
            number = len(known.report.populations)
            self._changes.note("site_reported", site=known.site, build=known.build, populations=number, report=report)

    def after(self, site: str, limit: int) -> Sequence[KnownSite]:
        """The next `limit` sites by name behind `site`; the first ones behind an empty name."""
        query = select(sites).where(sites.c.site > site).order_by(sites.c.site).limit(limit)
        return [_known(row) for row in self._connection.execute(query)]


def _known(row: Row[Any]) -> KnownSite:
    said: Mapping[str, Any] = json.loads(row.report)
    populations = tuple(PopulationReport(**each) for each in said["populations"])
    return KnownSite(
        site=row.site,
        protocol=row.protocol,
        build=row.build,
        report=SiteReport(populations=populations, complete=said["complete"]),
        said_at=row.said_at,
    )
