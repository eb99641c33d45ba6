"""What releases cost, and how much noise a budget asks for: dp-accounting's privacy loss distributions, and no more.

Every release is some steps of the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016, arXiv:1607.00133), composed
exactly as Koskela et al. 2020 (arXiv:1906.03049) do, with Doroshenko et al. 2022 (arXiv:2207.04380) for the discrete
distribution: an upper bound, under adding or removing one unit.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import exp, inf, log, log1p, sqrt

from deerfield.errors import InvalidInput
from deerfield.types import Spend

FINENESS = 30  # the loss of one step is about q / z: coarser buckets than 1/30 of it cost small budgets noise
WASTE = 0.002  # share of epsilon that a calibrated multiplier may leave unspent; takes about 5 evaluations
ATTEMPTS = 100  # of 25 % each, from a start that is rarely off by more


def epsilon(spends: Sequence[Spend], delta: float) -> float:
    """The epsilon at `delta` of all `spends` composed; infinite if one has unit "none" or no noise, 0 for none at all.

    Spends of equal noise and rate count as one with all their steps, so a run costs the same whole or phase by phase.

    Raises:
        InvalidInput: a delta, sample rate, noise multiplier or number of steps outside its range.
    """
    _check_delta(delta)
    steps: Counter[tuple[float, float]] = Counter()
    for spend in spends:
        _check_schedule(spend.sample_rate, spend.steps, fewest=0)
        if not spend.noise_multiplier >= 0:
            raise InvalidInput(f"noise_multiplier is {spend.noise_multiplier}; it must be at least 0")
        if spend.unit == "none":
            return inf
        steps[spend.noise_multiplier, spend.sample_rate] += spend.steps
    terms = tuple(sorted((*pair, count) for pair, count in steps.items() if count))
    return _epsilon(terms, delta)


@lru_cache(maxsize=256)
def noise_multiplier(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """The noise multiplier z with which `steps` steps at `sample_rate` cost 99.8 to 100 % of `epsilon`, never more.

    Raises:
        InvalidInput: no such noise: an epsilon, delta, sample rate or number of steps outside its range.
    """
    if not 0 < epsilon < inf:
        raise InvalidInput(f"epsilon is {epsilon}; it must be above 0 and finite")
    _check_delta(delta)
    _check_schedule(sample_rate, steps, fewest=1)

    def cost(z: float) -> float:
        return _epsilon(((z, sample_rate, steps),), delta)

    low, high = _bracket(cost, epsilon, _guess(epsilon, delta, sample_rate, steps))
    while cost(high) < (1 - WASTE) * epsilon:
        z = _between(low, high, cost(low), cost(high), aim=(1 - WASTE / 2) * epsilon)
        low, high = (low, z) if cost(z) <= epsilon else (z, high)
    return high


@lru_cache(maxsize=1024)
def _epsilon(terms: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """Of (noise multiplier, sample rate, steps) terms, on buckets fine enough for the quietest of them."""
    if any(z == 0 for z, _, _ in terms):
        return inf
    if not terms:
        return 0.0
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    buckets = min(q / (FINENESS * z) for z, q, _ in terms)
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, buckets)
    for z, q, steps in terms:
        accountant.compose(PoissonSampledDpEvent(q, GaussianDpEvent(z)), steps)
    return float(accountant.get_epsilon(delta))


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
