"""The life of a phase: tasks go out, sites answer or drop out, the phase closes, the next one opens.

Driven from one thread, with clocks that are handed in; knows no transport. Each edge of the state machine
OPEN -> COLLECTING -> AGGREGATING -> PUBLISHED is one transaction. A run ends FINISHED, FAILED or ABORTED; a PAUSED
one takes what was handed out before, and nothing else happens to it.
A deadline counts from a phase's last progress, in this process: neither a link that is down for hours nor an
aggregator that is, nor a change of the time of day, uses it up at once.
"""

from collections.abc import Sequence
from dataclasses import replace

from deerfield.budget import charged
from deerfield.errors import RoundClosed, RunEnded, Unreachable
from deerfield.exchange import LIVE, Key, Offer
from services.aggregator.desk import Desk
from services.aggregator.rounds.membership import live, member, open_task
from services.aggregator.rounds.phase import Closed, Closing, fresh_phase
from services.aggregator.rounds.recorder import Recorder, Untracked
from services.aggregator.rounds.summary import failure_reason, phase_summary
from services.aggregator.sql.records import PhaseRow, RunRow, TaskRow, TaskState
from services.aggregator.sql.store import Edge

ANSWERED: frozenset[TaskState] = frozenset({"SEALED", "DECLINED"})  # nothing more to do in this phase


