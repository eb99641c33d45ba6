"""What a chain of entries adds up to: the terms in force, what was charged, reserved and committed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import fsum, inf
from typing import Any, TypeAlias

from deerfield.errors import LedgerDamaged
from deerfield.filters import Charge, remaining, spent
from deerfield.ledger.details import RunPlan, TaskKey, Terms, run_plan, terms_of
from deerfield.ledger.entry import Entry, Head, number
from deerfield.types import Spend

RunKey: TypeAlias = tuple[str, int]  # run, incarnation


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCharge:
    """A run that is reserved."""

    sequence: int  # of its entry
    plan: RunPlan
    epsilon: float  # of this run, whole, at its own delta
    epsilon_before: float  # of the population
    epsilon_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The right to make one update, once; its steps count as taken, whatever becomes of it."""

    sequence: int  # of its entry
    key: TaskKey
    attempt: int  # from 0
    spend: Spend
    reserved_by: int  # sequence of the run's entry
    epsilon_before: float  # of the population
    epsilon_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What the tasks of a run have used of its schedule."""

    tasks: int = 0  # begun, whatever became of them
    steps: int = 0
    retries: int = 0  # tasks that were reserved again


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The state of a population: the fold over its entries, and nothing else."""

    terms: Terms
    public_key: str
    newest: Entry
    epsilon: float = 0.0  # spent, over all runs
    runs: Mapping[RunKey, RunCharge] = field(default_factory=dict)
    reservations: Mapping[int, Reservation] = field(default_factory=dict)  # by sequence
    commits: Mapping[int, Entry] = field(default_factory=dict)  # by the reservation's sequence
    attempts: Mapping[TaskKey, tuple[int, ...]] = field(default_factory=dict)  # sequences of reservations
    taken: Mapping[int, Taken] = field(default_factory=dict)  # by the run's sequence
    charged: Mapping[int, Charge] = field(default_factory=dict)  # by sequence: one for each run, and what is beside
    infinite: Mapping[str, Entry] = field(default_factory=dict)  # by reason
    hashes: Mapping[int, str] = field(default_factory=dict)  # by sequence: of entries, and of reconciled heads

    @property
    def head(self) -> Head:
        """Where the chain ends."""
        return self.newest.head

    @property
    def charges(self) -> tuple[Charge, ...]:
        """Everything that counts, as the filter reads it."""
        return tuple(self.charged.values())

    @property
    def remaining(self) -> float:
        """The epsilon that is left; 0 when nothing is, or when what was spent is infinite."""
        return remaining(self.terms.cap, self.charges)[0]

    @property
    def delta(self) -> float:
        """The delta that runs have used up; under the filter `renyi` none do."""
        return self.delta_until(self.head.sequence)

    def delta_until(self, sequence: int) -> float:
        """The same, once the entry of that number was written."""
        if self.terms.filter == "renyi":
            return 0.0
        return fsum(charge.delta for entry, charge in self.charged.items() if entry <= sequence)

    @property
    def delta_remaining(self) -> float:
        """The delta that is left."""
        return remaining(self.terms.cap, self.charges)[1]

    def task(self, key: TaskKey) -> tuple[Reservation, ...]:
        """The attempts at a task, oldest first."""
        return tuple(self.reservations[sequence] for sequence in self.attempts.get(key, ()))

    def committed(self, key: TaskKey) -> str | None:
        """The digest of the update that answers a task; None if none was committed."""
        found = (self.commits[sequence] for sequence in self.attempts.get(key, ()) if sequence in self.commits)
        return next((str(commit.detail["update"]) for commit in found), None)

    def knows(self, head: Head) -> bool:
        """Whether a head is part of this chain, or was reconciled in it."""
        return self.hashes.get(head.sequence) == head.hash


def fold(entries: Iterable[Entry]) -> Account:
    """The account of a whole chain without findings, the `open` entry first."""
    first, *rest = entries
    return extend(opened(first), rest)


def opened(entry: Entry) -> Account:
    """The account of a population that nothing has been charged to."""
    terms, key = terms_of(entry.detail), entry.detail["public_key"]
    return Account(terms=terms, public_key=key, newest=entry, hashes={entry.sequence: entry.hash})


def extend(account: Account, entries: Iterable[Entry]) -> Account:
    """The account with more entries; `charging` or `audit` has seen to it that each may follow."""
    books = _Books(account)
    for entry in entries:
        books.add(entry)
    return books.account()


