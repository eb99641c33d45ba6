"""The head of the report and what ran: the first page, for those who read no other."""

from html import escape

from deerfield import __version__
from deerfield.runspec import RunSpec
from deerfield.strategies import KNOWN, describe
from deerfield.strategy import Declaration
from pipelines.pages.formats import number
from pipelines.pages.page import box, facts, joined, pairs, paragraph
from pipelines.report_page import wording
from pipelines.report_page.documents import ResultDocument
from pipelines.report_page.found import Found
from pipelines.report_page.verdict import headline

STATES = {
    "finished": ("Finished.", "verdict"),
    "failed": ("Failed.", "verdict bad"),
    "aborted": ("Aborted.", "verdict bad"),
    "paused": ("Paused.", "verdict open"),
    "running": ("Still running.", "verdict open"),
}
UNKNOWN = ("Not known.", "verdict bad")
SITES = 24  # named in the table


def head(found: Found) -> str:
    """Title, how the run ended, the main numbers, and what is missing."""
    result, spec = found.result, found.spec
    word, kind = STATES.get(result.state, UNKNOWN) if result else UNKNOWN
    said = _story(found, result, spec) if result else "Nothing was heard of this run."
    because = paragraph(f"Why: {result.reason}") if result and result.reason else ""
    around = paragraph(f"The pipeline around it: {found.failure}") if found.failure else ""
    begun = f"began {wording.date(result.started)} · " if result and result.started else ""
    return "\n".join(
        (
            f"<header><h1>Report of {escape(found.name)}</h1>",
            f"<p class=soft>{escape(begun)}written by deerfield {escape(__version__)}</p>",
            box(kind, word, paragraph(said), because, around),
            _verdict(found),
            facts(_figures(found)) if result else "",
            _missing(found),
            "</header>",
        )
    )


def _verdict(found: Found) -> str:
    if found.verdict is None:
        return ""
    passed = found.verdict.passed
    kind, word = ("verdict", "Promotion: passed.") if passed else ("verdict bad", "Promotion: refused.")
    return box(kind, word, paragraph(headline(found.verdict)))


def _story(found: Found, result: ResultDocument, spec: RunSpec | None) -> str:
    done, planned = len(result.rounds), found.phases
    count = f"{done} of {planned} phases were published" if planned else f"{wording.count(done, 'phase')} published"
    if spec is None:
        return f"{count}."
    sites = wording.count(len(spec.federation.sites), "site")
    return f"{sites} trained on {spec.population}; {count}. {_sends(spec, found.declares)}"


def _sends(spec: RunSpec, declares: Declaration | None) -> str:
    """What has left the sites, for those who answer for their data."""
    if declares is None:
        return ""
    if declares.topology == "pooled":
        return "All data lay in one place: a simulation, for comparison."
    left = f"No example left its site. What a site sent in each phase: {declares.sends}."
    if spec.privacy.unit == "none":
        return f"{left} There was no noise in it, and so no privacy."
    if spec.privacy.unit == "site":
        return f"{left} The noise was added by the aggregator, which saw each site's update."
    return left


def _figures(found: Found) -> dict[str, str]:
    result, spec = found.result, found.spec
    if result is None:
        return {}
    figures = {"phases published" + (f", of {found.phases}" if found.phases else ""): str(len(result.rounds))}
    if spec is not None and spec.privacy.unit != "none":
        spent = max((site.epsilon for site in result.sites.values() if site.epsilon is not None), default=None)
        limit = number(spec.privacy.epsilon, "g")
        figures[f"highest epsilon of a site, of {limit} for each {spec.privacy.unit}"] = number(spent, ".3f")
    elif spec is not None:
        figures["epsilon: unit none promises nothing"] = "infinite"
    best = found.evaluation.models.get("candidate") if found.evaluation else None
    if best is not None and found.evaluation is not None:
        primary = found.evaluation.primary
        figures[f"{wording.metric(primary)} on the test set"] = wording.estimate(best.metrics.get(primary))
    elif (scored := [phase for phase in result.rounds if phase.evaluation]) and "f1" in scored[-1].evaluation:
        figures["macro-F1 of the last scored phase"] = number(scored[-1].evaluation["f1"], ".3f")
    figures["from beginning to end"] = wording.duration(result.seconds)
    return figures


def _missing(found: Found) -> str:
    if not found.missing:
        return ""
    listed = "".join(f"<li>{escape(each)}</li>" for each in found.missing)
    return box("verdict open", "This report is not complete.", f"<ul>{listed}</ul>")


def ran(found: Found) -> str:
    """The section."""
    spec, result = found.spec, found.result
    if spec is None:
        return joined(paragraph("The run file is not known.", "gap"))
    privacy, model, lora = spec.privacy, spec.model, spec.model.lora
    epsilon = "none" if privacy.unit == "none" else f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}"
    options = ", ".join(f"{name} {value}" for name, value in spec.strategy.items() if name != "name")
    adapter = result.adapter_sha256 if result else ""
    title = f": {describe(strategy).title}" if (strategy := str(spec.strategy["name"])) in KNOWN else ""
    epochs = wording.count(spec.epochs, "local epoch")
    rows = {
        "name": spec.name,
        "run": found.name,
        "strategy": f"{strategy}{' with ' + options if options else ''}{title}",
        "rounds": f"{spec.rounds}, {_phases(found, spec)}, {epochs} in each; seed {spec.seed}",
        "population": spec.population,
        "sites": f"{wording.several(spec.federation.sites, SITES)}; quorum {spec.federation.quorum or 'all'}",
        "labels": ", ".join(spec.labels),
        "privacy": f"unit {privacy.unit}, {epsilon}, clip {number(privacy.clip)}, sampling q {privacy.sample_rate:g}",
        "base model": model.base,
        "its sha256": model.digest or "not known",
        "adapter": f"LoRA of rank {lora.rank}, scale {lora.scale:g}, beside {', '.join(lora.targets)}",
        "newest adapter, sha256": adapter if isinstance(adapter, str) else f"one for each of {len(adapter)} sites",
        "registered as": _registered(result),
        "run file, sha256": spec.sha256,
        "code": f"deerfield {result.version}" if result and result.version else _code(found),
    }
    return joined(pairs(rows))


def _phases(found: Found, spec: RunSpec) -> str:
    each = found.phases // spec.rounds
    return f"{wording.count(each, 'phase')} in each" if each else "all at once"


def _registered(result: ResultDocument | None) -> str:
    if result is None or not result.registered:
        return "nothing"
    return f"models:/{result.registered.get('name', '')}/{result.registered.get('version', '')}"


def _code(found: Found) -> str:
    """The version of the code, where the gate has looked for it."""
    evidence = wording.flat(found.verdict.evidence) if found.verdict else {}
    known = [value for name, value in evidence.items() if "code" in name.lower()]
    return ", ".join(known) or "not known here; lineage.json of the tracked run says it"
