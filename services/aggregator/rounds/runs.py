"""What an operator may do with runs: start, look at, follow, pause, abort, and hand in evaluations."""

from collections.abc import Iterator, Mapping, Sequence

import structlog

from deerfield.errors import BadRequest, InvalidInput, TooBusy
from deerfield.exchange import LIVE, Event, Key, RunView, run_id
from deerfield.runspec import RunSpec
from deerfield.strategy import completed
from deerfield.wire import limits
from deerfield.wire.checks import at_most
from services.aggregator.bounds import Bounds
from services.aggregator.desk import Desk
from services.aggregator.rounds.beginning import beginning
from services.aggregator.rounds.membership import live
from services.aggregator.rounds.phase import fresh_phase, open_phase
from services.aggregator.rounds.startable import check_run, check_size
from services.aggregator.sql.records import RunRow, StateRecord
from services.aggregator.sql.store import Edge

INCARNATION = 1  # of a run that was never restored from a backup
REQUEST_ID_CHARS = 256

log = structlog.get_logger()


class Runs:
    """The operator's side of the aggregator."""

    def __init__(self, desk: Desk, bounds: Bounds) -> None:
        self._desk = desk
        self._bounds = bounds

    def start(self, spec: RunSpec, request_id: str) -> str:
        """Creates a run with its first phase, and names it; the same request_id again is the same run.

        Raises:
            InvalidInput: the run cannot be run, or the request_id was used for another one.
            BadRequest: no request_id.
            TooLarge, TooBusy: it has more sites or tensors than are taken, or too many runs are running.
        """
        if not 0 < len(request_id) <= REQUEST_ID_CHARS or "\0" in request_id:
            raise BadRequest(f"a request_id has 1 to {REQUEST_ID_CHARS} characters and no NUL, not {request_id[:40]!r}")
        at_most(len(spec.federation.sites), self._bounds.sites, "sites in a run")
        strategy = self._desk.make(spec)
        check_size(spec.adapter, max(1, len(strategy.declares.models)))
        spec = completed(spec, strategy.declares)
        with self._desk.store.edge() as edge:
            if known := edge.run_of_request(request_id):
                return _same(known, spec)
            self._check_room(edge)
        check_run(spec, strategy.declares)
        state = strategy.init(beginning(self._desk, spec, strategy.declares))
        opening = open_phase(strategy, state, spec.federation.sites, self._desk.published)
        run, now = run_id(spec.name, request_id), self._desk.clock()
        key = Key(run=run, incarnation=INCARNATION, round=opening.state.round, phase=opening.state.phase)
        with self._desk.store.edge() as edge:
            if known := edge.run_of_request(request_id):  # another Start came first
                return _same(known, spec)
            self._check_room(edge)
            edge.add_run(_opened(spec, run, request_id, now))
            edge.add_phase(fresh_phase(spec, key, opening, now), opening.tasks)
            edge.add_event(run, "run_started", _started(spec, opening.state.shared.digest), now)
        return run

    def _check_room(self, edge: Edge) -> None:
        if (running := len(edge.runs("RUNNING"))) >= self._bounds.runs:
            raise TooBusy(
                f"{running} runs are running; the limit is {self._bounds.runs}: wait for one, or pause or abort one", 30
            )

    def get(self, run: str, published: tuple[int, int] | None = None) -> RunView:
        """One run with its newest state, or with the one that the (round, phase) `published`.

        Raises:
            UnknownRun: there is no such run.
            BadRequest: the phase has published nothing.
        """
        with self._desk.store.edge() as edge:
            row = edge.run(run)
            return _view(edge, row, _published(edge, row, *published) if published else _newest(edge, row))

    def list(self, after: str = "", count: int = limits.RUNS_PER_CALL) -> Iterator[RunView]:
        """The `count` oldest runs, or the next ones behind `after`, each as it is at its turn; raises UnknownRun."""
        with self._desk.store.edge() as edge:
            names = edge.runs_after(after, count)
        for name in names:
            yield self.get(name)

    def abort(self, run: str, reason: str) -> RunView:
        """Ends a run in whatever state it is; one that has ended stays as it is. Raises UnknownRun."""
        with self._desk.store.edge() as edge:
            if edge.run(run).state in LIVE:
                edge.end_run(run, "ABORTED", reason)
                edge.add_event(run, "run_aborted", {"reason": reason}, self._desk.clock())
            row = edge.run(run)
            view = _view(edge, row, _newest(edge, row))
        self._desk.presence.forget(run)
        return view

    def pause(self, run: str, reason: str) -> RunView:
        """Stops a run's clock; of one that is paused already nothing changes.

        Raises:
            UnknownRun, RunEnded: there is nothing to pause.
        """
        with self._desk.store.edge() as edge:
            if live(edge.run(run)).state == "RUNNING":
                edge.operations.pause(run, now := self._desk.clock())
                edge.add_event(run, "run_paused", {"reason": reason}, now)
            return _view(edge, row := edge.run(run), _newest(edge, row))

    def resume(self, run: str) -> RunView:
        """Lets a paused run go on; its deadline begins anew. One that runs stays as it is.

        Raises:
            UnknownRun, RunEnded: there is nothing to resume.
            TooBusy: too many runs are running; it stays paused.
        """
        with self._desk.store.edge() as edge:
            row, now = live(edge.run(run)), self._desk.clock()
            if row.state == "PAUSED":
                self._check_room(edge)
                paused_s = edge.operations.resume(row, edge.newest_phase(row).key, now)
                edge.add_event(run, "run_resumed", {"paused_s": round(paused_s, 1)}, now)
            return _view(edge, row := edge.run(run), _newest(edge, row))

    def repin(self, site: str, public_key: str, reason: str) -> str:
        """Takes another signing key of a site from now on; answers the one before, empty where there was none.

        Each run of the site that is not over has the event site_repinned.
        """
        with self._desk.store.edge() as edge:
            before = edge.heads.pinned(site) or ""
            if before != public_key:
                edge.heads.repin(site, public_key, now := self._desk.clock())
                detail = {"site": site, "before": before, "public_key": public_key, "reason": reason}
                for row in edge.runs(*LIVE):
                    if site in row.spec.federation.sites:
                        edge.add_event(row.run, "site_repinned", detail, now)
        log.info("site's key was pinned anew", site=site, before=before, public_key=public_key, reason=reason)
        return before

    def evaluated(self, run: str, round: int, phase: int, metrics: Mapping[str, float]) -> None:
        """Writes metrics of a published phase down, once.

        Raises:
            UnknownRun: there is no such run.
            BadRequest: the phase has published nothing.
        """
        with self._desk.store.edge() as edge:
            _published(edge, edge.run(run), round, phase)
            detail = {"round": round, "phase": phase, "metrics": dict(metrics)}
            if not edge.has_event(run, "evaluated", detail):
                edge.add_event(run, "evaluated", detail, self._desk.clock())
                edge.changes.note("evaluated", run, round=round, phase=phase, metrics=dict(metrics))

    def events(self, run: str, after: int) -> Sequence[Event]:
        """What has happened to a run since the event `after`; raises UnknownRun."""
        with self._desk.store.edge() as edge:
            edge.run(run)
            return edge.events(after, run)

    def newest(self, run: str) -> int:
        """The number of the last event of a run; raises UnknownRun."""
        with self._desk.store.edge() as edge:
            edge.run(run)
            return edge.newest_event(run)

    def is_over(self, run: str, after: int) -> bool:
        """Whether the run's last event is among those up to `after`."""
        with self._desk.store.edge() as edge:
            ending = edge.ending(run)
        return ending is not None and ending <= after

    def progress(self, run: str) -> Sequence[Event]:
        """How far each site is that has reported on the open phase; these events are not kept."""
        now = self._desk.clock()
        return [
            Event(
                number=0,
                run=run,
                kind="progress",
                detail={"site": site, "steps_done": steps_done, "steps": steps},
                time=now,
            )
            for site, (steps_done, steps) in sorted(self._desk.presence.progress(run).items())
        ]


