"""Who has ever called, and what they said of themselves when they said Hello."""

from collections.abc import Sequence
from dataclasses import replace

from deerfield.roster import KnownSite, SiteReport
from deerfield.wire import limits
from services.aggregator.desk import Desk


class Roster:
    """The sites of the federation, whatever runs there are."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def greeted(self, site: str, protocol: int, build: str, report: SiteReport) -> None:
        """Keeps what a site said, until it says something else."""
        now = self._desk.clock()
        self._desk.presence.saw(site, now)
        with self._desk.store.edge() as edge:
            edge.roster.put(KnownSite(site=site, protocol=protocol, build=build, report=report, said_at=now))

    def sites(self, after: str) -> Sequence[KnownSite]:
        """The next `limits.SITES_PER_CALL` sites by name behind `after`.

        One that calls and has never said Hello here is among them, without a word: it started under an earlier version
        of the aggregator, or over another database.
        """
        presence = self._desk.presence
        with self._desk.store.edge() as edge:
            found = {each.site: each for each in edge.roster.after(after, limits.SITES_PER_CALL)}
        for site in presence.heard():
            if site > after and len(site) <= limits.NAME_CHARS and site not in found:
                found[site] = KnownSite(site=site, protocol=limits.PROTOCOL, build="", said_at=0.0)
        first = sorted(found)[: limits.SITES_PER_CALL]
        return [replace(found[site], heard_at=presence.last_seen(site, 0.0)) for site in first]
