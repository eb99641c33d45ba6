"""What every call of a site has in common: the run must exist, know the site, and be open for it."""

from collections.abc import Iterable

from deerfield.errors import NotMember, RoundClosed, RunEnded
from deerfield.exchange import LIVE, Key, Role
from services.aggregator.sql.records import PhaseRow, RunRow, TaskRow
from services.aggregator.sql.store import Edge, Store


def member(edge: Edge, run: str, site: str) -> RunRow:
    """The run.

    Raises:
        UnknownRun, NotMember: there is none, or the site is not one of its sites.
    """
    row = edge.run(run)
    if site not in row.spec.federation.sites:
        raise NotMember(f"{site} is not one of the sites of {run}: {', '.join(row.spec.federation.sites)}")
    return row


def live(row: RunRow) -> RunRow:
    """The run, which may be paused; raises RunEnded if it is over."""
    if row.state not in LIVE:
        raise RunEnded(f"run {row.run} is {row.state}" + (f": {row.reason}" if row.reason else ""))
    return row


def check_readable(store: Store, role: Role, site: str, wanted: Iterable[str]) -> None:
    """Raises NotMember unless the start tensors of the site's own tasks hold every chunk; an operator reads all."""
    if role == "operator":
        return
    if role != "site":
        raise NotMember(f"a caller of role {role} reads no tensors")
    left = set(wanted)
    with store.edge() as edge:
        for start in edge.starts(site):
            left -= start.chunks
            if not left:
                return
    if left:
        raise NotMember(f"{len(left)} chunks are of no task of {site}, {min(left)} among them; ask NextTask")


def open_task(edge: Edge, key: Key, site: str) -> tuple[RunRow, PhaseRow, TaskRow]:
    """The run, the phase and the site's task that `key` names, while updates are taken for it.

    Raises:
        UnknownRun, NotMember, RunEnded: as `member` and `live`.
        RoundClosed: another phase is open, or this one is being aggregated.
    """
    run = live(member(edge, key.run, site))
    phase = edge.newest_phase(run)
    task = edge.task(phase.key, site)
    if phase.key != key or phase.state not in ("OPEN", "COLLECTING") or task is None:
        at, asked = phase.key, key
        raise RoundClosed(
            f"round {asked.round}, phase {asked.phase} (incarnation {asked.incarnation}) is closed; "
            f"round {at.round}, phase {at.phase} (incarnation {at.incarnation}) is {phase.state}"
        )
    return run, phase, task