def _same(known: RunRow, spec: RunSpec) -> str:
    if known.spec != spec:
        raise InvalidInput(f"this request_id started {known.run}, which is another run; choose a new one")
    return known.run


def _opened(spec: RunSpec, run: str, request_id: str, now: float) -> RunRow:
    return RunRow(
        run=run,
        request_id=request_id,
        incarnation=INCARNATION,
        spec=spec,
        state="RUNNING",
        reason="",
        started_at=now,
    )


def _started(spec: RunSpec, digest: str) -> Mapping[str, object]:
    return {
        "name": spec.name,
        "strategy": spec.strategy["name"],
        "sites": list(spec.federation.sites),
        "spec_sha256": spec.sha256,
        "digest": digest,
    }


def _newest(edge: Edge, row: RunRow) -> StateRecord:
    phase = edge.newest_phase(row)
    return edge.published(phase.key) or phase.before


def _published(edge: Edge, row: RunRow, round: int, phase: int) -> StateRecord:
    state = edge.published(Key(run=row.run, incarnation=row.incarnation, round=round, phase=phase))
    if state is None:
        raise BadRequest(f"round {round}, phase {phase} of {row.run} has published nothing")
    return state


def _view(edge: Edge, row: RunRow, state: StateRecord) -> RunView:
    newest = edge.newest_phase(row)
    return RunView(
        run=row.run,
        state=row.state,
        reason=row.reason,
        spec=row.spec,
        round=state.round,
        phase=state.phase,
        model=state.shared,
        personal=state.personal,
        incarnation=row.incarnation,
        started_at=row.started_at,
        phase_state=newest.state,
        sites={task.site: task.away or task.state for task in edge.tasks(newest.key)},
    )
