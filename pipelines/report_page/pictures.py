"""An evaluation in pictures, for a page: how sure the figures are, what is mistaken for what, ROC, calibration."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deerfield.documents.evaluation import Interval
from pipelines.pages.formats import short
from pipelines.pages.page import paragraph
from pipelines.report_page.plots import BLUE, GREY, STYLES, intervals, legend, picture, plain
from pipelines.report_page.wording import metric

if TYPE_CHECKING:  # it takes a second to import, and only those who draw need it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = 60  # labels up to which a confusion matrix is drawn: each cell is a shape, for pages show no embedded image
COUNTED = 10  # labels up to which a confusion matrix has its counts written in
NAMED = 24  # labels up to which its axes name them
LONGEST = 18  # characters of a label along an axis
ORDER = ("candidate", "champion", "base")  # of models


def pictures(found: Mapping[str, Any]) -> str:
    """The pictures of an evaluation.json as HTML, each with what it shows in words."""
    parts = [_sureness(found), _confusion(found), _curves(found), _reliability(found)]
    return "\n".join([*map(paragraph, found["notes"]), *filter(None, parts)])


def _models(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: found["models"][name] for name in ORDER if name in found["models"]}


def _sureness(found: Mapping[str, Any]) -> str:
    """The primary metric of each model, and by how much the candidate is better, with their intervals."""
    primary = found["primary"]
    values = _known({name: each["metrics"][primary] for name, each in _models(found).items()})
    better = _known({f"than {name}": each[primary] for name, each in found["differences"].items()})
    if not values:
        return ""
    said = ", ".join(f"{name} {each.value:.3f}" for name, each in values.items())
    told = f"{metric(primary)}: {said}. Bars are {found['confidence']:.0%} intervals"
    told += "; a difference whose bar keeps off zero is hardly one of chance." if better else "."

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, 2 if better else 1, squeeze=False)[0]
        intervals(axes[0], values)
        axes[0].set_ylabel(metric(primary), fontsize=9)
        if better:
            intervals(axes[1], better)
            axes[1].axhline(0, color=GREY, linewidth=1, linestyle=":")
            axes[1].set_ylabel(f"{metric(primary)}: candidate better", fontsize=9)

    return picture("evaluation-intervals", "How sure the figures are", told, draw, 2.8)


def _known(each: Mapping[str, Mapping[str, float | None]]) -> dict[str, Interval]:
    return {name: Interval.model_validate(dict(found)) for name, found in each.items() if found["value"] is not None}


def _confusion(found: Mapping[str, Any]) -> str:
    """What the candidate, and the champion beside it, take for what; colours are shares of the actual label."""
    models = {name: np.array(each["confusion"]) for name, each in _models(found).items() if name != "base"}
    labels = found["labels"]
    told = _mistaken(models["candidate"], labels)
    if len(labels) > DRAWN:
        return paragraph(told)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
        for place, (name, counts) in enumerate(models.items()):
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            axes[place].pcolormesh(shares, vmin=0, vmax=1, cmap="Blues", edgecolors="face", linewidth=0.2)
            axes[place].set_aspect("equal")
            axes[place].set_ylim(len(labels), 0)  # the first label is above
            axes[place].set_title(name, fontsize=10)
            axes[place].set_xlabel("predicted", fontsize=9)
            _named(axes[place], labels, first=place == 0)
            if len(labels) <= COUNTED:
                _write(axes[place], counts, shares)
        axes[0].set_ylabel("actual", fontsize=9)

    height = min(4.6, 2.0 + 0.28 * len(labels)) if len(models) > 1 else min(6.5, 2.2 + 0.4 * len(labels))
    return picture("evaluation-confusion", "What is taken for what", told, draw, height)


def _mistaken(counts: Any, labels: Sequence[str]) -> str:
    right, total = int(np.trace(counts)), int(counts.sum())
    said = f"The candidate is right in {right} of {total} examples; rows are actual labels, colours their shares."
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return said
    actual, predicted = divmod(int(wrong.argmax()), len(labels))
    times = int(wrong[actual, predicted])
    return f"{said} Its commonest mistake: {labels[actual]} is taken for {labels[predicted]}, {times} times."


def _named(axes: "Axes", labels: Sequence[str], *, first: bool) -> None:
    if len(labels) > NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = [short(label, LONGEST) for label in labels]
    at = [place + 0.5 for place in range(len(labels))]
    axes.set_xticks(at, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(at, names, fontsize=8)
    axes.tick_params(labelleft=first, length=0)


def _write(axes: "Axes", counts: Any, shares: Any) -> None:
    for row, column in np.ndindex(counts.shape):
        colour = "w" if shares[row, column] > 0.55 else "k"
        middle = (column + 0.5, row + 0.5)
        axes.text(*middle, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)


def _curves(found: Mapping[str, Any]) -> str:
    """One ROC curve for each label of the candidate, or for those that it tells apart worst."""
    curves = {label: each for label, each in found["models"]["candidate"]["roc"].items() if each is not None}
    if not curves:
        return ""
    worst = sorted(curves, key=lambda label: curves[label]["auc"])
    drawn = [label for label in curves if label in worst[: len(STYLES)]]
    told = f"Each label against all others; the hardest to tell is {worst[0]}, AUC {curves[worst[0]]['auc']:.3f}."
    told += f" Of {len(curves)} labels, the {len(drawn)} hardest are drawn." if len(drawn) < len(curves) else ""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        plain(axes)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        for place, label in enumerate(drawn):
            style: dict[str, Any] = {**STYLES[place], "marker": ""}
            called = f"{short(label)} (AUC {curves[label]['auc']:.3f})"
            axes.plot(curves[label]["fpr"], curves[label]["tpr"], linewidth=1.8, label=called, **style)
        axes.set_xlabel("false positive rate", fontsize=9)
        axes.set_ylabel("true positive rate", fontsize=9)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        legend(axes)

    return picture("evaluation-roc", "ROC curves of the candidate", told, draw, 4.2)


def _reliability(found: Mapping[str, Any]) -> str:
    """How often the candidate and the champion are right, by how sure they say they are."""
    models = {name: each["calibration"] for name, each in _models(found).items() if name != "base"}
    said = ", ".join(f"{name} {each['ece']:.3f}" for name, each in models.items())
    told = f"On the diagonal a model is as often right as it says. Expected calibration error: {said}."

    def draw(figure: "Figure") -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        plain(upper)
        plain(lower)
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        for place, (name, each) in enumerate(models.items()):
            bins = [row for row in each["bins"] if row["examples"]]
            at, right = [row["confidence"] for row in bins], [row["accuracy"] for row in bins]
            upper.plot(at, right, linewidth=1.5, markersize=5, label=name, **STYLES[place])
        rows = models["candidate"]["bins"]
        widths = [0.9 * (row["high"] - row["low"]) for row in rows]
        lower.bar(
            [(row["low"] + row["high"]) / 2 for row in rows], [row["examples"] for row in rows], widths, color=BLUE
        )
        upper.set_ylabel("share that is right", fontsize=9)
        upper.set_ylim(-0.02, 1.02)
        lower.set_ylabel("examples", fontsize=9)
        lower.set_xlabel("the model's highest probability", fontsize=9)
        lower.set_xlim(-0.02, 1.02)
        legend(upper)

    return picture("evaluation-reliability", "Reliability", told, draw, 4.4)
