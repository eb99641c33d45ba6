"""Writes docs/metrics.md from the declarations of the metrics: `python docs/metrics.py > docs/metrics.md`."""

from collections.abc import Iterable

from services.aggregator import metrics as aggregator
from services.client import metrics as site
from services.telemetry.families import Family

HEAD = """# Metrics and logs

Written by `python docs/metrics.py > docs/metrics.md`; a test holds it against the code.

Both services serve metrics over plain HTTP at `/metrics`, each from a registry of its own, where `--metrics HOST:PORT`
says so (`DEERFIELD_METRICS`; at a site `DEERFIELD_SITE_METRICS`). By default there is no such port. It has no TLS and
asks nobody who they are: give it an address that Prometheus alone reaches. Names and units follow Prometheus'
conventions. Labels are bounded: a run has one until it has ended; calls, reasons, states and outcomes are closed sets;
a site's populations are those of its policy; and no label names a site, a folder or a column.

"Resumed" is what an interrupted upload did not have to send again. Late sites are counted against the phase before the
newest one. What is on runs is read from the database at each fetch: it is right after a restart, and absent while
`deerfield_database_up` is 0.
"""
LOGS = """
## Logs
Both services log to stderr: `--log json` or `--log console` (`DEERFIELD_LOG`); left out, it is JSON unless stderr is a
terminal. What libraries say through `logging` has the same form. A process that cannot go on says so in one last line,
`error: ...`: an event of the log where `json` was asked for, and else plain text, for whoever started the process
([exit-codes.md](exit-codes.md)).

Every line has `event`, `level`, `timestamp` (UTC) and `service`. Lines that are written while a call is answered have
`call` and, as far as the call names them, `site`, `run`, `round` and `phase`; lines about a phase that is aggregated
have the last three; every line of a site has `site` and `run`, and while it works on a task `round` and `phase`.

No log holds records, patients' ids, labels of records, tensors or raw norms. A site's own log may name the site's
folders, files and columns, and labels that a run does not declare, so that its operator can mend them. Those of the
aggregator and the evaluator may not, nor may MLflow, events or metrics.

`tests/integration/test_planted.py` runs a whole federation over data with planted names and looks for them there.
"""


def table(families: Iterable[Family]) -> str:
    """One row for each metric."""
    rows = [(f"`{each.name}`", each.kind, ", ".join(each.labels), each.unit, each.meaning) for each in families]
    head = ("metric", "type", "labels", "unit", "meaning")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


def markdown() -> str:
    """The page."""
    parts = [HEAD, f"## Of the aggregator\n{table(aggregator.FAMILIES)}\n", f"## Of a site\n{table(site.FAMILIES)}\n"]
    return "\n".join(parts) + LOGS


if __name__ == "__main__":
    print(markdown(), end="")
