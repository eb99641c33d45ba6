"""A ledger that is behind what the aggregator has seen: what it is charged, and the entry that says so.

Imports no torch.
"""

from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any

from deerfield import keyfile
from deerfield.errors import InvalidInput
from deerfield.ledger.account import Account
from deerfield.ledger.charging import reconcile_detail
from deerfield.ledger.details import Known, known_from
from deerfield.ledger.entry import Entry, number, plain
from deerfield.record import check, decode
from deerfield.types import Countersigned
from services.client.custody.agreed import Agreed
from services.client.custody.ledger_file import NAME, Ledger
from services.client.custody.operator import read_account


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the operator says."""

    state: Path
    population: str
    operator: str
    reason: str
    record: Path | None  # None: nobody knows what is missing, and the charge is infinite

    @property
    def ledger(self) -> Path:
        """The folder of the population's ledger."""
        return self.state / "ledgers" / self.population


def due(request: Request) -> dict[str, Any]:
    """What reconciling charges and leaves; writes nothing.

    Raises:
        InvalidInput: there is no such ledger or key, the record is not of it, or nothing is missing.
        LedgerFault: the ledger cannot be used.
    """
    account = _account(request)
    detail = reconcile_detail(account, request.operator, request.reason, *_histories(request, account))
    terms, epsilon, delta = account.terms, number(detail["epsilon"]), detail["delta"]
    left = 0.0 if isinf(epsilon) else max(0.0, account.remaining - epsilon)
    found: dict[str, Any] = plain(
        {
            "site": terms.site,
            "filter": terms.filter,
            "ends_at": account.head.sequence,
            "known_sequence": detail["known_sequence"],
            "agreed_sequence": detail["agreed_sequence"],
            "epsilon": epsilon,
            "epsilon_limit": terms.epsilon,
            "epsilon_left": left,
            "delta": delta,
            "delta_limit": terms.delta,
            "delta_left": max(0.0, account.delta_remaining - delta),
        }
    )
    return found


def write(request: Request) -> Entry:
    """Charges the ledger; raises as `due` does."""
    account = _account(request)
    known, agreed = _histories(request, account)
    with Ledger.open(request.ledger, keyfile.load(request.state / keyfile.SITE), account.terms) as ledger:
        entry = ledger.reconcile(operator=request.operator, reason=request.reason, known=known, agreed=agreed)
    if request.record is not None:
        Agreed(request.ledger).reconciled(_read(request.record))
    return entry


def _account(request: Request) -> Account:
    path, key = request.ledger / NAME, request.state / keyfile.SITE
    account = read_account(path)
    if account is None:
        raise InvalidInput(f"{path} has no entry, so there is nothing to reconcile; restore a copy")
    if not key.exists():  # `keyfile.load` would make one, which signs nothing here
        raise InvalidInput(f"{key} is missing, and nothing else signs this ledger; restore it from a copy")
    return account


def _histories(request: Request, account: Account) -> tuple[Known, Known | None]:
    """(what the record has, what it and the ledger have both)."""
    common, known = Agreed(request.ledger).newest(), Known()
    if request.record is not None:
        record, key = _read(request.record), request.state / "aggregator.pub"
        check(record, account.terms.site, request.population, key.read_text() if key.exists() else None)
        known = known_from(record)
    return known, None if common is None else known_from(common)


def _read(path: Path) -> Countersigned:
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise InvalidInput(f"the record {path} cannot be read ({error.strerror}); name the file it is in") from error
