"""The burn-down of a population's budget: what was left of its epsilon after every entry, as a picture."""

from datetime import UTC
from math import inf, isinf
from pathlib import Path
from typing import TYPE_CHECKING

from deerfield.errors import InvalidInput
from deerfield.ledger.details import terms_of
from deerfield.ledger.statement import Row
from pipelines.ledger.ledgers import Checked

if TYPE_CHECKING:  # it takes a second to import, and only those who draw need it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES, DPI = (8.0, 4.5), 100  # 800 x 450
LINE, CAP, ALARM = "#1f5fa8", "#7a7a7a", "#b3261e"
SHORTEST = 60 / 86400  # days on the time axis, at least: a minute
NAMED = 8  # runs whose names fit beside their marks
ROOM = 1.18  # above the cap, for the names


def draw(checked: Checked, path: Path) -> None:
    """Writes a .png or .svg file.

    Raises:
        InvalidInput: another ending, or a file that cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise InvalidInput(f"--plot {path} ends in {path.suffix or 'nothing'}; name a .png or a .svg file")
    try:
        figure(checked).savefig(path, dpi=DPI)
    except OSError as error:
        raise InvalidInput(f"--plot {path} cannot be written ({error.strerror}); name another file") from error


def figure(checked: Checked) -> "Figure":
    """Remaining epsilon over time, the cap, and a mark for each run."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    terms = checked.account.terms
    drawn = Figure(figsize=SIZE_INCHES, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12))
    axes = drawn.subplots()
    axes.set_title(f"Privacy budget of {terms.population} at {terms.site}", loc="left", fontsize=12)
    axes.set_ylabel(f"remaining epsilon (unit: {terms.unit}, delta {terms.delta:g})")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if isinf(terms.epsilon):
        _say(axes, "This population protects nothing: its epsilon is infinite.")
        return drawn
    _burn(axes, checked)
    return drawn


def _burn(axes: "Axes", checked: Checked) -> None:
    rows = checked.rows
    times = [_time(row) for row in rows]
    caps = _caps(checked)
    left = [0.0 if isinf(row.epsilon) else row.remaining for row in rows]
    highest = max(caps)
    axes.step(times, caps, where="post", color=CAP, linestyle="--", linewidth=1.2, label="lifetime budget")
    axes.step(times, left, where="post", color=LINE, linewidth=2.0, label="remaining")
    _marks(axes, rows, left, highest)
    axes.set_ylim(0, highest * ROOM)
    _time_axis(axes, times)
    _infinite(axes, rows)
    # below the picture, so that it never lies over the data
    axes.figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def _caps(checked: Checked) -> list[float]:
    """The epsilon that the terms allowed when each entry was written."""
    caps: list[float] = []
    for entry in checked.reading.entries:
        new = entry.kind in ("open", "terms")
        caps.append(terms_of(entry.detail).epsilon if new else caps[-1])
    return [cap if cap < inf else 0.0 for cap in caps]


def _marks(axes: "Axes", rows: tuple[Row, ...], left: list[float], highest: float) -> None:
    """A dot where each run was reserved, with its number or, where there is room, its name."""
    runs = [at for at, row in enumerate(rows) if row.kind == "run"]
    if not runs:
        return
    times, size = [_time(rows[at]) for at in runs], 6 if len(runs) <= NAMED else 3.5
    axes.plot(times, [left[at] for at in runs], "o", color=LINE, markersize=size, clip_on=False, label="run reserved")
    if len(runs) > NAMED:
        return
    for number, at in enumerate(runs, start=1):
        before = left[at - 1] if at else highest
        axes.annotate(
            f"run {number}",
            (_time(rows[at]), before),  # above the step, where the line was
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=9,
            color="#333333",
        )


def _infinite(axes: "Axes", rows: tuple[Row, ...]) -> None:
    """From where on nothing is promised any more."""
    first = next((row for row in rows if isinf(row.epsilon)), None)
    if first is None:
        return
    axes.axvspan(_time(first), axes.get_xlim()[1], color=ALARM, alpha=0.08, linewidth=0)
    axes.axvline(_time(first), color=ALARM, linewidth=1.5, label="epsilon is infinite from here on: nothing is left")


def _time_axis(axes: "Axes", times: list[float]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlabel("time of the entry (UTC)")
    first, last = times[0], times[-1]
    margin = max(last - first, SHORTEST) * 0.06
    axes.set_xlim(first - margin, last + margin * 1.5)


def _say(axes: "Axes", text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=12, color=ALARM)
    axes.set_xticks([])
    axes.set_yticks([])


def _time(row: Row) -> float:
    """Days since the epoch, as matplotlib counts dates."""
    return row.time / 86400
