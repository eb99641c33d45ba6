"""The picture of who worked when: a bar for each task, a line for each publication."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from pipelines.pages.formats import short
from pipelines.report_page import wording
from pipelines.report_page.documents import Phase, ResultDocument
from pipelines.report_page.plots import BLUE, GREY, NAMED, ORANGE, VERMILLION, legend, picture, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = 4000  # tasks that are drawn one by one
NAMES = ("odd phases", "even phases", "phase without an end", "published", "missing")
KINDS: Sequence[Mapping[str, Any]] = (
    {"color": BLUE, "label": NAMES[0]},
    {"color": ORANGE, "hatch": "////", "label": NAMES[1]},
    {"color": "#c9cdd2", "hatch": "xx", "label": NAMES[2]},
)


def timeline(result: ResultDocument) -> str:
    """The picture; empty where the result says nothing of single sites, or more than can be drawn."""
    sites = _sites(result)
    if not sites or sum(len(phase.sites) for phase in result.rounds) > BARS:
        return ""
    shown, more = sorted(sites[:NAMED]), len(sites) - NAMED
    total = wording.duration(_end(result))
    words = (
        f"Each bar is one site at work on one phase, from taking its task to its answer; a line is a publication. "
        f"{wording.count(len(result.rounds), 'phase')} in {total}"
        + (f"; {NAMED} sites, those that missed most first; {more} are not drawn." if more > 0 else ".")
    )

    def draw(figure: "Figure") -> None:
        _bars(figure.subplots(), result, shown)

    return picture("timeline", "Who worked when", words, draw, height=1.5 + 0.28 * len(shown))


def _bars(axes: "Axes", result: ResultDocument, sites: Sequence[str]) -> None:
    plain(axes, grid="x")
    row = {site: len(sites) - 1 - place for place, site in enumerate(sites)}
    unit, name = (60.0, "minutes") if _end(result) > 180 else (1.0, "seconds")
    for number_, phase in enumerate(result.rounds):
        spans = [(site, taken, done) for site, (taken, done) in phase.sites.items() if site in row]
        _worked(axes, row, [(s, t, d) for s, t, d in spans if t is not None and d is not None], number_ % 2, unit)
        _missed(axes, [row[site] for site in phase.missing if site in row], _middle(phase), unit)
    if result.open is not None:
        end = _end(result)
        begun = [(site, t, d or end) for site, (t, d) in result.open.sites.items() if site in row and t is not None]
        _worked(axes, row, begun, 2, unit)
        _missed(axes, [row[site] for site in result.open.missing if site in row], end, unit)
    published = [phase.published_s / unit for phase in result.rounds if phase.published_s is not None]
    axes.vlines(published, -0.6, len(sites) - 0.4, color=GREY, linewidth=0.9, label="published")
    axes.set_yticks(list(row.values()), [short(site) for site in row])
    axes.set_ylim(-0.6, len(sites) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{name} since the run began", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    each = dict(zip(labels, handles, strict=True))  # a label stands once
    legend(axes, {label: each[label] for label in NAMES if label in each})


def _worked(
    axes: "Axes", row: Mapping[str, int], spans: Sequence[tuple[str, float, float]], kind: int, unit: float
) -> None:
    if spans:
        axes.barh(
            [row[site] for site, _, _ in spans],
            [max(done - taken, 0.0) / unit for _, taken, done in spans],
            left=[taken / unit for _, taken, _ in spans],
            height=0.62,
            edgecolor="white",
            linewidth=0.4,
            **KINDS[kind],
        )


def _missed(axes: "Axes", rows: Sequence[int], at_s: float | None, unit: float) -> None:
    if rows and at_s is not None:
        xs = [at_s / unit] * len(rows)
        axes.plot(xs, rows, "X", color=VERMILLION, markersize=8, linestyle="", clip_on=False, label="missing")


def _middle(phase: Phase) -> float | None:
    return None if phase.published_s is None else phase.published_s - phase.seconds / 2


def _sites(result: ResultDocument) -> list[str]:
    """Every site, those that missed most phases first."""
    every = [*result.rounds, *([result.open] if result.open else [])]
    missed = Counter(site for phase in every for site in phase.missing)
    return sorted({site for phase in every for site in (*phase.sites, *phase.missing)}, key=lambda s: (-missed[s], s))


def _end(result: ResultDocument) -> float:
    """Seconds from the beginning to the last thing that is known."""
    every = [result.ended_s or 0.0, *(phase.published_s or 0.0 for phase in result.rounds)]
    if result.open is not None:
        every += [time for times in result.open.sites.values() for time in times if time is not None]
    every += [each.at_s for each in result.incidents]
    return max((time for time in every if isfinite(time)), default=0.0)
