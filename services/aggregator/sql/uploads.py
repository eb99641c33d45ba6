"""Announced and sealed updates, as one transaction reads and writes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from deerfield.exchange import Announcement, Key
from deerfield.types import Attestation
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.records import RunRow, UploadRow, attestation_of, manifest_of, to_text
from services.aggregator.sql.tables import of_phase, uploads


class Uploads:
    """`Edge.uploads`: the part of a transaction that is about what sites send."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def get(self, key: Key, site: str) -> UploadRow | None:
        """What a site has announced for a phase."""
        query = select(uploads).where(*of_phase(uploads, key), uploads.c.site == site)
        row = self._connection.execute(query).one_or_none()
        return _upload(row) if row else None

    def put(self, key: Key, site: str, announcement: Announcement) -> None:
        """Keeps an announcement in the place of an earlier, unsealed one."""
        where = (*of_phase(uploads, key), uploads.c.site == site)
        self._connection.execute(uploads.delete().where(*where))
        values = {
            "site": site,
            "manifest": to_text(announcement.manifest),
            "base": announcement.base,
            "attestation": to_text(announcement.attestation),
            "metrics": json.dumps(dict(announcement.metrics)),
            "sealed": False,
        }
        self._connection.execute(insert(uploads).values({**asdict(key), **values}))
        self._changes.note_phase("upload_announced", key, site=site)

    def seal(self, key: Key, site: str) -> None:
        """Seals what a site announced."""
        where = (*of_phase(uploads, key), uploads.c.site == site)
        self._connection.execute(update(uploads).where(*where).values(sealed=True))
        self._changes.note_phase("upload_sealed", key, site=site)

    def announced(self, site: str) -> Sequence[UploadRow]:
        """What a site has announced and not sealed, unless it was let go of."""
        query = select(uploads).where(uploads.c.site == site, uploads.c.sealed.is_(False), uploads.c.held)
        return [_upload(row) for row in self._connection.execute(query)]

    def sealed(self, key: Key) -> Sequence[UploadRow]:
        """The sealed updates of a phase, by site."""
        query = select(uploads).where(*of_phase(uploads, key), uploads.c.sealed).order_by(uploads.c.site)
        return [_upload(row) for row in self._connection.execute(query)]

    def attested(self, run: RunRow) -> Mapping[str, tuple[Attestation, ...]]:
        """What came with the sealed updates of a run, by site, in the order of the phases."""
        query = select(uploads.c.site, uploads.c.attestation).where(uploads.c.run == run.run, uploads.c.sealed)
        found: dict[str, tuple[Attestation, ...]] = {}
        for site, text in self._connection.execute(query.order_by(uploads.c.round, uploads.c.phase)):
            found[site] = (*found.get(site, ()), attestation_of(text))
        return found


def _upload(row: Row[Any]) -> UploadRow:
    announcement = Announcement(
        manifest=manifest_of(row.manifest),
        base=row.base,
        attestation=attestation_of(row.attestation),
        metrics=json.loads(row.metrics),
    )
    return UploadRow(site=row.site, announcement=announcement, sealed=row.sealed)
