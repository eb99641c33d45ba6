"""Updates that were refused: written down once for each site, phase and reason, and the phase goes on without them."""

from collections.abc import Iterator
from contextlib import contextmanager

from deerfield.errors import (
    ChunksMissing,
    NotMember,
    Refusal,
    RunEnded,
    UnknownRun,
)
from deerfield.exchange import LIVE, Key
from services.aggregator.desk import Desk

# no update of this run: of nobody, or of nothing that is open; or one that is still on its way
SILENT = (NotMember, UnknownRun, RunEnded, ChunksMissing)
MOST = 4096  # refusals that are remembered here; the database remembers all


class Refused:
    """Keeps the event `update_refused`; any thread may use it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._known: set[tuple[Key, str, str]] = set()  # written down already: a flood of equal ones costs a look

    @contextmanager
    def noted(self, site: str, key: Key, *, declines: bool = False) -> Iterator[None]:
        """Writes a refusal within the block down; one that `declines` is the site's answer to its task."""
        try:
            yield
        except Refusal as refusal:
            if not isinstance(refusal, SILENT) and (declines or (key, site, refusal.reason) not in self._known):
                self._note(site, key, refusal, declines=declines)
                if len(self._known) >= MOST:
                    self._known.clear()
                self._known.add((key, site, refusal.reason))
            raise

    def _note(self, site: str, key: Key, refusal: Refusal, *, declines: bool) -> None:
        with self._desk.store.edge() as edge:
            run = edge.run(key.run)
            if run.state not in LIVE or site not in run.spec.federation.sites:
                return
            phase = edge.newest_phase(run)
            at, task = phase.key, edge.task(phase.key, site)
            is_open = at == key and task is not None and task.state in ("WAITING", "TAKEN")
            if declines and is_open and phase.state in ("OPEN", "COLLECTING"):
                edge.set_task(key, site, "DECLINED", f"{refusal.reason}: {refusal}")
            # of the phase that is open, whatever the call was about: a caller could name any number of others
            detail = {"round": at.round, "phase": at.phase, "site": site, "reason": refusal.reason}
            if not edge.has_event(run.run, "update_refused", detail):
                edge.changes.note_phase("update_refused", at, site=site, reason=refusal.reason)
                edge.add_event(run.run, "update_refused", detail, self._desk.clock())
