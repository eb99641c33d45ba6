"""The HTML page of an exported ledger: readable, printable, and complete without any other file or address."""

from collections.abc import Iterable, Mapping
from html import escape
from math import isinf
from time import gmtime, strftime
from typing import Any

from pipelines.ledger.ledgers import Checked
from pipelines.ledger.report import what
from pipelines.pages.formats import number
from pipelines.pages.page import document, facts, table


def page(export: Mapping[str, Any], checked: Checked) -> str:
    """The page; every entry stands in it, and in `export` byte for byte."""
    terms = checked.account.terms
    title = f"Privacy ledger of {terms.population} at {terms.site}"
    parts = (
        f"<h1>{escape(title)}</h1>",
        f"<p class=soft>federation {escape(terms.federation)} · exported {escape(export['exported'])} by "
        f"{escape(export['made_by'])}</p>",
        _verdict(export["verification"], checked),
        _facts(checked),
        _burndown(checked),
        _runs(export["runs"]),
        _entries(checked),
        _identity(checked),
        _by_hand(checked),
    )
    return document(title, parts)


def _verdict(verification: Mapping[str, Any], checked: Checked) -> str:
    count = verification["entries"]
    if verification["sound"]:
        updates = (
            "and every stored update has the digest that was committed"
            if verification["updates_checked"]
            else "the stored updates were not at hand"
        )
        return (
            f"<div class=verdict><b>Sound.</b> {count} entries: the chain is unbroken, every signature is by the "
            f"site's key, every epsilon was computed again from the entries, {updates}.</div>"
        )
    found = "".join(f"<li>entry {each['entry']}: {escape(each['what'])}</li>" for each in verification["findings"])
    return (
        f'<div class="verdict bad"><b>Not sound.</b> {len(verification["findings"])} findings in {count} entries; '
        f"what follows is counted from the {len(checked.rows)} entries before the first broken one."
        f"<ul>{found}</ul></div>"
    )


def _facts(checked: Checked) -> str:
    account, terms = checked.account, checked.account.terms
    order = f" of order {terms.order:g}" if terms.order else ""
    known = checked.reading.is_usable
    left = number(0.0 if isinf(account.epsilon) else account.remaining, ".4g") if known else "not known"
    figures = {
        f"epsilon, for each {terms.unit}, over all runs": number(terms.epsilon, ".4g"),
        "epsilon spent" + ("" if known else ", at least"): number(account.epsilon, ".4g"),
        "epsilon remaining": left,
        f"delta spent, of {terms.delta:g}": f"{account.delta:.3g}",
        "runs": str(len(account.runs)),
        f"units, as declared; filter {terms.filter}{order}": f"{terms.units_low}–{terms.units_high}",
    }
    return facts(figures)


def _runs(runs: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            *(str(run["sequence"]), _when(run["time"]), run["run"], run["unit"]),
            *(number(run["noise_multiplier"]), f"{run['sample_rate']:.3g}"),
            *(f"{run['steps_taken']} of {run['steps']}", f"{run['updates']} of {run['phases']}"),
            *(number(run["epsilon"], ".4g"), f"{run['delta']:.3g}", number(run["epsilon_after"], ".4g")),
        )
        for run in runs
    ]
    names = ("entry", "reserved (UTC)", "run", "unit", "noise", "q", "steps", "updates", "epsilon", "delta", "after")
    return "<h2>Runs</h2>" + (table(names, rows, "ntttnnnnnnn") if rows else "<p>None was reserved.</p>")


def _entries(checked: Checked) -> str:
    rows = []
    for row, entry in zip(checked.rows, checked.reading.entries, strict=True):
        charged = row.kind in ("run", "task", "infinite", "reconcile")
        left = 0.0 if isinf(row.epsilon) else row.remaining
        figures = (number(row.epsilon, ".4g"), number(left, ".4g")) if charged else ("", "")
        rows.append((str(row.sequence), _when(row.time), row.kind, *figures, what(row, entry), entry.hash[:16]))
    names = ("entry", "time (UTC)", "kind", "spent", "left", "what", "hash")
    return (
        "<h2>Entries</h2><p class=soft>Round 2.1 is the first phase of the second round. Spent and left are of the "
        "population's epsilon, after the entry.</p>" + table(names, rows, "nttnnwh")
    )


def _identity(checked: Checked) -> str:
    account = checked.account
    return (
        "<h2>Identity</h2><table>"
        f"<tr><td>site's public key (Ed25519)</td><td><code>{account.public_key}</code></td></tr>"
        f"<tr><td>head: entry {account.head.sequence}</td><td><code>{account.head.hash}</code></td></tr></table>"
    )


def _by_hand(checked: Checked) -> str:
    key = checked.account.public_key
    return f"""<h2>How to check this</h2>
<p>This page is a summary. The JSON file beside it holds every entry byte for byte. With deerfield installed:</p>
<pre><code>deerfield ledger verify NAME.json --key {key}</code></pre>
<p>Ask the hospital for the key by another way than this file, and the aggregator's operator for the newest head that it
has countersigned: a sound chain can still be an old copy.</p>
<p>By hand, with any JSON, SHA-256 and Ed25519 (RFC 8032) library, for each string of <code>entries</code>:</p>
<ol><li>Take <code>hash</code> and <code>signature</code> out. What is left, as JSON with sorted keys and no spaces, has
the SHA-256 that stands in <code>hash</code>.</li>
<li><code>signature</code> is the key's over the bytes <code>deerfield ledger entry v1\\n</code> and then the 32
bytes of <code>hash</code>.</li>
<li><code>previous</code> is the hash of the entry before, and 64 zeros in the first one.</li>
<li>The epsilon of a run follows from its noise multiplier, sample rate, steps and delta: the Poisson-subsampled
Gaussian mechanism under adding or removing one unit, by any accountant for privacy loss distributions.</li>
<li>Under the filter <code>sum</code>, epsilons and deltas of runs add up, each charged whole when it was reserved.
Under <code>renyi</code>, the Rényi divergences of one order add up, over the steps of all reserved tasks.</li>
<li>Each <code>commit</code> names one reservation and the digest of one update; no reservation has two.</li></ol>"""


def _when(time: float) -> str:
    return strftime("%Y-%m-%d %H:%M", gmtime(time))


def _burndown(checked: Checked) -> str:
    """The burn-down as SVG for the page."""
    from pipelines.ledger.burndown import figure
    from pipelines.pages.inline_svg import drawing, inline

    terms = checked.account.terms
    title = f"Privacy budget of {terms.population} at {terms.site}"
    with drawing("burndown"):
        return inline(
            figure(checked), "burndown", title, "What was left of epsilon after each entry of the table below."
        )
