"""What KFP's pages show of an evaluation: metrics, the confusion matrix and ROC curve, and a page of its own."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from deerfield.documents.evaluation import Evaluation
from deerfield.documents.reading import read
from pipelines.pages.page import document, section
from pipelines.report_page.evaluation import evaluation
from pipelines.report_page.found import Found
from pipelines.report_page.page import STYLE


class Metrics(Protocol):
    """As KFP's artifact of this name takes them."""

    def log_metric(self, metric: str, value: float) -> None:
        """Takes a figure."""


class Classification(Protocol):
    """As KFP's ClassificationMetrics takes them."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Takes counts: rows are the actual label."""

    def log_roc_curve(self, fpr: list[float], tpr: list[float], threshold: list[float]) -> None:
        """Takes one curve."""


def show(path: Path, metrics: Metrics, classes: Classification, page: Path) -> None:
    """Fills KFP's artifacts, and writes the HTML `page`, from the evaluation.json in `path`."""
    found = read(Evaluation, path)
    candidate = found.candidate
    for name, value in _figures(found):
        metrics.log_metric(name, value)
    classes.log_confusion_matrix(list(found.labels), [list(row) for row in candidate.confusion])
    if (curve := candidate.roc_micro) is not None:  # KFP draws one; the page has one for each label
        classes.log_roc_curve(list(curve.fpr), list(curve.tpr), _probabilities(curve.thresholds))
    told = evaluation(Found(evaluation=found))
    page.write_text(document("Evaluation", [section("evaluation", "Evaluation", told)], STYLE), "utf-8")


def _figures(found: Evaluation) -> Iterator[tuple[str, float]]:
    """What is known of the candidate: each metric with its interval, and by how much it is better than the others."""
    for name, each in sorted(found.candidate.metrics.items()):
        told = {name: each.value, f"{name}.low": each.low, f"{name}.high": each.high}
        yield from ((key, value) for key, value in told.items() if value is not None)
    for other, differences in sorted(found.differences.items()):
        known = {name: each.value for name, each in sorted(differences.items()) if each.value is not None}
        yield from ((f"{name}.over_{other}", value) for name, value in known.items())


def _probabilities(thresholds: Sequence[float]) -> list[float]:
    """The first threshold is above every score, which KFP's page draws as it stands."""
    return [min(each, 1.0) for each in thresholds]
