"""`deerfield ledger export`: a ledger for an auditor, as one JSON file for programs and one HTML page for people."""

import json
from dataclasses import asdict
from pathlib import Path
from time import gmtime, strftime
from typing import Any

from deerfield import __version__
from deerfield.errors import InvalidInput
from deerfield.ledger.audit import Report
from deerfield.ledger.entry import plain
from pipelines.ledger import page
from pipelines.ledger.ledgers import FORMAT, Checked, Found, header, verbatim


def write(checked: Checked, name: Path) -> tuple[Path, Path]:
    """Writes NAME.json and NAME.html.

    Raises:
        InvalidInput: one of them is there already, or cannot be written.
    """
    stem = name.with_suffix("") if name.suffix in (".json", ".html") else name
    data, html = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".html")
    exported = export(checked)
    texts = {data: json.dumps(exported, indent=2, allow_nan=False) + "\n", html: page.page(exported, checked)}
    try:
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        raise InvalidInput(f"--out {name}: {path} is there already; choose another name, or move it away") from None
    except OSError as error:
        raise InvalidInput(f"--out {name}: {path} cannot be written ({error.strerror}); choose another") from error
    return data, html


def export(checked: Checked) -> dict[str, Any]:
    """Everything an auditor needs: what the ledger amounts to, how it was verified, and its lines byte for byte."""
    found: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "made_by": f"deerfield {__version__}",
            "exported": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()),
            "public_key": checked.account.public_key,
            "terms": {name: value for name, value in header(checked).items() if name not in ("head", "public_key")},
            "head": asdict(checked.account.head),
            "verification": _verification(checked.found, checked.report),
            "runs": [_run(checked, charge.sequence) for charge in checked.account.runs.values()],
            "updates": _updates(checked),
        }
    )
    return {**found, "entries": [verbatim(line) for line in checked.reading.lines]}


def _verification(found: Found, report: Report) -> dict[str, Any]:
    return {
        "sound": report.sound,
        "entries": report.entries,
        "epsilon": report.epsilon,
        "updates_checked": found.vault is not None,
        "findings": [asdict(finding) for finding in report.findings],
    }


def _run(checked: Checked, sequence: int) -> dict[str, Any]:
    """What a run was reserved for, and what it has used."""
    account = checked.account
    charge = next(each for each in account.runs.values() if each.sequence == sequence)
    tasks = [each for each in account.reservations.values() if each.reserved_by == sequence]
    entry = next(each for each in checked.reading.entries if each.sequence == sequence)
    return {
        "sequence": sequence,
        "time": entry.time,
        **charge.plan.detail(),
        "epsilon": charge.epsilon,
        "epsilon_before": charge.epsilon_before,
        "epsilon_after": charge.epsilon_after,
        "steps_taken": account.taken[sequence].steps,
        "tasks": len(tasks),
        "updates": sum(each.sequence in account.commits for each in tasks),
    }


def _updates(checked: Checked) -> list[dict[str, Any]]:
    """The digest of every update that was committed, and of which task."""
    account = checked.account
    found = []
    for place, commit in account.commits.items():
        key = account.reservations[place].key
        task = {"run": key.run, "incarnation": key.incarnation, "round": key.round, "phase": key.phase}
        found.append({"sequence": commit.sequence, "reservation": place, **task, "update": commit.detail["update"]})
    return found
