"""Offline verification of a ledger: trusts the mathematics of a signature and of accounting, and nobody.

It needs the lines and nothing else; with a way to look up stored updates it checks those too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isclose, isinf

from deerfield.errors import InvalidInput, LedgerDamaged
from deerfield.filters import ROUNDING
from deerfield.ledger.account import Account, extend, opened
from deerfield.ledger.chain import Finding, walk
from deerfield.ledger.charging import missing
from deerfield.ledger.details import Known, TaskKey, known_of, run_plan, terms_of
from deerfield.ledger.entry import Entry, Head, number
from deerfield.ledger.forms import flaw

TOLERANCE = 1e-6  # relative, between an epsilon that stands in an entry and the one that is computed again

Stored = Callable[[str], bool]  # whether the update of this digest is kept, with that very content


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a verification found."""

    entries: int  # lines that were read
    head: Head | None  # of the last line; None if it is no entry
    epsilon: float  # of the population, as the entries add up; infinite where they do not
    findings: tuple[Finding, ...]  # in the order of the entries

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(lines: Sequence[bytes], stored: Stored | None = None) -> Report:
    """Checks every entry of a ledger, given as lines without their newlines (`chain.lines_of`).

    That is the chain (hashes, signatures by the key of the first entry, numbers, order of time), every epsilon against
    the one that follows from the entries, one update at most for a reservation and one reservation for an update, and
    with `stored` that each committed update is there.
    """
    account: Account | None = None
    findings: list[Finding] = []
    last: Entry | None = None
    for last, broken in walk(lines):
        findings += broken
        if last is None or flaw(last.kind, last.detail) is not None:
            continue
        named = broken[0].entry if broken else last.sequence
        if account is None:
            account = opened(last) if last.kind == "open" else None
            continue
        # what nobody signed is not worth computing, and may be made to take for ever
        wrong = [] if broken else list(_meaning(account, last, stored))
        try:
            after = extend(account, [last])
        except LedgerDamaged:  # the finding is there already, and nothing can be added up from it
            after = account
        wrong += _costs(account, last, after)
        findings += [Finding(entry=named, what=what) for what in wrong]
        account = after
    if not lines:
        findings.append(Finding(entry=0, what="the ledger is empty; it begins with an open entry"))
    epsilon = inf if account is None else account.epsilon
    return Report(
        entries=len(lines), head=None if last is None else last.head, epsilon=epsilon, findings=tuple(findings)
    )


def _meaning(account: Account, entry: Entry, stored: Stored | None) -> Iterator[str]:
    """What an entry may not say after those before it."""
    match entry.kind:
        case "terms":
            yield from _terms(account, entry)
        case "run":
            yield from _run(account, entry)
        case "task":
            yield from _task(account, entry)
        case "commit":
            yield from _commit(account, entry, stored)
        case "reconcile":
            yield from _reconcile(account, entry)
        case _:
            return


def _terms(account: Account, entry: Entry) -> Iterator[str]:
    now, before = terms_of(entry.detail), account.terms
    if now.unit != before.unit:
        yield f"it changes the unit from {before.unit} to {now.unit}, and a population has one for ever"
    if now.population != before.population:
        yield f"it is of population {now.population}, the ledger of {before.population}"
    if account.charged and (now.filter, now.order) != (before.filter, before.order):
        yield f"it changes the filter from {before.filter} to {now.filter} (order {now.order}) after the first charge"
    if entry.detail["public_key"] != account.public_key:
        yield "it names another key than the first entry"


def _run(account: Account, entry: Entry) -> Iterator[str]:
    plan = run_plan(entry.detail)
    if (plan.run, plan.incarnation) in account.runs:
        yield f"run {plan.run}, incarnation {plan.incarnation}, is reserved twice"
    if plan.unit not in ("none", account.terms.unit):
        yield f"its unit is {plan.unit}, that of the population {account.terms.unit}"
    try:
        cost = plan.epsilon
    except InvalidInput as error:
        yield f"its cost cannot be computed: {error}"
    else:
        if not _equal(number(entry.detail["epsilon"]), cost):
            yield f"epsilon of the run is written as {entry.detail['epsilon']}, and its spends cost {cost:.9g}"


def _task(account: Account, entry: Entry) -> Iterator[str]:
    detail = entry.detail
    key = TaskKey(**{name: detail[name] for name in ("run", "incarnation", "round", "phase")})
    run = account.runs.get((key.run, key.incarnation))
    if run is None or run.sequence != detail["reserved_by"]:
        yield f"entry {detail['reserved_by']} is no reservation of run {key.run}, incarnation {key.incarnation}"
    if run is None:
        return
    taken, attempts = account.taken[run.sequence], len(account.task(key))
    if taken.steps + detail["steps"] > run.plan.steps:
        yield f"with it the run takes {taken.steps + detail['steps']} steps, and {run.plan.steps} were reserved"
    if taken.tasks >= run.plan.tasks:
        yield f"it is task {taken.tasks + 1} of its run, and {run.plan.tasks} were reserved"
    if detail["attempt"] != attempts:
        yield f"it is written as attempt {detail['attempt']} of its task, and is number {attempts}, from 0"
    if attempts and taken.retries >= run.plan.spare_phases:
        yield f"its task was begun before, and none of {run.plan.spare_phases} spare phases was left"
    if account.committed(key) is not None:
        yield "its task was answered before"


def _commit(account: Account, entry: Entry, stored: Stored | None) -> Iterator[str]:
    place, update = entry.detail["reservation"], entry.detail["update"]
    reservation = account.reservations.get(place)
    if reservation is None:
        yield f"entry {place}, which it commits, is no reservation of a task"
        return
    if (other := account.commits.get(place)) is not None:
        yield f"it is the second commit of reservation {place}, after entry {other.sequence}"
    if account.task(reservation.key)[-1] != reservation:
        yield f"it commits reservation {place}, and its task was reserved again since"
    if stored is not None and not stored(update):
        yield f"update {update}, which it commits, is not stored, or its content has changed"


def _reconcile(account: Account, entry: Entry) -> Iterator[str]:
    detail = entry.detail
    known, agreed = known_of("known", detail) or Known(), known_of("agreed", detail)
    for name, due in zip(("epsilon", "delta"), missing(account, known, agreed), strict=True):
        if not _equal(number(detail[name]), due):
            yield f"it charges {name} {detail[name]}, and the record that it names leaves {due:.9g} to charge"


def _costs(before: Account, entry: Entry, after: Account) -> Iterator[str]:
    """What is wrong with the population's epsilons in an entry that charges it."""
    if entry.kind not in ("run", "task"):
        return
    for name, account in (("epsilon_before", before), ("epsilon_after", after)):
        if not _equal(number(entry.detail[name]), account.epsilon):
            yield f"{name} is written as {entry.detail[name]}, and the entries add up to {account.epsilon:.9g}"
    limit = after.terms.epsilon
    if not isinf(after.epsilon) and before.epsilon < after.epsilon and after.epsilon > limit * (1 + ROUNDING):
        yield f"with it the population's epsilon is {after.epsilon:.9g}, above the {limit:g} of its terms"


def _equal(written: float, computed: float) -> bool:
    return isclose(written, computed, rel_tol=TOLERANCE, abs_tol=1e-12)
