"""How sure a metric is: the bootstrap over a test set, in whole units, with the same resamples for every model.

Efron 1979, doi:10.1214/aos/1176344552; intervals are percentiles of the resampled values. Examples of one unit (a
patient, a group) are drawn together, since they are not independent (Davison and Hinkley 1997, section 3.8). Two models
are compared on the same resamples (a paired bootstrap), so that what makes a test set easy for both cancels out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.metrics import Statistics, Weights
from deerfield.tensors import Wide

RESAMPLES = 2000
CONFIDENCE = 0.95
AT_ONCE = 1_000_000  # weights in memory at once: 8 MB, and some ten times that while they are judged
MOST_RESAMPLES = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the bounds of its two-sided confidence interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Resampled:
    """Metrics of one model: of the data themselves, and of each resample, NaN where one is not defined."""

    observed: Mapping[str, float]
    values: Mapping[str, Wide]  # (resamples,)

    def interval(self, name: str, confidence: float = CONFIDENCE) -> Interval:
        """The interval of a metric, over the resamples in which it is defined."""
        return _percentile(self.observed[name], self.values[name], confidence)

    def intervals(self, confidence: float = CONFIDENCE) -> dict[str, Interval]:
        """The interval of every metric."""
        return {name: self.interval(name, confidence) for name in self.observed}

    def minus(self, other: "Resampled") -> "Resampled":
        """This model's metrics less those of `other`, resample by resample; both must come of one `resample`."""
        shared = [name for name in self.observed if name in other.observed]
        return Resampled(
            {name: self.observed[name] - other.observed[name] for name in shared},
            {name: self.values[name] - other.values[name] for name in shared},
        )


def resample(
    models: Mapping[str, Statistics],
    units: NDArray[np.str_] | NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Resampled]:
    """Judges every model on the same resamples; `units` (n,) says which examples belong together.

    The generator is counter-based: resample k depends on `seed`, k and the number of units alone. A resample without a
    label leaves that label out of its macro averages, as data without it do.

    Raises:
        InvalidInput: no example, or a number of resamples or a seed out of range.
    """
    if not len(units):
        raise InvalidInput("there is no example to resample; the evaluation split is empty")
    if not 1 <= resamples <= MOST_RESAMPLES:
        raise InvalidInput(f"resamples: {resamples} is not from 1 to {MOST_RESAMPLES}; 2000 do for 95% intervals")
    if not 0 <= seed < 2**64:
        raise InvalidInput(f"seed: {seed} is not from 0 to 2^64 - 1")
    unit = np.unique(units, return_inverse=True)[1]
    observed = {name: judge(np.ones((1, len(unit)))) for name, judge in models.items()}
    parts: dict[str, list[Mapping[str, Wide]]] = {name: [] for name in models}
    step = max(1, AT_ONCE // len(unit))
    for first in range(0, resamples, step):
        weights = _weights(range(first, min(first + step, resamples)), unit, seed)
        for name, judge in models.items():
            parts[name].append(judge(weights))
    return {
        name: Resampled(
            {metric: float(value[0]) for metric, value in observed[name].items()},
            {metric: np.concatenate([part[metric] for part in parts[name]]) for metric in observed[name]},
        )
        for name in models
    }


def _weights(numbers: range, unit: NDArray[np.int64], seed: int) -> Weights:
    """How often each example is in the resamples of these `numbers`: (resamples, n)."""
    count = int(unit.max()) + 1
    drawn = np.empty((len(numbers), count))
    for row, number in enumerate(numbers):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
        drawn[row] = np.bincount(generator.integers(0, count, count), minlength=count)
    return drawn[:, unit]


def _percentile(observed: float, values: Wide, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence: {confidence} is not between 0 and 1; write 0.95")
    defined = values[~np.isnan(values)]
    if np.isnan(observed) or not len(defined):
        return Interval(None, None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    return Interval(float(observed), float(low), float(high))