class _Books:
    """An account in the making: many entries for one copy."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._terms, self._newest = account.terms, account.newest
        self._runs, self._reservations = dict(account.runs), dict(account.reservations)
        self._commits, self._attempts = dict(account.commits), dict(account.attempts)
        self._taken, self._charged = dict(account.taken), dict(account.charged)
        self._infinite, self._hashes = dict(account.infinite), dict(account.hashes)

    def account(self) -> Account:
        return replace(
            self._account,
            terms=self._terms,
            newest=self._newest,
            epsilon=spent(self._terms.cap, tuple(self._charged.values())),
            runs=self._runs,
            reservations=self._reservations,
            commits=self._commits,
            attempts=self._attempts,
            taken=self._taken,
            charged=self._charged,
            infinite=self._infinite,
            hashes=self._hashes,
        )

    def add(self, entry: Entry) -> None:
        match entry.kind:
            case "open" | "terms":
                self._terms = terms_of(entry.detail)
            case "run":
                self._run(entry)
            case "task":
                self._task(entry)
            case "commit":
                self._commits.setdefault(entry.detail["reservation"], entry)
            case "infinite":
                self._infinite.setdefault(entry.detail["reason"], entry)
                self._charged[entry.sequence] = Charge(epsilon=inf, delta=0.0)
            case "reconcile":
                self._reconcile(entry)
        self._hashes[entry.sequence] = entry.hash
        self._newest = entry

    def _run(self, entry: Entry) -> None:
        plan = run_plan(entry.detail)
        before, after = _epsilons(entry.detail)
        epsilon = number(entry.detail["epsilon"])
        self._runs[plan.run, plan.incarnation] = RunCharge(
            sequence=entry.sequence, plan=plan, epsilon=epsilon, epsilon_before=before, epsilon_after=after
        )
        self._taken[entry.sequence] = Taken()
        charge = run_charge(self._terms, plan, epsilon)
        if charge is not None:
            self._charged[entry.sequence] = charge

    def _task(self, entry: Entry) -> None:
        detail = entry.detail
        key = TaskKey(**{name: detail[name] for name in ("run", "incarnation", "round", "phase")})
        run = self._runs.get((key.run, key.incarnation))
        if run is None:
            raise LedgerDamaged(f"entry {entry.sequence} reserves a task of run {key.run}, which has no entry")
        before, after = _epsilons(detail)
        self._reservations[entry.sequence] = Reservation(
            sequence=entry.sequence,
            key=key,
            attempt=detail["attempt"],
            spend=run.plan.spend(detail["steps"]),
            reserved_by=run.sequence,
            epsilon_before=before,
            epsilon_after=after,
        )
        self._attempts[key] = (*self._attempts.get(key, ()), entry.sequence)
        taken = self._taken[run.sequence]
        retried = 1 if detail["attempt"] else 0
        self._taken[run.sequence] = Taken(
            tasks=taken.tasks + 1, steps=taken.steps + detail["steps"], retries=taken.retries + retried
        )
        charge = task_charge(self._terms, run.plan, detail["steps"])
        if charge is not None:
            self._charged[run.sequence] = _together(self._charged.get(run.sequence), charge)

    def _reconcile(self, entry: Entry) -> None:
        detail = entry.detail
        self._charged[entry.sequence] = Charge(epsilon=number(detail["epsilon"]), delta=detail["delta"])
        if detail["known_sequence"] is not None and detail["known_head"] is not None:
            self._hashes[detail["known_sequence"]] = detail["known_head"]


def run_charge(terms: Terms, plan: RunPlan, epsilon: float) -> Charge | None:
    """What reserving a run costs: all of it under `sum`; under `renyi` only what no task is charged for."""
    if terms.filter == "sum":
        return Charge(epsilon=epsilon, delta=plan.delta, spends=plan.spends)
    if epsilon == inf:  # without a unit or noise, whatever the steps will be
        return Charge(epsilon=inf, delta=0.0)
    return Charge(epsilon=0.0, delta=0.0, spends=plan.extra) if plan.extra else None


def task_charge(terms: Terms, plan: RunPlan, steps: int) -> Charge | None:
    """What reserving a task costs: its steps under `renyi`, nothing under `sum`, where its run has paid."""
    if terms.filter == "sum":
        return None
    return Charge(epsilon=0.0, delta=0.0, spends=(plan.spend(steps),))


def _together(before: Charge | None, more: Charge) -> Charge:
    """One charge for a run, however many tasks it has: spends that differ in their steps alone are one."""
    if before is None:
        return more
    steps: dict[Spend, int] = {}
    for spend in (*before.spends, *more.spends):
        kind = replace(spend, steps=0)
        steps[kind] = steps.get(kind, 0) + spend.steps
    spends = tuple(replace(kind, steps=count) for kind, count in steps.items())
    return replace(before, epsilon=before.epsilon + more.epsilon, spends=spends)


def _epsilons(detail: Mapping[str, Any]) -> tuple[float, float]:
    return number(detail["epsilon_before"]), number(detail["epsilon_after"])
