"""The newest countersigned head of every site's ledgers, and the key that each site signs with."""

from sqlalchemy import ColumnElement, Connection, insert, select

from deerfield.types import Attestation, Countersigned
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.tables import heads, site_keys


class Heads:
    """`Edge.heads`: the part of a transaction that is about ledgers."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def newest(self, site: str, population: str) -> Countersigned | None:
        """The head that was recorded last, as it was countersigned then."""
        row = self._connection.execute(select(heads).where(*_of(site, population))).one_or_none()
        if row is None:
            return None
        return Countersigned(
            site=row.site,
            population=row.population,
            sequence=row.sequence,
            head=row.head,
            epsilon_after=row.epsilon_after,
            delta_after=row.delta_after,
            aggregator_key=row.aggregator_key,
            signature=row.signature,
        )

    def record(self, receipt: Countersigned, attestation: Attestation, now: float) -> None:
        """Keeps a head in the place of the one before; the caller has checked that it is newer."""
        self._connection.execute(heads.delete().where(*_of(receipt.site, receipt.population)))
        values = {
            "site": receipt.site,
            "population": receipt.population,
            "sequence": receipt.sequence,
            "head": receipt.head,
            "epsilon_after": receipt.epsilon_after,
            "delta_after": receipt.delta_after,
            "aggregator_key": receipt.aggregator_key,
            "signature": receipt.signature,
            "public_key": attestation.public_key,
            "recorded_at": now,
        }
        self._connection.execute(insert(heads).values(values))
        self._changes.note("head_recorded", site=receipt.site, population=receipt.population, sequence=receipt.sequence)

    def pinned(self, site: str) -> str | None:
        """The public key of the site's first attestation."""
        return self._connection.execute(
            select(site_keys.c.public_key).where(site_keys.c.site == site)
        ).scalar_one_or_none()

    def repin(self, site: str, public_key: str, now: float) -> None:
        """Keeps another key of a site from now on; its heads stay."""
        self._connection.execute(site_keys.delete().where(site_keys.c.site == site))
        self._connection.execute(insert(site_keys).values(site=site, public_key=public_key, pinned_at=now))
        self._changes.note("key_repinned", site=site)

    def pin(self, site: str, public_key: str, now: float) -> None:
        """Keeps the key of a site's first attestation; later ones change nothing."""
        if self.pinned(site) is None:
            self._connection.execute(insert(site_keys).values(site=site, public_key=public_key, pinned_at=now))
            self._changes.note("key_pinned", site=site)


def _of(site: str, population: str) -> tuple[ColumnElement[bool], ...]:
    return heads.c.site == site, heads.c.population == population
