"""What releases cost, and how much noise a budget asks for: dp-accounting's privacy loss distributions, and no more.

Every release is some steps of the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016, arXiv:1607.00133), composed
exactly as Koskela et al. 2020 (arXiv:1906.03049) do, with Doroshenko et al. 2022 (arXiv:2207.04380) for the discrete
distribution: an upper bound, under adding or removing one unit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import exp, inf, log, log1p, sqrt
from typing import TYPE_CHECKING, TypeAlias

from deerfield.errors import InvalidInput
from deerfield.types import Spend

if TYPE_CHECKING:  # it takes a second to import, and only those who count need it
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

FINENESS = 30  # the loss of one step is about q / z: coarser buckets than 1/30 of it cost small budgets noise
TAIL = -40  # log of the mass of a step that counts as an infinite loss: 4e-18, below all rounding for 1e6 steps
WASTE = 0.002  # share of epsilon that a calibrated multiplier may leave unspent; takes about 5 evaluations
ATTEMPTS = 100  # of 25 % each, from a start that is rarely off by more


def epsilon(spends: Sequence[Spend], delta: float) -> float:
    """The epsilon at `delta` of all `spends` composed; infinite if one has unit "none" or no noise, 0 for none at all.

    Spends of equal noise and rate count as one with all their steps, so a run costs the same whole or phase by phase.

    Raises:
        InvalidInput: a delta, sample rate, noise multiplier or number of steps outside its range.
    """
    _check_delta(delta)
    return _epsilon(_terms(spends), delta)


@dataclass(frozen=True, slots=True)
class History:
    """Spends that are already composed, so that a round more costs one small composition and not all of them again.

    Its epsilon is an upper bound, within 0.1 % of that of all spends at once; the order of adding moves it by less.
    """

    _terms: "_Terms" = ()
    _interval: float = inf  # between two losses that are told apart
    _loss: "PrivacyLossDistribution | None" = None  # None of nothing, or of what costs infinity

    def add(self, spends: Sequence[Spend]) -> "History":
        """With `spends` on top; composed anew, once, where they are quieter than all before.

        Raises:
            InvalidInput: a sample rate, noise multiplier or number of steps outside its range.
        """
        more = _terms(spends)
        terms = _merged((*self._terms, *more))
        interval = _interval(more)
        if self._loss is None or not _finite(more) or interval < self._interval:
            interval = _interval(terms)
            return History(terms, interval, _composed(terms, interval))
        losses = [_loss(*term, self._interval) for term in more]
        return History(terms, self._interval, reduce(lambda one, other: one.compose(other), losses, self._loss))

    def epsilon(self, delta: float) -> float:
        """The epsilon at `delta`, as the function of that name has it.

        Raises:
            InvalidInput: a delta outside its range.
        """
        _check_delta(delta)
        if self._loss is None:
            return inf if self._terms else 0.0
        return float(self._loss.get_epsilon_for_delta(delta))


@lru_cache(maxsize=256)
def noise_multiplier(
    epsilon: float, delta: float, sample_rate: float, steps: int, beside: tuple[Spend, ...] = ()
) -> float:
    """The noise multiplier z with which `steps` steps at `sample_rate` cost 99.8 to 100 % of `epsilon`, never more.

    What is released `beside` them in the same run, such as private metrics, is paid from the same epsilon.

    Raises:
        InvalidInput: no such noise: an epsilon, delta, sample rate or number of steps outside its range, or nothing
            left beside what else is released.
    """
    if not 0 < epsilon < inf:
        raise InvalidInput(f"epsilon is {epsilon}; it must be above 0 and finite")
    _check_delta(delta)
    _check_schedule(sample_rate, steps, fewest=1)
    others = _terms(beside)
    if (price := _epsilon(others, delta)) >= (1 - WASTE) * epsilon:
        raise InvalidInput(
            f"epsilon is {epsilon:g} and the metrics beside the training cost {price:.4g}: noise them more"
        )

    def cost(z: float) -> float:
        return _epsilon(_merged((*others, (z, sample_rate, steps))), delta)

    low, high = _bracket(cost, epsilon, _guess(epsilon, delta, sample_rate, steps))
    while cost(high) < (1 - WASTE) * epsilon:
        z = _between(low, high, cost(low), cost(high), aim=(1 - WASTE / 2) * epsilon)
        low, high = (low, z) if cost(z) <= epsilon else (z, high)
    return high


_Term: TypeAlias = tuple[float, float, int]  # noise multiplier (0 of what is not protected), sample rate, steps
_Terms: TypeAlias = tuple[_Term, ...]  # sorted; no two of equal noise and rate


def _terms(spends: Sequence[Spend]) -> _Terms:
    for spend in spends:
        _check_schedule(spend.sample_rate, spend.steps, fewest=0)
        if not 0 <= spend.noise_multiplier < inf:
            raise InvalidInput(f"noise_multiplier is {spend.noise_multiplier}; it must be at least 0 and finite")
    return _merged(
        # of unit "none" even a task without steps costs infinity
        (0.0, spend.sample_rate, max(spend.steps, 1))
        if spend.unit == "none"
        else (spend.noise_multiplier, spend.sample_rate, spend.steps)
        for spend in spends
    )


def _merged(terms: Iterable[_Term]) -> _Terms:
    steps: Counter[tuple[float, float]] = Counter()
    for z, q, count in terms:
        steps[z, q] += count
    return tuple(sorted((z, q, count) for (z, q), count in steps.items() if count))


@lru_cache(maxsize=1024)
def _epsilon(terms: _Terms, delta: float) -> float:
    interval = _interval(terms)
    return History(terms, interval, _composed(terms, interval)).epsilon(delta)


def _finite(terms: _Terms) -> bool:
    return all(z > 0 for z, _, _ in terms)


def _interval(terms: _Terms) -> float:
    """Fine enough for the quietest of `terms`."""
    return min((q / (FINENESS * z) for z, q, _ in terms if z > 0), default=inf)


def _composed(terms: _Terms, interval: float) -> "PrivacyLossDistribution | None":
    if not terms or not _finite(terms):
        return None
    return reduce(lambda one, other: one.compose(other), (_loss(*term, interval) for term in terms))


@lru_cache(maxsize=8)  # a run's rounds are equal; a megabyte each
def _loss(z: float, q: float, steps: int, interval: float) -> "PrivacyLossDistribution":
    return _step_loss(z, q, interval).self_compose(steps)


@lru_cache(maxsize=8)
def _step_loss(z: float, q: float, interval: float) -> "PrivacyLossDistribution":
    """Of one step, rounded up to multiples of `interval` by connecting the dots (arXiv:2207.04380)."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        z,
        value_discretization_interval=interval,
        log_mass_truncation_bound=TAIL,
        sampling_prob=q,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
    )


