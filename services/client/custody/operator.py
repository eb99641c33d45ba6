"""What an operator asks of a site between runs: what a run would cost it.

Here, so that a plan goes by the policy and the ledger exactly as the site will read them. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from math import inf, isinf
from pathlib import Path
from typing import Any

from deerfield.errors import BudgetExhausted, InvalidInput, LedgerBehind, NotMapped, PolicyRefused
from deerfield.filters import Charge
from deerfield.ledger.account import Account, fold
from deerfield.ledger.entry import Head, plain
from deerfield.ledger.reading import reading
from deerfield.plan import SitePlan, Standing, plan
from deerfield.record import decode
from deerfield.runfile import parse
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.types import Countersigned
from services.client import policy
from services.client.custody.ledger_file import NAME, account_of
from services.client.custody.run_account import evaluations, record_path
from services.client.policy import Policy, Population

UNREGISTERED = "the population is not registered, and no run uses it before; run `deerfield register`"


def plan_sites(request: Mapping[str, Any]) -> dict[str, Any]:
    """By site, what the run of `request` would cost it; a site that would refuse says why in `refusal`.

    `request` is {"spec": RunSpec, "sites": {site: {"policy": file, "state": folder or null}}}.

    Raises:
        InvalidInput: a policy or ledger cannot be read, or no noise keeps the run's epsilon.
    """
    spec = parse(RunSpec, request["spec"], "the run")
    return {
        name: _plan_site(spec, policy.load(Path(site["policy"])), site["state"] and Path(site["state"]))
        for name, site in request["sites"].items()
    }


def _plan_site(spec: RunSpec, rules: Policy, state: Path | None) -> dict[str, Any]:
    account = _account(state, spec.population)
    told: dict[str, Any] = dict.fromkeys(field.name for field in fields(SitePlan))
    told |= {"fits": False, "warnings": [], "budget": None}
    told |= {"site": account and account.terms.site, "entries": len(account.hashes) if account else 0}
    try:
        population = rules.population(spec)
        if spec.model.digest is not None:
            rules.base(spec)
        _check_ledger(account, population, _record(state, spec.population))
        found = asdict(plan(spec, make(spec).declares, _standing(spec, rules, population, account)))
    except (NotMapped, PolicyRefused, LedgerBehind, BudgetExhausted) as refusal:
        refused: dict[str, Any] = plain({**told, "refusal": str(refusal)})
        return refused
    budget = population.cap and asdict(population.cap)
    told |= {**found, "budget": budget, "epsilon_before": account.epsilon if account else 0.0}
    if state is not None and told["fits"] and not _is_registered(population, account):
        told |= {"fits": False, "refusal": UNREGISTERED}
    answer: dict[str, Any] = plain(told)
    return answer


def _is_registered(population: Population, account: Account | None) -> bool:
    """Whether a run may use the population, unless its data have changed since: a plan reads no data."""
    return population.registration == "on_start" or (account is not None and account.terms.commitment is not None)


def _account(state: Path | None, population: str) -> Account | None:
    """What the population's ledger adds up to; None if it was never opened."""
    if state is None or not (path := state / "ledgers" / population / NAME).exists():
        return None
    return read_account(path)


def read_account(path: Path) -> Account | None:
    """The account of a ledger that is there; a last line that a crash has torn plays no part, as when a site starts."""
    try:
        found = reading(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"the ledger {path} cannot be read ({error.strerror}); name its state folder") from error
    if not found.is_usable:
        return account_of(list(found.lines), path)  # raises
    return fold(found.entries) if found.entries else None


def _record(state: Path | None, population: str) -> Countersigned | None:
    if state is None or not (path := record_path(state, population)).exists():
        return None
    return decode(path.read_bytes(), str(path))


def _check_ledger(account: Account | None, population: Population, record: Countersigned | None) -> None:
    """Raises what the site would refuse with before it reserves anything."""
    head = None if record is None else Head(sequence=record.sequence, hash=record.head)
    if head is not None and (account is None or not account.knows(head)):
        raise LedgerBehind(
            f"the aggregator has seen entry {head.sequence} of this ledger, which does not hold it: put the newest "
            "copy back, or run `deerfield ledger reconcile`"
        )
    if account is None:
        return
    held, now = account.terms, (population.unit, population.filter, population.order)
    if held.unit != now[0] or (account.charged and (held.filter, held.order) != now[1:]):
        order = "" if held.order is None else f", order: {held.order:g}"
        raise PolicyRefused(
            f"the policy has changed what its ledger was begun with (unit: {held.unit}, filter: {held.filter}{order}), "
            "and a population keeps that for life; write it so again"
        )


def _standing(spec: RunSpec, rules: Policy, population: Population, account: Account | None) -> Standing:
    """The population as the site's own gate will find it: `charging.run_detail`."""
    charges = account.charges if account else ()
    if rules.metrics == "clear":  # written before the run is
        charges = (*charges, Charge(epsilon=inf, delta=0.0))
    allowed = population.unprotected or population.unit == "none" or rules.metrics == "clear"
    is_infinite = rules.metrics == "clear" or (account is not None and isinf(account.epsilon))
    return Standing(
        units=(population.units_low, population.units_high),
        cap=None if allowed and (is_infinite or spec.privacy.unit == "none") else population.cap,
        charges=charges,
        metrics=evaluations(spec, rules),
    )
