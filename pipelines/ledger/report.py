"""What a person reads of a ledger: the table of `show`, the lines of `verify`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from math import isinf
from pathlib import Path
from time import localtime, strftime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deerfield.ledger.audit import Report
from deerfield.ledger.entry import Entry, plain
from deerfield.ledger.reading import reading
from deerfield.ledger.statement import Row
from pipelines.ledger.ledgers import Checked, Found, header
from pipelines.pages.formats import number

DIGITS = 10  # of a hash, for people


def show(checked: Checked, *, as_json: bool, last: int, plot: Path | None, console: Console | None = None) -> bool:
    """Prints a ledger; answers whether all of it could be read."""
    read = checked.reading
    if as_json:
        damage = None if read.damage is None else asdict(read.damage)
        told = {**header(checked), "entries": [asdict(row) for row in checked.rows], "damage": damage}
        print(json.dumps(plain(told), indent=2, allow_nan=False))
        return read.damage is None
    console = console or Console()
    console.print(*summary(checked), sep="\n", highlight=False, markup=False)
    console.print(table(checked, last))
    if last and len(checked.rows) > last:
        console.print(f"the last {last} of {len(checked.rows)} entries; --last 0 shows all", highlight=False)
    if plot is not None:
        console.print(f"burn-down: {plot}", highlight=False, soft_wrap=True)
    if read.damage is None:
        return True
    console.print(
        f"[red]damaged[/] from entry {read.damage.entry} on, and not shown: {escape(read.damage.what)}; "
        "deerfield ledger verify says everything that is wrong",
        highlight=False,
    )
    return False


def summary(checked: Checked) -> Iterator[str]:
    """Whose ledger it is, what it may spend and what it has spent."""
    account, terms = checked.account, checked.account.terms
    order = f" of order {terms.order:g}" if terms.order else ""
    yield f"population {terms.population} at {terms.site} ({terms.federation}), unit {terms.unit}"
    if isinf(terms.epsilon):
        yield "budget     none: nothing is protected, and epsilon is infinite"
    else:
        yield f"budget     epsilon {terms.epsilon:g}, delta {terms.delta:g}, filter {terms.filter}{order}"
    runs = _count(len(account.runs), "run", "runs")
    least = "" if checked.reading.is_usable else "at least "
    yield f"spent      {least}epsilon {number(account.epsilon, '.4g')}, delta {account.delta:.3g}, by {runs}"
    yield f"remaining  {_remaining(checked)}"
    yield f"head       entry {account.head.sequence}, {account.head.hash[:DIGITS]}…; key {account.public_key[:DIGITS]}…"


def _remaining(checked: Checked) -> str:
    account = checked.account
    if isinf(account.terms.epsilon):
        return "nothing is counted"
    if isinf(account.epsilon):
        return "nothing: epsilon is infinite for good"
    if not checked.reading.is_usable:
        return "not known: the ledger is damaged"
    return f"epsilon {number(account.remaining, '.4g')}, delta {account.delta_remaining:.3g}"


def table(checked: Checked, last: int) -> Table:
    """One row for each of the `last` entries; all of them for 0."""
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("entry", justify="right", no_wrap=True)
    grid.add_column("time", no_wrap=True)
    grid.add_column("kind", no_wrap=True)
    grid.add_column("spent", justify="right", no_wrap=True)
    grid.add_column("left", justify="right", no_wrap=True)
    grid.add_column("what", overflow="fold")
    pairs = list(zip(checked.rows, checked.reading.entries, strict=True))
    for row, entry in pairs[-last:]:
        left = number(row.remaining, ".4g") if not isinf(row.epsilon) else "0"
        charged = row.kind in ("run", "task", "infinite", "reconcile")
        figures = (number(row.epsilon, ".4g"), left) if charged else ("", "")
        grid.add_row(str(row.sequence), when(row.time), row.kind, *figures, escape(what(row, entry)))
    return grid


def when(time: float) -> str:
    """Local time to the minute."""
    return strftime("%Y-%m-%d %H:%M", localtime(time))


def what(row: Row, entry: Entry) -> str:
    """What an entry says, in words; round 2.1 is the first phase of the second round."""
    place = "" if row.round is None or row.phase is None else f"round {row.round + 1}.{row.phase + 1}"
    detail: dict[str, Any] = dict(entry.detail)
    match row.kind:
        case "run":
            spread = f"{row.steps} steps, q {row.sample_rate:.3g}, noise {number(row.noise_multiplier)}"
            return f"{row.run}: epsilon {number(detail['epsilon'], '.4g')}, {spread}"
        case "task":
            return f"{place}: {row.steps} steps" + (f"; {row.note}" if row.note else "")
        case "commit":
            return f"{place}: update {detail['update'][:DIGITS]}…"
        case _:
            return row.note


def verdict(found: Found, report: Report) -> Iterator[str]:
    """One line if all is well, else each finding on its own, and how many there are."""
    kinds = [entry.kind for entry in reading(found.data).entries]
    if report.sound and report.head is not None:
        counts = f"{_count(report.entries, 'entry', 'entries')}, {_count(kinds.count('run'), 'run', 'runs')}"
        updates = _count(kinds.count("commit"), "update", "updates")
        stored = f"{updates} as stored" if found.vault else "updates not at hand"
        head = f"head {report.head.sequence} {report.head.hash}"
        yield f"sound: {counts}, epsilon {number(report.epsilon, '.6g')}, {head}, {stored}"
        return
    for finding in report.findings:
        yield f"entry {finding.entry}: {finding.what}"
    findings = _count(len(report.findings), "finding", "findings")
    yield f"NOT sound: {findings} in {_count(report.entries, 'entry', 'entries')} of {found.path}"


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
