"""How a model does label by label: confusion matrix, precision, recall, F1 and support, one-vs-rest ROC curves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deerfield.metrics import Labels, auc, check, sums
from deerfield.tensors import Wide

POINTS = 200  # of a curve: more cannot be told apart on a page


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One label's figures; each is None where it has no denominator."""

    precision: float | None  # of the examples that were given this label, the share that has it
    recall: float | None  # of the examples that have this label, the share that was given it
    f1: float | None
    examples: int  # that have this label (its support)


@dataclass(frozen=True, slots=True)
class Curve:
    """One label against all others: the rates at falling thresholds, from (0, 0) to (1, 1)."""

    fpr: tuple[float, ...]  # false positive rate
    tpr: tuple[float, ...]  # true positive rate
    thresholds: tuple[float, ...]  # what scores at least this is called positive; the first is above every score
    auc: float  # of the whole curve, also where points are left out


def confusion(probabilities: Wide, labels: Labels) -> NDArray[np.int64]:
    """Counts (labels, labels): rows are the actual label, columns the predicted one.

    Raises:
        InvalidInput: as in `metrics.metrics`.
    """
    check(probabilities, labels)
    count = probabilities.shape[1]
    cells = labels * count + probabilities.argmax(axis=1)
    return sums(cells, np.ones((1, len(cells))), count * count).reshape(count, count).astype(np.int64)


def per_class(confusion: NDArray[np.int64]) -> tuple[ClassScores, ...]:
    """Precision, recall, F1 and support of each label."""
    hits, actual, guessed = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    return tuple(
        ClassScores(_share(hit, given), _share(hit, held), _share(2 * hit, held + given), int(held))
        for hit, held, given in zip(hits, actual, guessed, strict=True)
    )


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def roc(scores: Wide, positive: NDArray[np.bool_], points: int = POINTS) -> Curve | None:
    """The ROC curve of scores (n,) with at most `points` points; None unless there are positives and negatives.

    Points are left out evenly along the curve, which so is off by 2 / (points - 1) at most, in the sum of both rates.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], positive[order].astype(np.int64)
    last = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]  # of each group of ties
    right = np.r_[0, np.cumsum(hits)[last]]
    wrong = np.r_[0, last + 1] - right
    kept = _thinned(wrong, right, points)
    fpr, tpr = wrong[kept] / negatives, right[kept] / positives
    thresholds = np.r_[np.nextafter(ordered[0], np.inf), ordered[last]][kept]
    return Curve(tuple(fpr.tolist()), tuple(tpr.tolist()), tuple(thresholds.tolist()), auc(scores, positive))


def _thinned(wrong: NDArray[np.int64], right: NDArray[np.int64], points: int) -> NDArray[np.int64]:
    """The indices of corners of a staircase of counts, and of these so many as lie closest to even steps along it."""
    across, up = np.diff(wrong), np.diff(right)
    corners = np.r_[0, np.flatnonzero(across[:-1] * up[1:] != across[1:] * up[:-1]) + 1, len(wrong) - 1]
    if len(corners) <= points:
        return np.asarray(corners, np.int64)
    length = (wrong / wrong[-1] + right / right[-1])[corners]  # rises from 0 to 2
    nearest = np.searchsorted(length, np.linspace(0, 2, points) - 1e-12)
    return np.asarray(corners[np.unique(np.minimum(nearest, len(corners) - 1))], np.int64)
