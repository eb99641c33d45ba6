"""One hospital's side of a run: check, train, release, and only then let anything out.

Knows no transport, model or file: it is given a link to the aggregator and a way to build a workbench.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog
from structlog.contextvars import bound_contextvars

from deerfield.errors import (
    BudgetExhausted,
    DeerfieldError,
    EngineFault,
    InvalidInput,
    LedgerFault,
    LedgerUnusable,
    NotMapped,
    NotRestored,
    Refusal,
    RoundClosed,
    RunEnded,
)
from deerfield.ledger.account import Reservation
from deerfield.link import Assignment, Link
from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors
from deerfield.types import Countersigned, Update

HEARTBEAT_S = 5.0
log = structlog.get_logger()

FITS_NOT = "the update does not fit what the run asks for; see the site's log"
DECLINED = {  # all that the aggregator learns: one fixed sentence for each reason
    "ALREADY_SEALED": "this site has answered this task once, and answers no task twice",
    "BUDGET_EXHAUSTED": "the run or the task is beyond what is left of this population's budget",
    "ENGINE_FAULT": "the check of the clipping engine failed; see the site's log",
    "LEDGER_BEHIND": "this site's ledger lacks an entry that the aggregator has seen; its operator must reconcile it",
    "LEDGER_UNUSABLE": "this site's ledger cannot be read or written; its operator must look at the site's log",
    "NORM_TOO_LARGE": "the update is longer than the run allows",
    "NO_MACHINE": "this site got no machine to train on, or lost it before the task was done",
    "NOT_FINITE": "training at this site gave numbers that are not finite; lower the learning rates",
    "NOT_MAPPED": "this site's policy, model or data do not fit what the run names; see the site's log",
    "POLICY_REFUSED": "this site's policy does not allow what the run asks for; see the site's log",
    "ROUND_CLOSED": "the phase closed before this site was done, and it answers no task twice",
    "STALE_BASE": "the task's start tensors have changed since this site was given them",
    "TOO_LARGE": "the update is larger than the aggregator takes",
    **dict.fromkeys(("UNKNOWN_TENSOR", "WRONG_SHAPE", "WRONG_DTYPE"), FITS_NOT),
}
OTHERWISE = "this site cannot do the task; see the site's log"
NO_WORD = (
    "this site takes a run that was restored from a backup only with the word of an operator whose certificate it can "
    "check; see the site's log"
)
FAILED = "the site failed; see its log"

OnStep = Callable[[int, int], None]  # (steps done, steps of the task)


class Workbench(Protocol):
    """A run's model and data at this site: built once, used for every phase.

    Implementers read no example before `release` is called; a site calls `check`, charges, then calls `release`, and
    `done` whatever happened. While they work or wait they call `on_step`, which raises once the phase has closed.
    """

    def check(self, assignment: Assignment, on_step: OnStep) -> None:
        """Raises EngineFault if the engine would not train what the task says, NoMachine if there is none to do it."""

    def release(self, assignment: Assignment, reservation: Reservation, on_step: OnStep) -> Tensors:
        """What the strategy releases after training whose every step went through the mechanism that was reserved."""
        ...

    def done(self) -> None:
        """Gives up what `check` and `release` have taken for the task; its update, if there is one, is committed."""

    def metrics(self) -> Mapping[str, float]:
        """What the policy lets out about the last phase, beyond the release; what it costs is reserved with the run."""
        ...


class Account(Protocol):
    """A run's dealings with this site's ledger. Implementers guarantee that what returned survives a crash."""

    def check_head(self, record: Countersigned | None) -> None:
        """Raises LedgerBehind if the aggregator has seen an entry that the ledger does not hold."""

    def stored(self, assignment: Assignment) -> Update | None:
        """The update that was committed for a task: the only one that may ever be sent for it."""
        ...

    def confirmed(self, receipt: Countersigned) -> None:
        """Keeps the aggregator's word on the head that an update was sealed with."""

    def reserve(self, assignment: Assignment) -> Reservation:
        """Charges a task before a record is read; raises BudgetExhausted or AlreadySealed."""
        ...

    def commit(
        self, reservation: Reservation, assignment: Assignment, delta: Tensors, metrics: Mapping[str, float]
    ) -> Update:
        """Stores what was made under a reservation, and answers what may now be sent."""
        ...


