"""What the next entry of a population would say, or why it may not be written: nothing here writes anything.

The whole of a run is decided when it is reserved: its noise is calibrated for so many steps, and no task takes more.
"""

from collections.abc import Mapping
from math import inf, isinf
from typing import Any

from deerfield.errors import AlreadySealed, BudgetExhausted, InvalidInput, PolicyRefused
from deerfield.filters import Charge, fits, refusal, spent
from deerfield.ledger.account import Account, Reservation, RunCharge, run_charge, task_charge
from deerfield.ledger.details import Known, RunPlan, TaskKey, Terms, known_detail
from deerfield.ledger.entry import Entry, plain
from deerfield.ledger.forms import flaw

Detail = Mapping[str, Any]


def terms_detail(account: Account, terms: Terms) -> Detail | None:
    """The detail of a `terms` entry; None if nothing has changed.

    Raises:
        InvalidInput: another population, unit, or, once something was charged, another filter.
    """
    before = account.terms
    if terms == before:
        return None
    where = f"the ledger of population {before.population!r}"
    if terms.population != before.population:
        raise InvalidInput(
            f"{where} was opened for another population than {terms.population!r}; give each a folder of its own"
        )
    if terms.unit != before.unit:
        raise InvalidInput(
            f"{where} protects each {before.unit} for ever, and the policy says {terms.unit!r}; "
            f"write `unit: {before.unit}`, or name a new population for other data"
        )
    if account.charged and (terms.filter, terms.order) != (before.filter, before.order):
        raise InvalidInput(
            f"{where} counts by filter {_filter(before)} since its first run, and the policy says {_filter(terms)}; "
            f"write `filter: {before.filter}`" + (f" and `order: {before.order:g}`" if before.order else "")
        )
    return _formed("terms", terms.detail(account.public_key))


def run_detail(account: Account, plan: RunPlan) -> Detail:
    """The detail of a `run` entry.

    Raises:
        PolicyRefused: the run's unit is not the population's.
        BudgetExhausted: the run does not fit what is left.
        InvalidInput: a plan that cannot be counted.
    """
    terms = account.terms
    if plan.unit not in ("none", terms.unit):
        raise PolicyRefused(
            f"run {plan.run} counts by {plan.unit}, population {terms.population!r} protects each {terms.unit}, "
            "and it has one unit for ever; ask for that one"
        )
    cost = plan.epsilon
    charge = run_charge(terms, plan, cost)
    # of what is or becomes infinite by the hospital's own decision, no cap is kept, and none is claimed
    if not (plan.infinite_allowed and (isinf(account.epsilon) or plan.unit == "none")):
        _afford(account, plan, charge)
    after = spent(terms.cap, (*account.charges, *((charge,) if charge else ())))
    charged = {"epsilon": cost, "epsilon_before": account.epsilon, "epsilon_after": after}
    return _formed("run", {**plan.detail(), **charged})


def _afford(account: Account, plan: RunPlan, charge: Charge | None) -> None:
    cap = account.terms.cap
    # under `renyi` nothing may be due yet: what is asked then is whether anything fits at all
    asked = charge or Charge(epsilon=0.0, delta=0.0, spends=(plan.spend(0),))
    if not fits(cap, account.charges, asked):
        raise BudgetExhausted(
            f"run {plan.run} does not fit population {account.terms.population!r}: "
            f"{refusal(cap, account.charges, asked)}"
        )


def check_same(charge: RunCharge, plan: RunPlan) -> None:
    """Raises PolicyRefused unless a run that is reserved already is asked for in the same terms."""
    held, asked = charge.plan.detail(), plan.detail()
    for name, value in held.items():
        if asked[name] != value:
            raise PolicyRefused(
                f"run {plan.run} was reserved with {name} {value} (entry {charge.sequence}) and is now asked for with "
                f"{asked[name]}; start it as a new run"
            )


def task_detail(account: Account, key: TaskKey, steps: int) -> Detail:
    """The detail of a `task` entry.

    Raises:
        AlreadySealed: the task was answered, or was tried and the run has no spare phase left to try it again.
        BudgetExhausted: the run is not reserved, or the task is beyond its steps or the population's budget.
    """
    where = f"round {key.round}, phase {key.phase} of run {key.run}"
    run = account.runs.get((key.run, key.incarnation))
    if run is None:
        raise BudgetExhausted(f"{where} was not reserved at this site; reserve the run before its tasks")
    if account.committed(key) is not None:
        raise AlreadySealed(f"{where} was answered; send its stored update again")
    attempt, taken = len(account.task(key)), account.taken[run.sequence]
    if attempt and taken.retries >= run.plan.spare_phases:
        raise AlreadySealed(
            f"{where} was begun and never finished, which counts as spent, and none of the run's "
            f"{run.plan.spare_phases} spare phases is left; plan runs with more `spare_phases`"
        )
    if taken.tasks >= run.plan.tasks:
        raise BudgetExhausted(
            f"{where} is one task more than the {run.plan.tasks} that the run was reserved for, spare phases included"
        )
    if steps < 0 or taken.steps + steps > run.plan.steps:
        raise BudgetExhausted(
            f"{where} asks for {steps} steps, {run.plan.steps - taken.steps} are left of the {run.plan.steps} that the "
            "run was reserved for; no step beyond them is ever taken"
        )
    after = _task_epsilon(account, run, steps, where)
    named = {"run": key.run, "incarnation": key.incarnation, "round": key.round, "phase": key.phase}
    return _formed(
        "task",
        {
            **named,
            "attempt": attempt,
            "steps": steps,
            "reserved_by": run.sequence,
            "epsilon_before": account.epsilon,
            "epsilon_after": after,
        },
    )


