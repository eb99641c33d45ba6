"""How the model does from site to site, as far as anybody may know it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deerfield.documents.evaluation import Evaluation, SiteScores
from pipelines.pages.formats import number
from pipelines.pages.page import joined, paragraph, table
from pipelines.report_page import wording
from pipelines.report_page.found import Found
from pipelines.report_page.plots import NAMED, intervals, picture
from pipelines.report_page.rounds import ROWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNKNOWN = (
    "Not known: no site reported scores of its own, which is for its policy to allow, and no evaluation by site was "
    "given to this report."
)

AT_SITES = "What the sites measure of each model, on patients that they keep out of training"
NOISED = "Under the noise of each site's own policy: differences that are small beside it say nothing."


def spread(found: Found) -> str:
    """The section."""
    evaluation = found.evaluation
    parts = [_by_site(evaluation)] if evaluation and evaluation.by_site else []
    reported = _reported(found)
    if evaluation and any(scored.reported for scored in evaluation.models.values()):
        parts.append(_at_sites(evaluation))
    elif reported:
        names = sorted({name for row in reported.values() for name in row})
        rows = [(site, *(number(row.get(name), ".3f") for name in names)) for site, row in sorted(reported.items())]
        rows, more = wording.cut(rows, ROWS)
        head = ("site", *map(wording.metric, names))
        parts.append(
            "<h3>What the sites report themselves, as far as their policies allow</h3>"
            + table(head, rows, "t" + "n" * len(names))
            + (paragraph(more, "soft") if more else "")
        )
    if not parts:
        parts = [paragraph(UNKNOWN, "gap")]
    return joined(*parts)


def _at_sites(evaluation: Evaluation) -> str:
    """What each site reported on each model once training was over."""
    models = {name: scored.reported for name, scored in evaluation.models.items() if scored.reported}
    metrics = sorted({metric for told in models.values() for row in told.values() for metric in row})
    rows = [
        (site, name, *(number(told[site].get(metric), ".3f") for metric in metrics))
        for site in sorted({site for told in models.values() for site in told})
        for name, told in models.items()
        if site in told
    ]
    rows, more = wording.cut(rows, ROWS)
    head = ("site", "model", *map(wording.metric, metrics))
    told = paragraph(f"{NOISED} {more}".strip(), "soft")
    return f"<h3>{AT_SITES}</h3>" + table(head, rows, "tt" + "n" * len(metrics)) + told


def _reported(found: Found) -> Mapping[str, Mapping[str, float | None]]:
    """What each site reported last, by the evaluation or with its updates."""
    if found.evaluation and found.evaluation.reported:
        return found.evaluation.reported
    told: dict[str, Mapping[str, float | None]] = {}
    for phase in found.result.rounds if found.result else ():
        told |= phase.reported
    return told


def _value(scores: SiteScores, metric: str) -> str:
    """A metric without its interval: six of those are wider than a page."""
    found = scores.metrics.get(metric)
    return number(None if found is None else found.value, ".3f")


def _by_site(evaluation: Evaluation) -> str:
    name = wording.metric(evaluation.primary)
    each = {site: scores.metrics.get(evaluation.primary) for site, scores in evaluation.by_site.items()}
    known = {site: found for site, found in each.items() if found is not None and found.value is not None}
    others = sorted({m for scores in evaluation.by_site.values() for m in scores.metrics} - {evaluation.primary})
    rows, more = wording.cut(
        [
            (site, str(scores.examples), wording.estimate(each[site]), *(_value(scores, metric) for metric in others))
            for site, scores in sorted(evaluation.by_site.items())
        ],
        ROWS,
    )
    shown = table(("site", "examples", name, *map(wording.metric, others)), rows, "tnn" + "n" * len(others))
    told = paragraph(more, "soft") if more else ""
    if not known:
        return shown + told
    ranked = sorted(known.items(), key=lambda item: (item[1].value or 0.0, item[0]))
    worst, best = ranked[0], ranked[-1]
    words = (
        f"The candidate's {name} is lowest at {worst[0]}, {wording.estimate(worst[1])}, and highest at {best[0]}, "
        f"{wording.estimate(best[1])}; bars are {evaluation.confidence:.0%} intervals."
    )
    drawn = dict(ranked[:NAMED])
    if len(ranked) > NAMED:
        words += f" The {NAMED} lowest of {len(ranked)} sites are drawn."

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        intervals(axes, drawn, flat=True)
        axes.set_xlabel(f"{name} on the site's part of the test set", fontsize=9)

    return picture("sites", f"{name} from site to site", words, draw, 1.1 + 0.28 * len(drawn)) + shown + told
