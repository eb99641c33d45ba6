"""How good the model was after every phase, beside what it reached on the test set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deerfield.documents.evaluation import Evaluation, Interval
from pipelines.pages.formats import number
from pipelines.pages.page import joined, paragraph, table
from pipelines.report_page import wording
from pipelines.report_page.documents import Phase
from pipelines.report_page.found import Found
from pipelines.report_page.plots import intervals, legend, line, phases_along, picture, plain
from pipelines.report_page.rounds import ROWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = ("accuracy", "f1", "auc")
KEPT = ("accuracy", "f1", "precision", "recall", "auc")


def accuracy(found: Found) -> str:
    """The section."""
    phases = found.result.rounds if found.result else ()
    scored = [phase for phase in phases if phase.evaluation]
    if not scored:
        return joined(paragraph("No scores of published phases are known.", "gap"))
    names = [name for name in KEPT if any(name in phase.evaluation for phase in scored)]
    rows, more = wording.cut([_row(phase, names) for phase in phases], ROWS)
    return joined(
        _curve(phases, found.evaluation),
        table(("round", *map(wording.metric, names)), rows, "t" + "n" * len(names)),
        paragraph(more, "soft") if more else "",
        paragraph(
            "Each published adapter, scored on data that are public or belong to the consortium; single values have no "
            "interval. Those of the test set have one, under Evaluation.",
            "soft",
        ),
    )


def _row(phase: Phase, names: Sequence[str]) -> tuple[str, ...]:
    return wording.phase(phase, phase.factors), *(number(phase.evaluation.get(name), ".3f") for name in names)


def _curve(phases: Sequence[Phase], evaluation: Evaluation | None) -> str:
    scored = [(place + 1, phase) for place, phase in enumerate(phases) if phase.evaluation]
    names = [name for name in DRAWN if any(name in phase.evaluation for _, phase in scored)]
    if not names:
        return ""
    last = scored[-1][1]
    reached = ", ".join(f"{wording.metric(n)} {number(last.evaluation.get(n), '.3f')}" for n in names)
    words = f"After round {wording.phase(last, last.factors)}: {reached}."
    tested = _tested(evaluation)
    if tested:
        words += (
            f" Beside it: {wording.metric(evaluation.primary)} on the test set, with its interval."
            if evaluation
            else ""
        )

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1.5)) if tested else [figure.subplots()]
        _lines(axes[0], scored, names, [wording.phase(phase, phase.factors) for phase in phases])
        if tested and evaluation:
            intervals(axes[1], tested)
            axes[1].set_title(f"test set:\n{wording.metric(evaluation.primary)}", fontsize=9)

    return picture("curve", "Scores after each phase", words, draw, 3.2)


def _lines(axes: "Axes", scored: Sequence[tuple[int, Phase]], names: Sequence[str], labels: Sequence[str]) -> None:
    plain(axes)
    for place, name in enumerate(names):
        known = [(float(x), phase.evaluation[name]) for x, phase in scored if name in phase.evaluation]
        line(axes, [x for x, _ in known], [y for _, y in known], place, wording.metric(name))
    phases_along(axes, labels)
    axes.set_ylabel("score, higher is better", fontsize=9)
    legend(axes)


def _tested(evaluation: Evaluation | None) -> dict[str, Interval]:
    if evaluation is None:
        return {}
    each = {name: scored.metrics.get(evaluation.primary) for name, scored in evaluation.models.items()}
    return {name: found for name, found in each.items() if found is not None and found.value is not None}