def _task_epsilon(account: Account, run: RunCharge, steps: int, where: str) -> float:
    """The population's epsilon once the task is charged."""
    charge = task_charge(account.terms, run.plan, steps)
    if charge is None:
        return account.epsilon
    cap = account.terms.cap
    # a run that was infinite when it was reserved was allowed to be
    if not isinf(run.epsilon_after) and not fits(cap, account.charges, charge):
        raise BudgetExhausted(
            f"{where} does not fit population {account.terms.population!r}: {refusal(cap, account.charges, charge)}"
        )
    return spent(cap, (*account.charges, charge))


def commit_detail(account: Account, reservation: Reservation, update: str) -> Detail:
    """The detail of a `commit` entry for a reservation that has none.

    Raises:
        AlreadySealed: the task was reserved again since, or answered.
        InvalidInput: there is no such reservation, or the update is named by no sha256.
    """
    if account.reservations.get(reservation.sequence) != reservation:
        raise InvalidInput(
            f"entry {reservation.sequence} is not that reservation of population {account.terms.population!r}; "
            "commit what this ledger has reserved"
        )
    newest = account.task(reservation.key)[-1]
    if newest.sequence != reservation.sequence:
        raise AlreadySealed(
            f"the task of entry {reservation.sequence} was reserved again by entry {newest.sequence}; "
            "only an update that was made under that one can be sent"
        )
    return _formed("commit", {"reservation": reservation.sequence, "update": update})


def check_update(held: Entry, update: str) -> None:
    """Raises AlreadySealed unless a committed reservation is committed with the same update again."""
    if (before := held.detail["update"]) != update:
        raise AlreadySealed(
            f"reservation {held.detail['reservation']} was committed with update {before[:12]}..., for ever, and not "
            f"with {update[:12]}...; send the stored one again"
        )


def reconcile_detail(account: Account, operator: str, reason: str, known: Known, agreed: Known | None) -> Detail:
    """The detail of a `reconcile` entry: it charges what the record has and the chain may lack.

    Raises:
        InvalidInput: the chain lacks nothing.
    """
    head = known.head
    if head is not None and account.knows(head):
        raise InvalidInput(
            f"the ledger of population {account.terms.population!r} holds entry {head.sequence} as it is on record; "
            "there is nothing to reconcile"
        )
    epsilon, delta = missing(account, known, agreed)
    said = {"operator": operator, "reason": reason, "epsilon": epsilon, "delta": delta}
    return _formed("reconcile", {**said, **known_detail("known", known), **known_detail("agreed", agreed)})


def missing(account: Account, known: Known, agreed: Known | None) -> tuple[float, float]:
    """(epsilon, delta) that a record has and the account may lack; what is not known counts as all there can be.

    Nothing proves how far a chain and a record are the same history but a head that both have seen: `agreed`, where
    the chain holds it. What the record has beyond that is charged, whatever else the chain has come to since: a copy
    that was restored may have gone on before anybody missed its entries.
    """
    common = agreed if agreed is not None and agreed.head is not None and account.knows(agreed.head) else None
    if known.head is None or isinf(known.epsilon) or isinf(account.epsilon):
        epsilon = inf
    else:
        epsilon = max(0.0, float(known.epsilon) - (common.epsilon if common else 0.0))
    if account.terms.filter == "renyi":
        return epsilon, 0.0
    if known.delta is None:
        return epsilon, account.delta_remaining
    return epsilon, max(0.0, float(known.delta) - ((common.delta or 0.0) if common else 0.0))


def infinite_detail(reason: str) -> Detail:
    """The detail of an `infinite` entry."""
    return _formed("infinite", {"reason": reason})


def open_detail(terms: Terms, public_key: str) -> Detail:
    """The detail of the first entry."""
    return _formed("open", terms.detail(public_key))


def _filter(terms: Terms) -> str:
    return f"{terms.filter!r}" + (f" of order {terms.order:g}" if terms.order else "")


def _formed(kind: str, detail: dict[str, Any]) -> Detail:
    value: dict[str, Any] = plain(detail)
    if (what := flaw(kind, value)) is not None:
        raise InvalidInput(f"{what}; the ledger writes nothing that it could not read")
    return value
