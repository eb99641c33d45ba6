"""What the report's pictures share: sizes, colours that everybody can tell apart, and lines that lie on each other."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from deerfield.documents.evaluation import Interval
from pipelines.pages.formats import short
from pipelines.pages.inline_svg import drawing, inline
from pipelines.pages.page import figure
from pipelines.report_page.wording import several

if TYPE_CHECKING:  # it takes a second to import, and only those who draw need it
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#B0578D", "#B07D00", "#6b7580"
# Okabe and Ito's colours, some of them darker, so that they also show on paper; each line has dashes of its own too
STYLES: Sequence[Mapping[str, Any]] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILLION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": PURPLE, "linestyle": ":", "marker": "D"},
    {"color": ORANGE, "linestyle": (0, (5, 1)), "marker": "v"},
    {"color": GREY, "linestyle": (0, (3, 1, 1, 1)), "marker": "x"},
)
WIDTH = 8.0  # inches, 576 points: the page's width at its own size of text
MARKED = 40  # points of a line that are marked one by one
NAMED = 24  # sites, phases or labels that are named along an axis

Series = Mapping[str, Sequence[float]]


def picture(name: str, title: str, told: str, draw: Callable[["Figure"], None], height: float) -> str:
    """A figure of the page: `draw` fills it, `told` is what it shows in words, `height` is in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with drawing(name):
        made = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        draw(made)
        return figure(inline(made, name, title, told), f"{title}. {told}")


def plain(axes: "Axes", grid: Literal["x", "y"] = "y") -> None:
    """No frame, faint lines behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def phases_along(axes: "Axes", labels: Sequence[str]) -> None:
    """Names the phases below, as many as there is room for."""
    every = max(1, -(-len(labels) // 18))
    at = range(0, len(labels), every)
    axes.set_xticks([place + 1 for place in at], [labels[place] for place in at])
    axes.set_xlabel("round, and the factors that travelled", fontsize=9)


def line(axes: "Axes", xs: Sequence[float], ys: Sequence[float], number: int, label: str) -> None:
    """One series in the style of its number."""
    style = dict(STYLES[number % len(STYLES)])
    if len(xs) > MARKED:
        style.pop("marker")
    axes.plot(xs, ys, linewidth=1.8, markersize=5, label=label, **style)


def legend(axes: "Axes", named: Mapping[str, "Artist"] | None = None) -> None:
    """What the colours mean, above the data, so that it never lies over them; `named` instead of all that is drawn."""
    handles, labels = axes.get_legend_handles_labels() if named is None else (list(named.values()), list(named))
    longest = max(map(len, labels), default=0)
    columns = max(1, min(5 if named else 3, 96 // (longest + 8)))
    place: dict[str, Any] = {"bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2, "frameon": False, "fontsize": 9}
    axes.legend(handles, labels, loc="lower left", ncols=columns, **place)


def intervals(axes: "Axes", estimates: Mapping[str, Interval], flat: bool = False) -> None:
    """Dots with their intervals, one for each name: from left to right, or `flat`, from top to bottom."""
    plain(axes, grid="x" if flat else "y")
    for place, (name, found) in enumerate(estimates.items()):
        value = found.value or 0.0
        low = value - (value if found.low is None else found.low)
        high = (value if found.high is None else found.high) - value
        bars = [[max(low, 0.0)], [max(high, 0.0)]]
        colour = BLUE if flat or name == "candidate" else GREY
        x, y, xs, ys = ([value], [place], bars, None) if flat else ([place], [value], None, bars)
        axes.errorbar(x, y, xerr=xs, yerr=ys, fmt="o", color=colour, capsize=4, markersize=6)
    ticks = (list(range(len(estimates))), [short(name) for name in estimates])
    if flat:
        axes.set_yticks(*ticks)
        axes.set_ylim(len(estimates) - 0.5, -0.5)
    else:
        axes.set_xticks(*ticks, fontsize=9)
        axes.set_xlim(-0.6, len(estimates) - 0.4)


def alike(series: Series) -> dict[str, Sequence[float]]:
    """Series that are equal are one line; of more than six lines, the highest, the middle and the lowest at the end."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, values in series.items():
        groups.setdefault(tuple(values), []).append(name)
    if len(groups) <= len(STYLES):
        return {_called(names, len(series)): values for values, names in groups.items()}
    ends = sorted(groups, key=lambda values: values[-1])
    middle = median([values[-1] for values in ends])
    nearest = min(ends[1:-1], key=lambda values: abs(values[-1] - middle))
    chosen = {"highest": ends[-1], "middle": nearest, "lowest": ends[0]}
    return {f"{which}: {several(map(short, groups[values]), 1)}": values for which, values in chosen.items()}


def _called(names: Sequence[str], everybody: int) -> str:
    if len(names) == everybody and everybody > 1:
        return f"all {everybody} sites alike"
    return several(map(short, names), 3 if sum(map(len, map(short, names[:3]))) < 60 else 1)
