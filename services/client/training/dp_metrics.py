"""Validation metrics that may leave a site under `metrics: dp`: computed from noised counts, and from nothing else.

Every unit spreads a weight of 1 over its own validation examples and adds it to the cells (label, predicted) of one
table. Adding or removing a unit therefore moves the table by at most 1 in L2 norm, however many examples it has, and
one draw of N(0, z^2) on each cell is the Gaussian mechanism with noise multiplier z, at rate 1. What is computed from
the noised table afterwards (accuracy, macro-F1 over units) is post-processing.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deerfield.randomness import Randomness, grid
from deerfield.strategy import Scores
from deerfield.tensors import Wide
from deerfield.types import Spend, Unit


def spend(unit: Unit, noise_multiplier: float, *, times: int = 1) -> Spend:
    """What `times` evaluations cost: every unit is in each, once."""
    return Spend(unit=unit, noise_multiplier=noise_multiplier, sample_rate=1.0, steps=times, clip=1.0)


def counts(scores: Scores, owners: NDArray[np.int64]) -> Wide:
    """The table (label, predicted) of weights; `owners` (n,) numbers the unit of each example. Private."""
    classes = scores.probabilities.shape[1]
    table = np.zeros((classes, classes))
    if len(owners):
        _, owner, sizes = np.unique(owners, return_inverse=True, return_counts=True)
        np.add.at(table, (scores.labels, scores.probabilities.argmax(axis=1)), 1.0 / sizes[owner])
    return table


def release(table: Wide, noise_multiplier: float, noise: Randomness) -> Mapping[str, float]:
    """Accuracy and macro-F1 of `table` under N(0, noise_multiplier^2) on every cell; a cell below 0 counts as 0."""
    noised = table
    if noise_multiplier:
        step = grid(noise_multiplier)
        noised = np.round((table + noise_multiplier * noise.normal(table.size).reshape(table.shape)) / step) * step
    noised = np.maximum(noised, 0.0)
    right, labelled, predicted = np.diag(noised), noised.sum(axis=1), noised.sum(axis=0)
    both = labelled + predicted
    f1 = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    total = noised.sum()
    return {"accuracy": float(right.sum() / total) if total > 0 else 0.0, "f1": float(f1.mean())}
