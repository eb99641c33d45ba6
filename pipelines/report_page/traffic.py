"""What travelled, and how far the published product is from the mean of the sites' products."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.pages.formats import number, size
from pipelines.pages.page import joined, paragraph, table
from pipelines.report_page import wording
from pipelines.report_page.documents import Phase
from pipelines.report_page.found import Found
from pipelines.report_page.plots import BLUE, MARKED, ORANGE, legend, line, phases_along, picture, plain
from pipelines.report_page.rounds import ROWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def traffic(found: Found) -> str:
    """The section."""
    if found.result is None or not found.result.rounds:
        return joined(paragraph("No published phase is known.", "gap"))
    phases = found.result.rounds
    up, down = sum(phase.bytes_up for phase in phases), sum(phase.bytes_down for phase in phases)
    exact = [phase.deviation for phase in phases if phase.deviation is not None]
    words = f"The sites together sent {size(up)} and fetched {size(down)}. " + (
        f"The published product was at most {number(max(exact), '.1e')} of its length away from the mean of the "
        "sites' products."
        if exact
        else "There is no deviation: the sites' products are not averaged."
    )
    labels = [wording.phase(phase, phase.factors) for phase in phases]
    rows, more = wording.cut(
        [
            (label, size(phase.bytes_up), size(phase.bytes_down), number(phase.deviation, ".1e"), phase.digest[:16])
            for label, phase in zip(labels, phases, strict=True)
        ],
        ROWS,
    )
    names = ("round", "sent by the sites", "fetched by the sites", "deviation", "adapter (sha256)")
    return joined(
        picture(
            "traffic", "Bytes and deviation of each phase", words, lambda made: _traffic(made, phases, labels), 2.8
        ),
        table(names, rows, "tnnnh"),
        paragraph(more, "soft") if more else "",
    )


def _traffic(figure: "Figure", phases: Sequence[Phase], labels: Sequence[str]) -> None:
    left, right = figure.subplots(1, 2)
    xs = [float(place + 1) for place in range(len(phases))]
    for axes in (left, right):
        plain(axes)
        phases_along(axes, labels)
    sent, fetched = [p.bytes_up / 1e6 for p in phases], [p.bytes_down / 1e6 for p in phases]
    if len(phases) > MARKED:
        line(left, xs, sent, 0, "sent")
        line(left, xs, fetched, 1, "fetched")
    else:
        left.bar([x - 0.2 for x in xs], sent, 0.4, color=BLUE, label="sent")
        stripes = {"hatch": "//", "edgecolor": "white", "linewidth": 0.0}
        left.bar([x + 0.2 for x in xs], fetched, 0.4, color=ORANGE, label="fetched", **stripes)
    left.set_ylabel("MB, all sites together", fontsize=9)
    legend(left)
    known = [(x, p.deviation) for x, p in zip(xs, phases, strict=True) if p.deviation is not None]
    if known:
        line(right, [x for x, _ in known], [y for _, y in known], 0, "deviation")
        _scaled(right, [y for _, y in known])
    else:
        right.text(0.5, 0.5, "none: nothing is averaged", transform=right.transAxes, ha="center", fontsize=9)
    right.set_ylabel("deviation, relative", fontsize=9)


def _scaled(axes: "Axes", values: Sequence[float]) -> None:
    """Powers of ten where the values span several, and numbers that need no other alphabet."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if min(values) > 0 and max(values) / min(values) > 20:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, max(values) * 1.15 or 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}" if value else "0"))
