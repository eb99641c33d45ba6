"""Whether lines are a chain of entries that one key has signed, and nobody has touched since."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deerfield.ledger.entry import GENESIS, Entry, content_hash, is_signed, parse
from deerfield.ledger.forms import flaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with one entry, in one sentence."""

    entry: int  # its sequence number; of a line that cannot be read, the one that was expected there
    what: str


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a ledger file, without their newlines; a last one that has none is a line too."""
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def walk(lines: Sequence[bytes]) -> Iterator[tuple[Entry | None, tuple[Finding, ...]]]:
    """Each line's entry, None where there is none to read, with all that is wrong with it as a part of the chain."""
    before: Entry | None = None
    follows = True  # whether `before` stands in the line before this one
    expected, key = 0, ""
    for place, text in enumerate(lines):
        try:
            entry = parse(text)
        except (ValueError, TypeError, RecursionError) as error:
            yield None, (Finding(entry=expected, what=f"line {place + 1} is no entry: {error}"),)
            follows, expected = False, expected + 1
            continue
        key = key or str(entry.detail.get("public_key", ""))
        wrong = (*_content(entry, key), *(_place(entry, before, place) if follows else ()))
        named = entry.sequence if entry.kind == "reconcile" or not follows else expected
        yield entry, tuple(Finding(entry=named, what=what) for what in wrong)
        # where one number is broken, those after it are counted on as they should be
        before, follows, expected = entry, True, named + 1


def first_damage(lines: Sequence[bytes]) -> tuple[list[Entry], Finding | None]:
    """The entries of a chain up to the first one that is broken, and what is wrong with that."""
    entries: list[Entry] = []
    for entry, broken in walk(lines):
        if entry is None or broken:
            return entries, broken[0]
        entries.append(entry)
    return entries, None


def _content(entry: Entry, key: str) -> Iterator[str]:
    """What is wrong with an entry by itself."""
    if content_hash(entry) != entry.hash:
        yield "its content does not have the hash that stands in it"
    if not is_signed(entry, key):
        yield "its signature is not by the key of the ledger's first entry"
    if (what := flaw(entry.kind, entry.detail)) is not None:
        yield what


def _place(entry: Entry, before: Entry | None, place: int) -> Iterator[str]:
    """What is wrong with where an entry stands."""
    if before is None:
        if entry.sequence != 0 or entry.kind != "open" or entry.previous != GENESIS:
            yield "a ledger begins with an open entry of number 0 that has none before it"
        return
    if entry.kind == "open":
        yield "a ledger is opened once"
    if not _follows(entry, before):
        yield f"its number is {entry.sequence}, and the entry on line {place} has number {before.sequence}"
    # the entry before may itself be broken: that is its own finding, and not one of all that come after
    if entry.previous not in (before.hash, content_hash(before)):
        yield f"it does not name the hash of entry {before.sequence} as the one before it"
    if entry.time < before.time:
        yield f"its time {entry.time} is before the time {before.time} of entry {before.sequence}"


def _follows(entry: Entry, before: Entry) -> bool:
    if entry.kind != "reconcile":
        return entry.sequence == before.sequence + 1
    return entry.sequence == after_reconcile(before.sequence, entry.detail.get("known_sequence"))


def after_reconcile(sequence: int, known: object) -> int:
    """The number of a reconcile entry: beyond every number that the aggregator has seen, so that none is used twice."""
    return max(sequence, known if isinstance(known, int) else -1) + 1
