"""A site's ledgers as an operator or an auditor finds them: files that are read, checked offline and never written."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deerfield.errors import InvalidInput
from deerfield.ledger.account import Account, fold
from deerfield.ledger.audit import Report, verify
from deerfield.ledger.chain import Finding
from deerfield.ledger.reading import Reading, is_stored, reading
from deerfield.ledger.statement import Row, rows

NAME = "ledger.jsonl"
FORMAT = "deerfield ledger export v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One population's ledger, and the stored updates beside it."""

    path: Path  # of the ledger, or of an export of one
    state: Path | None  # the site's state folder; None where the ledger was taken out of it
    data: bytes

    @property
    def vault(self) -> Path | None:
        """The folder of stored updates, if it is there."""
        return self.state / "vault" if self.state is not None and (self.state / "vault").is_dir() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A ledger with everything that there is to say of it."""

    found: Found
    reading: Reading
    report: Report
    account: Account  # of the entries up to the first broken one
    rows: tuple[Row, ...]


def find(where: Path, population: str | None) -> Found:
    """The ledger in a state folder, in a ledger's own folder, or in an export.

    Raises:
        InvalidInput: there is none, or there are several and no population says which.
    """
    path = _path(where, population)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); name a site's state folder") from error
    if path.suffix == ".json":
        return Found(path=path, state=None, data=_exported(data, path))
    above = path.resolve().parent.parent
    return Found(path=path, state=above.parent if above.name == "ledgers" else None, data=data)


def _path(where: Path, population: str | None) -> Path:
    if where.is_file():
        return where
    if not where.is_dir():
        raise InvalidInput(f"{where}: there is no such folder; name a site's state folder, as in --state of the site")
    if (where / NAME).exists():
        return where / NAME
    known = {path.parent.name: path for path in sorted(where.glob(f"ledgers/*/{NAME}"))}
    if population is not None and population not in known:
        raise InvalidInput(f"{where} has no ledger of population {population!r}; it has {_names(known) or 'none'}")
    if len(known) > 1 and population is None:
        raise InvalidInput(f"{where} has the ledgers of {_names(known)}; say which with --population")
    if not known:
        sites = {path.parents[2].name: path for path in sorted(where.glob(f"*/ledgers/*/{NAME}"))}
        hint = f"it has those of sites, name one: {_names(sites)}" if sites else "a site makes one in its first run"
        raise InvalidInput(f"{where} has no ledger (no ledgers/POPULATION/{NAME}); {hint}")
    return known[population] if population is not None else next(iter(known.values()))


def _names(known: Mapping[str, Path]) -> str:
    return ", ".join(known)


def _exported(data: bytes, path: Path) -> bytes:
    """The ledger file inside an export, byte for byte."""
    try:
        export = json.loads(data)
        if export["format"] != FORMAT:
            raise ValueError("another format")
        return b"".join(_line(each) + b"\n" for each in export["entries"])
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"{path} is no {NAME} and no export of one; name a site's state folder") from error


def verbatim(line: bytes) -> str | dict[str, str]:
    """A line for an export: its text, or, where it is damaged beyond text, its bytes."""
    try:
        return line.decode("ascii")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(line).decode()}


def _line(value: str | Mapping[str, str]) -> bytes:
    return value.encode("ascii") if isinstance(value, str) else base64.b64decode(value["base64"], validate=True)


def check(found: Found, key: str | None = None) -> Checked:
    """Verifies a ledger, and adds up what of it is whole; `key` is what the site's public key must be (hex).

    Raises:
        InvalidInput: not even its first entry can be read.
    """
    read = reading(found.data)
    report = _verified(found, read, key)
    if not read.entries:
        what = report.findings[0].what if report.findings else "it is empty"
        raise InvalidInput(f"{found.path} begins with nothing that can be read: {what}; restore it from a copy")
    return Checked(found=found, reading=read, report=report, account=fold(read.entries), rows=tuple(rows(read.entries)))


def verified(found: Found, key: str | None = None) -> Report:
    """The report of a ledger, however damaged."""
    return _verified(found, reading(found.data), key)


def _verified(found: Found, read: Reading, key: str | None) -> Report:
    vault = found.vault
    if vault is None:
        report = verify(read.lines)
    else:
        report = verify(read.lines, lambda name: is_stored(lambda each: _stored(vault, each), name))
    extra = []
    if read.torn:
        extra.append(Finding(entry=_expected(read), what="its line has no end, as a crash leaves it; the site cuts it"))
    opened = read.entries[0].detail["public_key"] if read.entries else None
    if key is not None and opened != key.lower():
        extra.append(Finding(entry=0, what=f"the ledger is signed by key {opened}, not by {key}"))
    findings = (*extra, *report.findings)
    return Report(entries=report.entries, head=report.head, epsilon=report.epsilon, findings=findings)


def _expected(read: Reading) -> int:
    return read.entries[-1].sequence + 1 if read.entries else 0


def _stored(vault: Path, name: str) -> bytes:
    return (vault / f"{name}.safetensors").read_bytes()


def header(checked: Checked) -> dict[str, Any]:
    """What a ledger amounts to, in one mapping; of a damaged one nobody knows what is left."""
    account, terms, known = checked.account, checked.account.terms, checked.reading.is_usable
    return {
        "federation": terms.federation,
        "site": terms.site,
        "population": terms.population,
        "unit": terms.unit,
        "units_low": terms.units_low,
        "units_high": terms.units_high,
        "epsilon": terms.epsilon,
        "delta": terms.delta,
        "filter": terms.filter,
        "order": terms.order,
        "epsilon_spent": account.epsilon,
        "epsilon_left": account.remaining if known else None,
        "delta_spent": account.delta,
        "delta_left": account.delta_remaining if known else None,
        "runs": len(account.runs),
        "head": {"sequence": account.head.sequence, "hash": account.head.hash},
        "public_key": account.public_key,
    }
