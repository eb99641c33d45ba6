"""`deerfield ledger reconcile`: shows what will be charged, then lets the site's own code write and sign the entry."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deerfield.errors import InvalidInput
from deerfield.ledger.entry import INFINITY
from deerfield.ledger.reading import reading
from pipelines.ledger import ledgers
from pipelines.processes.site_process import answer, scratch


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
    """What will be charged, and how to have the site's code do it."""

    arguments: tuple[str, ...]
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
    population = found.path.parent.name
    record = _record(request, found.state, population)
    # either of what the operator says may begin with a dash
    arguments = ["--state", str(found.state), "--population", population]
    arguments += [f"--operator={request.operator}", f"--reason={request.reason}"]
    arguments += [] if record is None else ["--record", str(record)]
    with scratch("reconcile") as folder:
        told = answer("reconcile", arguments, folder)
    return Due(arguments=tuple(arguments), told=_told(population, told))


def _record(request: Request, state: Path, population: str) -> Path | None:
    """The file that says what is missing."""
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


def _told(population: str, due: Mapping[str, Any]) -> str:
    known, agreed = due["known_sequence"], due["agreed_sequence"]
    lines = [
        f"population {population} at {due['site']}: the ledger ends at entry {due['ends_at']}, "
        + ("and nothing is known beyond" if known is None else f"the record is of entry {known}")
    ]
    if due["epsilon"] == INFINITY:
        lines.append("this charges an infinite epsilon: no private run fits the population any more, ever")
        return "\n".join(lines)
    since = "the whole record" if agreed is None else f"what the record has since entry {agreed}, which both have"
    for name in ("epsilon", "delta") if due["filter"] == "sum" else ("epsilon",):
        charged, limit, left = due[name], due[f"{name}_limit"], due[f"{name}_left"]
        lines.append(f"this charges {name} {charged:.6g}, {since}; of {limit:.6g}, {left:.6g} is left after it")
    return "\n".join(lines)


def write(due: Due) -> str:
    """Lets a process of the site write the entry; says what it did.

    Raises:
        InvalidInput: the site is running, or the ledger cannot be written.
    """
    with scratch("reconcile") as folder:
        entry = answer("reconcile", [*due.arguments, "--write"], folder)
    return f"wrote entry {entry['sequence']}: epsilon {entry['epsilon']}, delta {entry['delta']:g}"
