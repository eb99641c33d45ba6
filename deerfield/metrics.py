"""What a model is judged by, from its scores: accuracy and macro averages over the labels that occur."""

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.tensors import Wide


def metrics(probabilities: Wide, labels: NDArray[np.int64]) -> dict[str, float]:
    """accuracy, and macro precision, recall, f1 and one-vs-rest auc; all in [0, 1], none of them NaN.

    `probabilities` is (n, labels), `labels` (n,) holds indices of its columns. Macro averages give each label that
    occurs in `labels` the same weight and leave out the others (scikit-learn's `labels=np.unique(y)`): a label without
    an example has no recall. A label that is never predicted has precision and f1 zero. Where only one label occurs
    nothing can be ranked, and auc is 0.5.

    Raises:
        InvalidInput: no examples, scores that are not finite, or a label without a column.
    """
    if not len(labels):
        raise InvalidInput("there is no example to score; the evaluation split is empty")
    if not np.isfinite(probabilities).all():
        raise InvalidInput("scores hold a NaN or an infinity; training has diverged, lower the learning rates")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise InvalidInput(
            f"labels go from {labels.min()} to {labels.max()}; scores have {probabilities.shape[1]} columns"
        )
    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    hits = np.array([np.sum((labels == k) & (predicted == k)) for k in present], dtype=np.float64)
    actual = np.array([np.sum(labels == k) for k in present])
    guessed = np.array([np.sum(predicted == k) for k in present])
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "precision": float(np.mean(hits / np.maximum(guessed, 1))),
        "recall": float(np.mean(hits / actual)),
        "f1": float(np.mean(2 * hits / (actual + guessed))),
        "auc": _macro_auc(probabilities, labels, present),
    }


def _macro_auc(probabilities: Wide, labels: NDArray[np.int64], present: NDArray[np.int64]) -> float:
    if len(present) == 1:
        return 0.5
    return float(np.mean([auc(probabilities[:, k], labels == k) for k in present]))


def auc(scores: Wide, positive: NDArray[np.bool_]) -> float:
    """The probability that a positive outranks a negative, a tie counting half (the Mann-Whitney statistic).

    `scores` is (n,), `positive` (n,) marks the positives; needs at least one of each.
    """
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # the mean rank of each group of ties, from 1
    positives = int(positive.sum())
    wins = float(rank[place][positive].sum()) - positives * (positives + 1) / 2
    return wins / (positives * (len(scores) - positives))