@dataclass
class Site:
    """Answers tasks until the run ends."""

    name: str
    link: Link
    account: Callable[[str, int, RunSpec], Account]  # (run, incarnation, its terms); refuses before anything is read
    build: Callable[[RunSpec], Workbench]  # raises NotMapped or InvalidInput before anything is read
    leaves: bool = False  # a run that its budget does not cover, instead of declining task by task
    beats: bool = True
    beat_s: float = HEARTBEAT_S
    _runs: dict[tuple[str, int], "_Run"] = field(default_factory=dict)
    _answered: dict["_Key", str] = field(default_factory=dict)  # the reason to decline each if it is handed out again

    def serve(self) -> None:
        """Works until the aggregator says that the run has ended."""
        while True:
            try:
                self.step()
            except RunEnded as ended:
                log.info("run ended", site=self.name, reason=str(ended))
                return

    def step(self) -> bool:
        """Answers at most one task; False if there was none.

        Raises:
            RunEnded: the run is over.
        """
        assignment = self.link.next_task()
        if assignment is None:
            return False
        with bound_contextvars(run=assignment.run, round=assignment.task.round, phase=assignment.task.phase):
            if (reason := self._answered.get(_key(assignment))) is not None:
                self._decline(assignment, reason, "handed out again")
            else:
                self._work(assignment)
        return True

    def _work(self, assignment: Assignment) -> None:
        """Answers a task once, by an update or by a reason why not."""
        try:
            update = self._answer(assignment)
        except RoundClosed as closed:
            self._answered[_key(assignment)] = closed.reason
            log.warning("phase closed before this site was done", site=self.name, reason=str(closed))
        except BudgetExhausted as exhausted:
            self._decline(assignment, exhausted.reason, str(exhausted))
            if self.leaves:
                self.link.leave(assignment.run, DECLINED[exhausted.reason])
                raise RunEnded(f"this site has left run {assignment.run}: {exhausted}") from exhausted
        except NotRestored as refusal:
            self._decline(assignment, refusal.reason, str(refusal), NO_WORD)
        except Refusal as refusal:
            self._decline(assignment, refusal.reason, str(refusal))
        except InvalidInput as error:
            reason = LedgerUnusable.reason if isinstance(error, LedgerFault) else NotMapped.reason
            with suppress(DeerfieldError):  # whatever becomes of the answer, this site cannot go on
                self._decline(assignment, reason, str(error))
            raise
        except Exception as error:  # not to go on, but to say so: others would wait for this site until the deadline
            with suppress(DeerfieldError):
                self._decline(assignment, EngineFault.reason, type(error).__name__, FAILED)
            raise  # its traceback goes to the site's log
        else:
            self._send(assignment, update)

    def _answer(self, assignment: Assignment) -> Update:
        """The update of a task: the stored one if there is one, else reserved, trained, stored and committed."""
        with self._progress(assignment) as on_step:
            run = self._run(assignment)
            if (stored := run.account.stored(assignment)) is not None:
                log.info("sends the stored update again", site=self.name)
                return stored
            run.account.check_head(self.link.head(assignment.spec.population))
            try:
                run.workbench.check(assignment, on_step)
                reservation = run.account.reserve(assignment)
                delta = run.workbench.release(assignment, reservation, on_step)
                return run.account.commit(reservation, assignment, delta, run.workbench.metrics())
            finally:
                run.workbench.done()

    def _run(self, assignment: Assignment) -> "_Run":
        """What is kept of the task's run: opened once, and refused by the policy before a model is loaded."""
        name = assignment.run, assignment.incarnation
        if name not in self._runs:
            account = self.account(*name, assignment.spec)
            for before in [each for each in self._runs if each[0] == assignment.run]:
                del self._runs[before]  # its model, before the same one is loaded for the next incarnation
            self._runs[name] = _Run(account, self.build(assignment.spec))
        return self._runs[name]

    def _decline(self, assignment: Assignment, reason: str, why: str, detail: str = "") -> None:
        """Refuses the task; what went wrong may name folders and columns, so it stays in the site's log."""
        log.error("declined", site=self.name, reason=reason, error=why)
        self._answered[_key(assignment)] = reason
        try:
            self.link.decline(assignment, reason, detail or DECLINED.get(reason, OTHERWISE))
        except RunEnded:
            raise
        except Refusal as refusal:  # the phase has closed meanwhile: nobody waits for this answer any more
            log.warning("declined too late", site=self.name, reason=refusal.reason)

    def _send(self, assignment: Assignment, update: Update) -> None:
        """Delivers the update; one that is refused is declined, because its steps are spent and never taken again."""
        try:
            self._run(assignment).account.confirmed(self.link.send(assignment, update))
        except RunEnded:
            raise
        except RoundClosed as closed:
            log.warning("update too late", site=self.name, reason=str(closed))
        except Refusal as refusal:
            self._decline(assignment, refusal.reason, str(refusal))

    @contextmanager
    def _progress(self, assignment: Assignment) -> Iterator[OnStep]:
        """Reports progress from a thread of its own, also while the model loads; stops training in a closed phase."""
        done, closed, finished = (0, 0), threading.Event(), threading.Event()

        def beat() -> None:
            while not finished.wait(self.beat_s):
                try:
                    still_open = self.link.heartbeat(assignment, *done)
                except DeerfieldError as error:  # one lost beat; whoever stops beating is given up
                    log.warning("heartbeat failed", site=self.name, error=str(error))
                    continue
                if not still_open:
                    closed.set()
                    return

        def on_step(step: int, steps: int) -> None:
            nonlocal done
            done = step, steps
            if closed.is_set():
                raise RoundClosed(f"round {assignment.task.round} phase {assignment.task.phase} has closed")

        here = copy_context()  # what the log says of the task, a thread does not inherit
        thread = threading.Thread(target=partial(here.run, beat), name="heartbeat", daemon=True)
        if self.beats:
            thread.start()
        try:
            yield on_step
        finally:
            finished.set()
            if self.beats:
                thread.join()


_Key = tuple[str, int, int, int]  # run, incarnation, round, phase


def _key(assignment: Assignment) -> _Key:
    return assignment.run, assignment.incarnation, assignment.task.round, assignment.task.phase


@dataclass(frozen=True)
class _Run:
    """What a site keeps of a run between its phases."""

    account: Account
    workbench: Workbench
