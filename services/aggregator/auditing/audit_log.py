"""Reads the audit log, beside an aggregator that runs: `python -m services.aggregator.auditing.audit_log VERB`.

Takes no lock of the aggregator's and writes nothing: one read transaction, of the log as it is when it begins.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from deerfield import keyfile
from deerfield.errors import DeerfieldError, InvalidInput
from deerfield.ledger.entry import Head, canonical
from services.aggregator.auditing.audit_chain import AuditEntry, Walk, is_signed, parse, parse_head, signed
from services.aggregator.auditing.trail import entries, newest
from services.databases import read_address, sentence

DAMAGED = 1  # exit code: the log is not what was written
SHOWN = 20  # findings that are printed


def main(argv: Sequence[str]) -> int:
    """Does what the verb says; answers the exit code."""
    flags = _parser().parse_args(argv)
    try:
        if getattr(flags, "export", ""):
            return _verified(_exported(Path(flags.export)), flags)
        with reading(flags.database) as connection:
            return int(flags.act(connection, flags))
    except DeerfieldError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """A transaction that sees the database as it is now, and may not write.

    Raises:
        InvalidInput: it cannot be read, or has no audit log.
    """
    address = read_address(url)
    if address.kind != "postgresql" and not (address.kind == "sqlite" and address.file.is_file()):
        raise InvalidInput(f"database: {address.where} is no file; name the aggregator's database")
    try:
        with create_engine(address.url, poolclass=NullPool).connect() as connection, connection.begin():
            if address.kind == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only=ON")
            else:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            if not inspect(connection).has_table("audit"):
                raise InvalidInput(
                    f"database: {address.where} has no audit log; it is of an older deerfield or of another program"
                )
            yield connection
    except DBAPIError as error:
        raise InvalidInput(sentence(address, error)) from error


def verify(connection: Connection, flags: argparse.Namespace) -> int:
    """Prints what is wrong, or that nothing is, and the head to keep."""
    return _verified(entries(connection), flags)


def _verified(log: Iterable[AuditEntry], flags: argparse.Namespace) -> int:
    kept = _kept(flags.head) if flags.head else None
    walk = Walk(kept=kept, key=flags.key or None)
    found = 0
    for finding in walk.findings(log):
        found += 1
        if found <= SHOWN:
            print(f"entry {finding.entry}: {finding.what}")
    if found > SHOWN:
        print(f"and {found - SHOWN} findings more")
    count, head = walk.head.sequence, walk.head
    print(f"{'DAMAGED' if found else 'sound'}: {count} entries, head {head.sequence}:{head.hash}")
    return DAMAGED if found else 0


def show(connection: Connection, flags: argparse.Namespace) -> int:
    """Prints the last entries, one line each."""
    last = newest(connection).sequence
    for entry in entries(connection, max(0, last - flags.last) if flags.last else 0):
        if flags.run in ("", entry.run):
            print(_line(entry))
    return 0


def export(connection: Connection, flags: argparse.Namespace) -> int:
    """Prints every entry as a line of canonical JSON: what was hashed, and its hash."""
    for entry in entries(connection, flags.after):
        print(canonical(asdict(entry)).decode())
    return 0


def head(connection: Connection, flags: argparse.Namespace) -> int:
    """Prints the chain's newest number and hash, signed where the aggregator's key is named."""
    now = newest(connection)
    if not flags.signing_key:
        print(f"{now.sequence}:{now.hash}")
        return 0
    if not Path(flags.signing_key).is_file():  # a key that is made now signs nothing that anybody knows
        raise InvalidInput(f"{flags.signing_key} is no file; name the aggregator's signing key (its --key)")
    print(json.dumps(signed(keyfile.load(Path(flags.signing_key)), now), sort_keys=True))
    return 0


def _exported(path: Path) -> Iterator[AuditEntry]:
    """The entries of an export."""
    try:
        with path.open(encoding="ascii") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield parse(line)
                except ValueError as error:
                    raise InvalidInput(f"{path}: line {number} is no entry: {error}") from None
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}); name what `deerfield audit-log export` printed") from None


def _kept(text: str) -> Head:
    """The head that somebody has kept: itself, or the file that it is in."""
    try:
        found = parse_head(Path(text).read_text() if Path(text).is_file() else text)
    except (ValueError, OSError) as error:
        raise InvalidInput(f"--head {text[:80]!r}: {error}") from None
    if "signature" in found and not is_signed(found):
        raise InvalidInput(f"--head {text[:80]!r} is not signed by the key that it names; look for another copy")
    return Head(sequence=found["sequence"], hash=found["hash"])


def _line(entry: AuditEntry) -> str:
    actor = json.loads(entry.actor)
    who = " ".join(str(actor[name]) for name in ("role", "name", "serial") if actor.get(name))
    where = f" {entry.run}" if entry.run else ""
    when = datetime.fromtimestamp(entry.time, UTC)
    return f"{entry.sequence} {when:%Y-%m-%d %H:%M:%S}Z {entry.kind} {entry.what} [{who}]{where} {entry.detail}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.aggregator.auditing.audit_log", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    for act in (verify, show, export, head):
        verb = verbs.add_parser(act.__name__, description=act.__doc__)
        verb.set_defaults(act=act)
        verb.add_argument("--database", default=os.environ.get("DEERFIELD_DATABASE", ""))
        if act is verify:
            verb.add_argument("--head", default="")
            verb.add_argument("--export", default="")
            verb.add_argument("--key", default="")
        elif act is show:
            verb.add_argument("--last", type=int, default=0)
            verb.add_argument("--run", default="")
        elif act is export:
            verb.add_argument("--after", type=int, default=0)
        else:
            verb.add_argument("--signing-key", default="")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
