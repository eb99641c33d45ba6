"""What the run has cost each site in privacy: epsilon after every phase, and the population's total over all runs."""

from collections.abc import Mapping, Sequence
from math import inf, isinf
from typing import TYPE_CHECKING

from deerfield.runspec import RunSpec
from pipelines.pages.formats import number, short
from pipelines.pages.page import box, joined, paragraph, table
from pipelines.report_page import wording
from pipelines.report_page.documents import ResultDocument, Site
from pipelines.report_page.found import Found
from pipelines.report_page.plots import (
    BLUE,
    GREY,
    NAMED,
    VERMILLION,
    Series,
    alike,
    legend,
    line,
    phases_along,
    picture,
    plain,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SITES = 200  # rows of the table
MEANING = {
    "record": "one example",
    "patient": "all examples of one patient",
    "site": "everything that one site contributes",
}
NONE = (
    "Unit none: this run promises nothing, and its epsilon is infinite at every site. Treat its model and its updates "
    "as if they were the data."
)
UNCOUNTED = "No phase was published, so nothing is counted here. What a site has reserved stands in its own ledger."
COLUMNS = (
    "Spent in this run: counted by the aggregator from the tasks that were taken. Total of the population: over all "
    "runs on these data, as each site's signed attestation says from its own ledger, where a run is charged as a "
    "whole when it is reserved. Each site also enforces a limit of its own, which is known to the site alone. Noise is "
    "the noise multiplier, q the probability of a unit to be in a step."
)


def privacy(found: Found) -> str:
    """The section."""
    spec, result = found.spec, found.result
    if spec is None or result is None:
        return joined(paragraph("What was spent is not known.", "gap"))
    if spec.privacy.unit == "none":
        return box("verdict bad", "No privacy.", paragraph(NONE))
    if not result.sites:
        return joined(paragraph(_promise(spec)), paragraph(UNCOUNTED, "gap"))
    rows, more = wording.cut([_row(name, site, spec) for name, site in _ranked(result)], SITES)
    names = ("site", "spent in this run", "of its limit", "total of the population", "noise", "q", "steps", "clip")
    return joined(
        paragraph(_promise(spec)),
        _burndown(result, spec),
        table(names, rows, "tnnnnnnn"),
        paragraph(more, "soft") if more else "",
        _totals(result, spec),
        paragraph(COLUMNS, "soft"),
    )


def _promise(spec: RunSpec) -> str:
    limit, total = number(spec.privacy.epsilon, "g"), spec.federation.lifetime_epsilon
    rule = (
        f" By the federation's rule no population may spend more than epsilon {total:g} in its life."
        if total is not None
        else " The run file sets no limit over several runs; each site's policy does."
    )
    return (
        f"Differential privacy protects {MEANING[spec.privacy.unit]}: what anybody can learn from the updates and the "
        f"model hardly depends on them, bounded by epsilon {limit} with delta {spec.privacy.delta:g}."
        f"{rule}"
    )


def _ranked(result: ResultDocument) -> list[tuple[str, Site]]:
    """Sites, those that have spent most first."""
    return sorted(result.sites.items(), key=lambda each: (-(each[1].epsilon or 0.0), each[0]))


def _row(name: str, site: Site, spec: RunSpec) -> tuple[str, ...]:
    limit = spec.privacy.epsilon
    share = "–" if site.epsilon is None or not limit or isinf(site.epsilon) else f"{site.epsilon / limit:.1%}"
    return (
        name,
        number(site.epsilon, ".3f"),
        f"{number(limit, 'g')} ({share})",
        number(site.epsilon_total, ".3f"),
        *(number(site.noise_multiplier), number(site.sample_rate), str(site.steps), number(site.clip)),
    )


def _burndown(result: ResultDocument, spec: RunSpec) -> str:
    limit = spec.privacy.epsilon or inf
    if not result.rounds or isinf(limit):
        return ""
    left = remaining([phase.epsilon for phase in result.rounds], limit)
    labels = [wording.phase(phase, phase.factors) for phase in result.rounds]
    ends = {name: values[-1] for name, values in left.items()}
    worst = min(ends, key=lambda name: (ends[name], name))
    words = (
        f"Every site begins with epsilon {limit:g} for this run. After {wording.count(len(labels), 'phase')} the least "
        f"is left at {worst}: {ends[worst]:.3f}."
    )
    return picture(
        "burndown", "What was left of the run's epsilon", words, lambda made: _draw(made, left, limit, labels), 2.8
    )


def remaining(spent: Sequence[Mapping[str, float]], limit: float) -> Series:
    """By site: what is left of `limit` before the first phase and after each one; 0 where epsilon is infinite."""
    left: dict[str, list[float]] = {name: [limit] for phase in spent for name in phase}
    for phase in spent:
        for name, values in left.items():
            used = phase.get(name)
            values.append(values[-1] if used is None else max(limit - used, 0.0) if used < inf else 0.0)
    return left


def _draw(figure: "Figure", left: Series, limit: float, labels: Sequence[str]) -> None:
    axes = figure.subplots()
    plain(axes)
    for place, (name, values) in enumerate(alike(left).items()):
        line(axes, range(len(values)), values, place, name)
    axes.axhline(0, color=VERMILLION, linewidth=1.4, linestyle=(0, (4, 2)))
    phases_along(axes, labels)
    axes.set_ylim(-0.02 * limit, limit * 1.04)
    axes.set_xlim(-0.2, len(labels) + 0.2)
    words = "limit: nothing is left"
    axes.annotate(words, (-0.2, 0.0), (4, 4), textcoords="offset points", fontsize=9, color=VERMILLION)
    axes.set_ylabel("epsilon left for this run", fontsize=9)
    legend(axes)


def _totals(result: ResultDocument, spec: RunSpec) -> str:
    limit = spec.federation.lifetime_epsilon
    known = [(name, site.epsilon_total) for name, site in _ranked(result) if site.epsilon_total is not None]
    spent = sorted(((name, total) for name, total in known if not isinf(total)), key=lambda each: (-each[1], each[0]))
    if not spent:
        return ""
    shown = spent[:NAMED]
    rule = f" The federation's limit is {limit:g}." if limit is not None else ""
    most = f"The highest is {shown[0][1]:.3f} at {shown[0][0]}.{rule}"
    if len(spent) > NAMED:
        most += f" The {NAMED} highest of {len(spent)} sites are drawn."

    def draw(figure: "Figure") -> None:
        _bars(figure.subplots(), shown, limit)

    return picture("totals", "Epsilon of each site's population over all runs", most, draw, 1.0 + 0.28 * len(shown))


def _bars(axes: "Axes", spent: Sequence[tuple[str, float]], limit: float | None) -> None:
    plain(axes, grid="x")
    rows = range(len(spent) - 1, -1, -1)
    colours = [VERMILLION if limit is not None and total > limit else BLUE for _, total in spent]
    bars = axes.barh(list(rows), [total for _, total in spent], height=0.6, color=colours)
    axes.bar_label(bars, fmt="%.3f", padding=4, fontsize=9)
    axes.set_yticks(list(rows), [short(name) for name, _ in spent])
    axes.set_xlim(0, max([total for _, total in spent] + ([limit] if limit else [])) * 1.12)
    if limit is not None:
        axes.axvline(limit, color=GREY, linestyle="--", linewidth=1.4, label=f"the federation's limit, {limit:g}")
        legend(axes)
    axes.set_xlabel("epsilon, as attested", fontsize=9)
