"""What a model is judged by, from its scores: accuracy and macro averages over the labels that occur.

Every figure is a function of weights, how often each example counts, so that a bootstrap's thousands of resamples are
judged in a few passes, and by the very code that judges the data themselves.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.tensors import Wide

Labels: TypeAlias = NDArray[np.int64]  # (n,), indices of columns of the probabilities (n, labels)
Weights: TypeAlias = Wide  # (m, n), how often each of n examples counts in each of m samples
Statistics: TypeAlias = Callable[[Weights], Mapping[str, Wide]]  # (m,) values by name, NaN where one is not defined
NAMES = ("accuracy", "precision", "recall", "f1", "auc")


def metrics(probabilities: Wide, labels: Labels) -> dict[str, float]:
    """accuracy, and macro precision, recall, f1 and one-vs-rest auc; all in [0, 1], none of them NaN.

    `probabilities` is (n, labels). Macro averages give each label that occurs in `labels` the same weight and leave out
    the others (scikit-learn's `labels=np.unique(y)`): a label without an example has no recall. A label that is never
    predicted has precision and f1 zero. Where only one label occurs nothing can be ranked, and auc is 0.5.

    Raises:
        InvalidInput: no examples, scores that are not finite, or a label without a column.
    """
    found = statistics(probabilities, labels)(np.ones((1, len(labels))))
    return {name: float(np.nan_to_num(values[0], nan=0.5)) for name, values in found.items()}  # auc alone can be NaN


def statistics(probabilities: Wide, labels: Labels) -> Statistics:
    """The metrics of `NAMES` as functions of weights; auc is NaN where a sample holds one label alone.

    Raises:
        InvalidInput: as in `metrics`.
    """
    check(probabilities, labels)
    count = probabilities.shape[1]
    cells = labels * count + probabilities.argmax(axis=1)  # of the confusion matrix, row by row
    rankings = {int(k): _Ranking(probabilities[:, k], labels == k) for k in np.unique(labels)}

    def judge(weights: Weights) -> Mapping[str, Wide]:
        confusion = sums(cells, weights, count * count).reshape(-1, count, count)  # (m, actual, predicted)
        hits, actual, guessed = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)
        present = actual > 0
        areas = np.full(actual.shape, np.nan)
        for label, ranking in rankings.items():
            areas[:, label] = ranking.auc(weights)
        with np.errstate(invalid="ignore"):  # a sample without an example has no metric
            return {
                "accuracy": hits.sum(1) / actual.sum(1),
                "precision": _macro(hits / np.maximum(guessed, 1), present),
                "recall": _macro(hits / np.maximum(actual, 1), present),
                "f1": _macro(2 * hits / np.maximum(actual + guessed, 1), present),
                "auc": _macro(areas, present),
            }

    return judge


def check(probabilities: Wide, labels: Labels) -> None:
    """Raises InvalidInput for what cannot be judged: as in `metrics`."""
    if not len(labels):
        raise InvalidInput("there is no example to score; the evaluation split is empty")
    if not np.isfinite(probabilities).all():
        raise InvalidInput("scores hold a NaN or an infinity; training has diverged, lower the learning rates")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise InvalidInput(
            f"labels go from {labels.min()} to {labels.max()}; scores have {probabilities.shape[1]} columns"
        )


def sums(cells: NDArray[np.int64], weights: Weights, count: int) -> Wide:
    """The total weight (m, count) in each cell, of which each example is in one of `cells` (n,)."""
    rows = np.arange(len(weights))[:, None] * count
    found = np.bincount((rows + cells).ravel(), weights.ravel(), len(weights) * count)
    return np.asarray(found, np.float64).reshape(len(weights), count)


def auc(scores: Wide, positive: NDArray[np.bool_]) -> float:
    """The probability that a positive outranks a negative, a tie counting half (the Mann-Whitney statistic).

    `scores` is (n,), `positive` (n,) marks the positives; needs at least one of each.
    """
    return float(_Ranking(scores, positive).auc(np.ones((1, len(scores))))[0])


class _Ranking:
    """One label's scores in order, sorted once for all samples."""

    def __init__(self, scores: Wide, positive: NDArray[np.bool_]) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._positive = positive[self._order].astype(np.float64)
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of each group of ties

    def auc(self, weights: Weights) -> Wide:
        """(m,) values, NaN where a sample has no positive or no negative."""
        ordered = weights[:, self._order]
        positives = ordered * self._positive
        negatives = ordered - positives
        if len(self._starts) < ordered.shape[1]:
            positives = np.add.reduceat(positives, self._starts, axis=1)
            negatives = np.add.reduceat(negatives, self._starts, axis=1)
        below = np.cumsum(negatives, axis=1)
        wins = np.einsum("mg,mg->m", positives, below - negatives / 2)
        pairs = positives.sum(1) * below[:, -1]
        return np.asarray(np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0), np.float64)


def _macro(each: Wide, present: NDArray[np.bool_]) -> Wide:
    """The mean (m,) over the labels that are `present` (m, labels)."""
    return np.asarray(np.where(present, each, 0.0).sum(1) / present.sum(1), np.float64)
