"""A ledger as the rows of a table: what happened to the population, and what it had left each time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf

from deerfield.ledger.account import Account, Reservation, extend, opened
from deerfield.ledger.details import run_plan
from deerfield.ledger.entry import Entry
from deerfield.types import Spend

SHOWN = 12  # characters of a digest in a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry. What it does not speak of is None; a cost that is not known is infinite."""

    sequence: int
    time: float  # seconds since the epoch
    kind: str
    run: str | None = None
    round: int | None = None
    phase: int | None = None
    noise_multiplier: float | None = None
    sample_rate: float | None = None
    steps: int | None = None
    epsilon: float  # of the population, after it
    remaining: float  # of the population's epsilon, after it
    note: str = ""  # what else there is to say


def rows(entries: Iterable[Entry]) -> Iterator[Row]:
    """A row for each entry of a chain without findings, oldest first."""
    account: Account | None = None
    for entry in entries:
        account = opened(entry) if account is None else extend(account, [entry])
        yield _row(account, entry)


def _row(account: Account, entry: Entry) -> Row:
    row = Row(
        sequence=entry.sequence,
        time=entry.time,
        kind=entry.kind,
        epsilon=account.epsilon,
        remaining=account.remaining,
    )
    detail = entry.detail
    match entry.kind:
        case "run":
            plan = run_plan(detail)
            row = _taking(row, plan.spend(plan.steps))
            return replace(row, run=plan.run, note=f"epsilon of the run {_short(detail['epsilon'])}")
        case "task":
            task = account.reservations[entry.sequence]
            row = _taking(_under(row, task), task.spend)
            return replace(row, note=f"attempt {task.attempt + 1}" if task.attempt else "")
        case "commit":
            row = _under(row, account.reservations[detail["reservation"]])
            return replace(row, note=f"update {detail['update'][:SHOWN]}")
        case "infinite":
            return replace(row, note=detail["reason"])
        case "reconcile":
            charged = f"(charged {_short(detail['epsilon'])})"
            return replace(row, note=f"{detail['operator']}: {detail['reason']} {charged}")
        case _:
            return replace(row, note=_terms(account))


def _taking(row: Row, spend: Spend) -> Row:
    return replace(row, noise_multiplier=spend.noise_multiplier, sample_rate=spend.sample_rate, steps=spend.steps)


def _under(row: Row, reservation: Reservation) -> Row:
    key = reservation.key
    return replace(row, run=key.run, round=key.round, phase=key.phase)


def _terms(account: Account) -> str:
    terms = account.terms
    limit = "no limit" if terms.epsilon == inf else f"epsilon {terms.epsilon:g}, delta {terms.delta:g}"
    order = f" of order {terms.order:g}" if terms.order else ""
    return f"unit {terms.unit}, {limit}, filter {terms.filter}{order}, {terms.units_low} to {terms.units_high} units"


def _short(cost: float | str) -> str:
    return cost if isinstance(cost, str) else f"{cost:.4g}"