class Coordinator:
    """Hands out tasks and closes phases; a joined site that is silent for `lost_after_s` is lost, until it calls.

    A quorum does not wait for a site that is lost; without it a phase does, until its deadline.
    """

    def __init__(self, desk: Desk, lost_after_s: float) -> None:
        self._desk = desk
        self._lost_after_s = lost_after_s
        self.running: frozenset[str] = frozenset()  # the runs that were running at the last `due`
        self._closing: set[Key] = set()  # handed out by `due`, once that was committed
        self._cut_off = False  # the database was away: nobody could be heard

    def next_task(self, site: str, run: str = "") -> Offer | None:
        """The site's task in `run`, or, with no run named, in the oldest run that has one for it.

        The same task again until it is answered. A site that left or was lost is back with this call.

        Raises:
            UnknownRun, NotMember, RunEnded: only for a run that is named.
        """
        desk = self._desk
        desk.presence.saw(site, desk.clock())
        with desk.store.edge() as edge:
            if run:
                return self._take(edge, live(member(edge, run, site)), site)
            mine = (row for row in edge.runs(*LIVE) if site in row.spec.federation.sites)
            return next((offer for row in mine if (offer := self._take(edge, row, site))), None)

    def heartbeat(self, site: str, key: Key, steps_done: int, steps: int) -> bool:
        """Notes progress; False says that the task is closed for this site. A site that was lost is back with it."""
        desk = self._desk
        desk.presence.saw(site, desk.clock())
        with desk.store.edge() as edge:
            try:
                _, _, task = open_task(edge, key, site)
            except (RoundClosed, RunEnded):
                return False
            if task.away == "LOST":
                edge.set_away(key, site, "")
        waits = task.state not in ANSWERED
        if desk.presence.report(key, site, steps_done, steps) and waits:
            desk.presence.moved(key, desk.clock())
        return waits

    def decline(self, site: str, key: Key, reason: str, detail: str) -> None:
        """Notes that a site will not do its task.

        Raises:
            UnknownRun, NotMember, RunEnded, RoundClosed: there is no such task to refuse.
        """
        desk = self._desk
        desk.presence.saw(site, desk.clock())
        with desk.store.edge() as edge:
            _, _, task = open_task(edge, key, site)
            if task.state not in ANSWERED:
                edge.set_task(key, site, "DECLINED", f"{reason}: {detail}")
                self._happened(edge, key, "declined", site=site, reason=reason, detail=detail)

    def leave(self, site: str, run: str, detail: str) -> None:
        """Notes that a site withdraws: this and later phases do not wait for it, until it asks for a task again."""
        with self._desk.store.edge() as edge:
            row = member(edge, run, site)
            if row.state not in LIVE:
                return
            phase = edge.newest_phase(row)
            task = edge.task(phase.key, site)
            if task is not None and task.away == "LEFT":  # said before, and its answer was lost
                return
            edge.set_away(phase.key, site, "LEFT", detail)
            self._happened(edge, phase.key, "left", site=site, detail=detail)

    def due(self) -> Closing | None:
        """Moves on what time has moved on; answers a phase to `compute` and `publish`, until it is given back once."""
        try:
            with self._desk.store.edge() as edge:
                if self._cut_off:  # as after a restart
                    self._desk.presence.restart()
                running = edge.runs("RUNNING")
                self.running = frozenset(run.run for run in running)
                self._desk.presence.watch_only(self.running)
                found = (closing for run in running if (closing := self._advance(edge, run)))
                closing = next(found, None)
        except Unreachable:
            self._cut_off = True
            raise
        self._cut_off = False
        if closing is not None:
            self._closing.add(closing.key)
        return closing

    def give_back(self, closing: Closing) -> None:
        """Lets `due` answer the phase again: what was computed of it, if anything, was not published."""
        self._closing.discard(closing.key)

    def publish(self, closing: Closing, closed: Closed) -> bool:
        """Publishes what a closing computed, and opens the next phase or finishes the run; answers whether it did.

        After an abort or in a pause it drops it.
        """
        self.give_back(closing)  # first: a transaction that fails is to be computed again
        key, opening, now = closing.key, closed.next, self._desk.clock()
        with self._desk.store.edge() as edge:
            run = edge.run(key.run)
            phase = edge.newest_phase(run)
            if run.state != "RUNNING" or phase.key != key:  # a paused run computes it again when it goes on
                return False
            edge.set_phase(key, "PUBLISHED", opening.state)
            edge.trail.sign(self._desk.key)
            answered = [task for task in closing.tasks if task.state == "SEALED"]
            fetched = sum(task.start.bytes_beyond(edge.held(key, task.site)) for task in answered)
            edge.add_event(
                key.run, "phase_published", phase_summary(closing, closed, fetched, now - phase.opened_at), now
            )
            if opening.tasks:
                successor = Key(
                    run=key.run, incarnation=key.incarnation, round=opening.state.round, phase=opening.state.phase
                )
                fresh = fresh_phase(run.spec, successor, opening, now)
                edge.add_phase(fresh, _carried_over(edge.tasks(key), opening.tasks))
            else:
                edge.end_run(key.run, "FINISHED", "")
        self._desk.presence.forget(key.run)
        return True

    def fail(self, run: str, reason: str) -> None:
        """Ends a run that is not over without its model."""
        with self._desk.store.edge() as edge:
            if edge.run(run).state in LIVE:
                self._fail(edge, run, reason)

    def close_due(self) -> int:
        """Closes, computes and publishes every phase that is due, right here; answers how many.

        For a process without a recorder: nothing is tracked, and run_finished follows the last phase at once.
        """
        count = 0
        while closing := self.due():
            count += self.publish(closing, closing.compute())
        Recorder(self._desk.store, Untracked(), self._desk.clock).drain()
        return count

    def _take(self, edge: Edge, run: RunRow, site: str) -> Offer | None:
        phase = edge.newest_phase(run)
        task = edge.task(phase.key, site)
        if task is not None and task.away:
            edge.set_away(phase.key, site, "")
        if task is None or task.state in ANSWERED or phase.state not in ("OPEN", "COLLECTING"):
            return None
        if task.state != "TAKEN" and run.state == "PAUSED":
            return None
        if task.state != "TAKEN":
            edge.set_task(phase.key, site, "TAKEN")
            self._happened(edge, phase.key, "task_taken", site=site)
            self._desk.presence.moved(phase.key, self._desk.clock())
        if phase.state == "OPEN":
            edge.set_phase(phase.key, "COLLECTING")
        return Offer(
            key=phase.key,
            spec=run.spec,
            factors=task.factors,
            epochs=task.epochs,
            start=task.start,
            restoration=edge.operations.restoration(run.run, run.incarnation),
        )

    def _advance(self, edge: Edge, run: RunRow) -> Closing | None:
        phase = edge.newest_phase(run)
        if phase.state == "AGGREGATING":
            return None if phase.key in self._closing else self._close(edge, run, phase)
        tasks, late = self._mark_lost(edge, phase), self._is_late(run, phase)
        open_tasks = [task for task in tasks if task.state not in ANSWERED and not late]
        coming = [task for task in open_tasks if not task.away]
        lost = [task for task in open_tasks if task.away == "LOST"]  # may come back
        sealed = [task for task in tasks if task.state == "SEALED"]
        quorum = run.spec.federation.quorum or len(tasks)
        if run.spec.privacy.unit == "site":  # what a missing site would have sent is hidden as well as what others did
            waits = bool(coming or lost)
        elif len(sealed) + len(coming) + len(lost) < quorum:
            self._fail(edge, run.run, failure_reason(phase.key, tasks, quorum, run.spec.federation.deadline_s))
            return None
        else:
            waits = bool(coming) or len(sealed) < quorum
        if waits:
            return None
        for task in tasks if late else ():
            if not (task.joined or task.away or task.state in ANSWERED):  # the next phases do not wait for it again
                self._lose(edge, phase, task.site, run.spec.federation.deadline_s)
        return self._close(edge, run, phase)

    def _is_late(self, run: RunRow, phase: PhaseRow) -> bool:
        now = self._desk.clock()
        return now - self._desk.presence.watched(phase.key, now).moved_at >= run.spec.federation.deadline_s

    def _mark_lost(self, edge: Edge, phase: PhaseRow) -> Sequence[TaskRow]:
        """Marks who has been silent for too long; answers the tasks as they are then."""
        now, tasks, lost = self._desk.clock(), edge.tasks(phase.key), False
        since = self._desk.presence.watched(phase.key, now).since
        for task in tasks:
            silent_s = now - self._desk.presence.last_seen(task.site, since)
            if task.joined and not task.away and silent_s > self._lost_after_s:
                self._lose(edge, phase, task.site, silent_s)
                lost = True
        return edge.tasks(phase.key) if lost else tasks

    def _lose(self, edge: Edge, phase: PhaseRow, site: str, silent_s: float) -> None:
        edge.set_away(phase.key, site, "LOST", f"silent for {silent_s:.0f} s")
        self._happened(edge, phase.key, "lost", site=site, silent_s=round(silent_s, 1))

    def _close(self, edge: Edge, run: RunRow, phase: PhaseRow) -> Closing:
        edge.set_phase(phase.key, "AGGREGATING")
        strategy, restores = self._desk.make(run.spec), edge.operations.restores(run.run)
        attested, taken = edge.uploads.attested(run), edge.taken(run)
        return Closing(
            key=phase.key,
            spec=run.spec,
            strategy=strategy,
            before=phase.before,
            tasks=edge.tasks(phase.key),
            sealed=edge.uploads.sealed(phase.key),
            noise_key=phase.noise_key,
            spends=charged(run.spec, strategy.declares, attested, taken, restores),
            uploads=self._desk.uploads,
            published=self._desk.published,
        )

    def _fail(self, edge: Edge, run: str, reason: str) -> None:
        self._desk.presence.forget(run)
        edge.end_run(run, "FAILED", reason)
        edge.add_event(run, "run_failed", {"reason": reason}, self._desk.clock())

    def _happened(self, edge: Edge, key: Key, kind: str, **detail: object) -> None:
        edge.add_event(key.run, kind, {"round": key.round, "phase": key.phase, **detail}, self._desk.clock())


def _carried_over(old: Sequence[TaskRow], planned: Sequence[TaskRow]) -> Sequence[TaskRow]:
    """The new tasks, where sites that are away stay away until they call."""
    before = {task.site: task for task in old}
    return [
        replace(task, joined=was.joined, away=was.away, detail=was.detail if was.away else "")
        for task in planned
        for was in (before[task.site],)
    ]
