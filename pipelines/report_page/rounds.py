"""The phases of a run: how long each took, who answered, who was missing and why, and what else happened."""

from collections.abc import Sequence

from pipelines.pages.page import joined, paragraph, table
from pipelines.report_page import wording
from pipelines.report_page.documents import Incident, OpenPhase, Phase, ResultDocument
from pipelines.report_page.found import Found
from pipelines.report_page.plots import NAMED
from pipelines.report_page.timeline import timeline

ROWS = 200  # phases in a table
INCIDENTS = 60
SECONDS = {"silent_s": "silent for seconds", "paused_s": "paused for seconds"}
QUIET = "Nothing else happened: no site declined, left or was lost, and the run was never paused."
WORDS = (
    "A phase is one exchange: every site trains on its own data and sends an update, the aggregator publishes the mean "
    "of the updates. A and B are the two factors of the adapter."
)


def rounds(found: Found) -> str:
    """The section."""
    result = found.result
    if result is None:
        return joined(paragraph("Nothing is known of the run's rounds.", "gap"))
    begun = bool(result.rounds or result.open)
    parts = (_phases(result),) if begun else (paragraph("No site has taken a task: no phase was begun.", "gap"),)
    return joined(*parts, _incidents(result.incidents) if result.incidents or begun else "")


def _phases(result: ResultDocument) -> str:
    rows, more = wording.cut([_row(phase) for phase in result.rounds], ROWS)
    if result.open is not None:
        rows = [*rows, _unpublished(result.open, "not yet" if result.state in ("running", "paused") else "never")]
    names = ("round", "published after", "took", "answered", "missing, and why")
    parts = (
        paragraph(WORDS),
        timeline(result),
        table(names, rows, "tnnnw"),
        paragraph(more, "soft") if more else "",
    )
    return "\n".join(filter(None, parts))


def _row(phase: Phase) -> tuple[str, ...]:
    of = len(phase.sites) + len(phase.missing)
    return (
        wording.phase(phase, phase.factors),
        "–" if phase.published_s is None else wording.duration(phase.published_s),
        wording.duration(phase.seconds),
        f"{len(phase.sites)} of {of}" if of else "–",
        _missing(phase),
    )


def _unpublished(phase: OpenPhase, published: str) -> tuple[str, ...]:
    came = sum(answered is not None for _, answered in phase.sites.values())
    return (wording.phase(phase), published, "–", f"{came}, of {len(phase.sites)} that began", _missing(phase))


def _missing(phase: OpenPhase) -> str:
    told = [f"{site} {why}" for site, why in list(phase.missing.items())[:NAMED]]
    return "; ".join(told) + (f"; and {len(phase.missing) - NAMED} more" if len(phase.missing) > NAMED else "")


def _incidents(incidents: Sequence[Incident]) -> str:
    if not incidents:
        return paragraph(QUIET)
    rows, more = wording.cut([_incident(each) for each in incidents], INCIDENTS)
    names = ("after", "round", "site", "what", "details")
    told = table(names, rows, "ntttw") + (paragraph(more, "soft") if more else "")
    return f"<h3>What else happened</h3>{told}"


def _incident(each: Incident) -> tuple[str, ...]:
    where = "" if each.round is None or each.phase is None else f"{each.round + 1}.{each.phase + 1}"
    said = wording.flat({name: value for name, value in (each.model_extra or {}).items() if value != ""})
    details = "; ".join(f"{SECONDS.get(name, name.replace('_', ' '))}: {value}" for name, value in said.items())
    return wording.duration(each.at_s), where, each.site, each.kind.replace("_", " "), details
