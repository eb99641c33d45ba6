"""`deerfield ledger reconcile`: shows what will be charged, then lets the site's own code write and sign the entry."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from math import isinf
from pathlib import Path

from deerfield.errors import InvalidInput
from deerfield.ledger.account import Account, fold
from deerfield.ledger.charging import reconcile_detail
from deerfield.ledger.details import Known, known_from
from deerfield.ledger.entry import number
from deerfield.ledger.reading import reading
from deerfield.record import check, decode
from pipelines import ledgers
from pipelines.processes import failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the operator says."""

    folder: Path
    population: str | None
    operator: str
    reason: str
    record: Path | None
    unknown_cost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What will be charged, to what, by which record."""

    state: Path
    population: str
    record: Path | None
    told: str


def due(request: Request) -> Due:
    """What reconciling charges; writes nothing.

    Raises:
        InvalidInput: no ledger, no record and no word that the cost is unknown, or nothing that is missing.
    """
    for name, said in (("--operator", request.operator), ("--reason", request.reason)):
        if not said.strip():
            raise InvalidInput(f"{name} is empty, and it stands in the ledger for ever; say it in words")
    found = ledgers.find(request.folder, request.population)
    if found.state is None:
        raise InvalidInput(f"{found.path} is not in a site's state folder, whose key must sign; name that folder")
    read = reading(found.data)
    if not read.is_usable or not read.entries:
        what = f"entry {read.damage.entry}: {read.damage.what}" if read.damage else "it is empty"
        raise InvalidInput(f"{found.path} is damaged ({what}); restore it from a copy, then reconcile that")
    account = fold(read.entries)
    record = _record(request, found.state, account)
    known = _known(record, request, found.state, account)
    detail = reconcile_detail(account, request.operator, request.reason, known)
    told = _told(account, known, number(detail["epsilon"]), detail["delta"])
    return Due(state=found.state, population=account.terms.population, record=record, told=told)


def _record(request: Request, state: Path, account: Account) -> Path | None:
    """The file that says what is missing."""
    population = account.terms.population
    shown = state / "records" / f"{population}.json"
    record = request.record or (shown if shown.exists() else None)
    if record is not None and request.unknown_cost:
        raise InvalidInput(f"--unknown-cost is for a ledger without a record, and {record} is one; leave it out")
    if record is None and not request.unknown_cost:
        raise InvalidInput(
            f"there is no record of what population {population!r} lacks ({shown} is not there): start the site once "
            "so that the aggregator shows it, or name a file with --record; with --unknown-cost the charge is infinite"
        )
    return record


def _known(record: Path | None, request: Request, state: Path, account: Account) -> Known:
    if record is None:
        return Known()
    try:
        found = decode(record.read_bytes(), str(record))
    except OSError as error:
        raise InvalidInput(f"the record {record} cannot be read ({error.strerror}); name its file") from error
    key = state / "aggregator.pub"
    check(found, account.terms.site, account.terms.population, key.read_text() if key.exists() else None)
    return known_from(found)


def _told(account: Account, known: Known, epsilon: float, delta: float) -> str:
    terms = account.terms
    lines = [
        f"population {terms.population} at {terms.site}: the ledger ends at entry {account.head.sequence}"
        + (f", the record is of entry {known.head.sequence}" if known.head else ", and nothing is known beyond"),
    ]
    if isinf(epsilon):
        lines.append("this charges an infinite epsilon: no private run fits the population any more, ever")
        return "\n".join(lines)
    left = max(0.0, account.remaining - epsilon)
    lines.append(f"this charges epsilon {epsilon:.6g}; of {terms.epsilon:g}, {left:.6g} is left after it")
    if terms.filter == "sum":
        rest = max(0.0, account.delta_remaining - delta)
        lines.append(f"this charges delta {delta:.3g}; of {terms.delta:.3g}, {rest:.3g} is left after it")
    return "\n".join(lines)


def write(request: Request, due: Due) -> str:
    """Lets a process of the site write the entry; says what it did.

    Raises:
        InvalidInput: the site is running, or the ledger cannot be written.
    """
    argv = ["--state", str(due.state), "--population", due.population]
    argv += [f"--operator={request.operator}", f"--reason={request.reason}"]  # either may begin with a dash
    argv += [] if due.record is None else ["--record", str(due.record)]
    with tempfile.TemporaryDirectory(prefix="deerfield-reconcile-") as scratch:
        log = Path(scratch) / "reconcile.log"
        with log.open("wb") as errors:
            command = [sys.executable, "-m", "services.client", "reconcile", *argv]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, check=False)
        if done.returncode:
            raise failure(done.returncode, log)
    entry = json.loads(done.stdout.splitlines()[-1])
    return f"wrote entry {entry['sequence']}: epsilon {entry['epsilon']}, delta {entry['delta']:g}"
