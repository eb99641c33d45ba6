"""Whether a model is as often right as it says: reliability of the top label, and the expected calibration error.

Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599, section 2: the mean over bins of |accuracy - confidence|,
weighted by the examples in each. Like every plug-in estimate of it, it is too large on few examples: a perfectly
calibrated model on 100 examples is at about 0.05. It is compared between models on one test set, and has no interval.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from deerfield.errors import InvalidInput
from deerfield.metrics import Labels, check
from deerfield.tensors import Wide

BINS = 15  # as in the paper


@dataclass(frozen=True, slots=True)
class Bin:
    """The examples whose highest probability is above `low` and at most `high`."""

    low: float
    high: float
    examples: int
    confidence: float | None  # the mean of their highest probabilities; None where the bin is empty
    accuracy: float | None  # the share of them that has that label


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability table, and what it comes to."""

    ece: float  # expected calibration error, in [0, 1]
    bins: tuple[Bin, ...]


def reliability(
    probabilities: Wide, labels: Labels, *, bins: int = BINS, by: Literal["width", "mass"] = "width"
) -> Reliability:
    """The reliability of the label with the highest probability, in bins of equal width or of equally many examples.

    Under "mass", examples with one confidence stay together, so that there may be fewer bins.

    Raises:
        InvalidInput: no bin, or as in `metrics.metrics`.
    """
    check(probabilities, labels)
    if not 1 <= bins <= 1000:
        raise InvalidInput(f"bins: {bins} is not from 1 to 1000; 15 are usual")
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1) if by == "width" else _even(confidence, bins)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    count = np.bincount(place, minlength=len(edges) - 1)
    stated = np.bincount(place, confidence, len(count))
    found = np.bincount(place, right, len(count))
    rows = zip(edges[:-1], edges[1:], count, stated, found, strict=True)
    return Reliability(float(np.abs(stated - found).sum() / len(labels)), tuple(_bin(*row) for row in rows))


def _even(confidence: Wide, bins: int) -> Wide:
    """Edges between so many equally filled bins, without empty ones."""
    ordered = np.sort(confidence)
    last = np.ceil(np.arange(1, bins + 1) * len(ordered) / bins).astype(np.int64) - 1  # of each bin
    return np.asarray(np.r_[0.0, np.unique(ordered[last])], np.float64)


def _bin(low: float, high: float, count: int, stated: float, found: float) -> Bin:
    mean = (float(stated / count), float(found / count)) if count else (None, None)
    return Bin(float(low), float(high), int(count), *mean)