def _guess(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """A multiplier near the answer: the central limit of Dong et al. 2019 (arXiv:1905.02383). A start, never a cost."""
    mu = epsilon / sqrt(2 * (log(1.25 / delta) + epsilon))
    return 1 / sqrt(log1p((mu / sample_rate) ** 2 / steps))


def _bracket(cost: Callable[[float], float], epsilon: float, z: float) -> tuple[float, float]:
    """(low, high) with cost(low) > epsilon >= cost(high)."""
    factor = 1.25 if cost(z) > epsilon else 1 / 1.25
    for _ in range(ATTEMPTS):
        before, z = z, z * factor
        if factor > 1 and cost(z) <= epsilon:
            return before, z
        if factor < 1 and cost(z) > epsilon:
            return z, before
    raise InvalidInput(f"epsilon {epsilon:g} is out of reach: tried noise multipliers up to {max(before, z):.3g}")


def _between(low: float, high: float, cost_low: float, cost_high: float, aim: float) -> float:
    """The multiplier of cost `aim` on the line of log cost over log z, kept off the ends of the bracket."""
    part = log(cost_low / aim) / log(cost_low / cost_high) if cost_high > 0 else 0.5
    return float(low * exp(log(high / low) * min(max(part, 0.02), 0.98)))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise InvalidInput(f"delta is {delta}; it must be between 0 and 1, and well below 1 / units")


def _check_schedule(sample_rate: float, steps: int, *, fewest: int) -> None:
    if not 0 < sample_rate <= 1:
        raise InvalidInput(f"sample_rate is {sample_rate}; it must be above 0 and at most 1")
    if steps < fewest:
        raise InvalidInput(f"steps is {steps}; it must be at least {fewest}")
