"""Privacy filters: what a population has spent over all its runs, and whether one more run or task still fits.

A later run may choose its noise, rate and length from what earlier ones released; both filters stay a guarantee then.

- `sum`: epsilons and deltas of whole runs add (Rogers, Roth, Ullman, Vadhan 2016, arXiv:1605.08294, for parameters
  that are chosen adaptively).
- `renyi`: Renyi divergences of one order, fixed in advance, add over the steps that were reserved (Feldman and Zrnic
  2021, arXiv:2008.11193); epsilon is that order's conversion at the population's delta, as `dp_accounting.rdp` has it:
  divergence + log(1 - 1/order) - log(delta order) / (order - 1), and never below 0.

Whatever is not known costs infinity.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import fsum, inf, isfinite, log, log1p
from typing import Literal, TypeAlias

from deerfield.errors import InvalidInput
from deerfield.types import Spend

Filter: TypeAlias = Literal["sum", "renyi"]
ROUNDING = 1e-9  # relative, on a cap: ten runs of epsilon 0.1 fit in 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """What a population may spend in its life, and how its charges are added up."""

    epsilon: float
    delta: float
    filter: Filter = "sum"
    order: float | None = None  # of `renyi`, above 1; the same for the whole life of the population


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one run (under `sum`, whole) or one task (under `renyi`, its steps) costs a population.

    `sum` adds `epsilon` and `delta`, and takes from `spends` only whether they are private at all. `renyi` takes the
    divergence of `spends`; a charge without spends is a bare `epsilon`, such as the part of a reconciled ledger that
    nobody can itemise: it must be a difference of epsilons of this same filter, and counts as that much divergence.
    """

    epsilon: float
    delta: float
    spends: tuple[Spend, ...] = ()


def spent(cap: Cap, charges: Sequence[Charge]) -> float:
    """The epsilon of all `charges`; infinite if one is unknown or not private, or if `sum` has used up the delta.

    Raises:
        InvalidInput: a `renyi` cap without an order above 1.
    """
    if not all(map(_is_private, charges)):
        return inf
    if cap.filter == "renyi":
        return _renyi(cap, charges)
    if not _delta(charges) <= cap.delta * (1 + ROUNDING):
        return inf
    return fsum(charge.epsilon for charge in charges)


def fits(cap: Cap, charges: Sequence[Charge], more: Charge) -> bool:
    """Whether the cap still holds once `more` is charged on top of `charges`."""
    return spent(cap, (*charges, more)) <= cap.epsilon * (1 + ROUNDING)


def remaining(cap: Cap, charges: Sequence[Charge]) -> tuple[float, float]:
    """(epsilon, delta) that are left, never below 0; under `renyi` no run uses up delta."""
    if cap.epsilon == inf:
        return inf, cap.delta
    used = spent(cap, charges)
    delta = cap.delta if cap.filter == "renyi" else max(0.0, cap.delta - _delta(charges))
    return (max(0.0, cap.epsilon - used) if used < inf else 0.0, delta)


def refusal(cap: Cap, charges: Sequence[Charge], more: Charge) -> str:
    """One sentence on why `more` does not fit: what it costs, what is left, and what to do."""
    before = spent(cap, charges)
    left, delta_left = remaining(cap, charges)
    if not isfinite(before) and not _delta_is_exceeded(cap, charges):
        return (
            "the population's epsilon is infinite for good, because something unprotected or unknown was charged to "
            f"it: no run fits its epsilon {cap.epsilon:g} any more, train on a population that was not used"
        )
    if not _is_private(more):
        return (
            f"this costs an infinite epsilon (unit none, no noise, or a cost that is not known) and {left:.6g} of the "
            f"population's epsilon {cap.epsilon:g} is left: choose a run with a privacy unit and an epsilon"
        )
    if cap.filter == "sum" and _delta_is_exceeded(cap, (*charges, more)):
        return (
            f"delta is used up: this costs delta {more.delta:.3g}, and {delta_left:.3g} of the population's delta "
            f"{cap.delta:.3g} is left (epsilon left: {left:.6g} of {cap.epsilon:g}): ask for a run with a smaller delta"
        )
    cost = spent(cap, (*charges, more)) - before
    remedy = "a smaller epsilon" if cap.filter == "sum" else "fewer steps or more noise"
    return (
        f"this costs epsilon {cost:.6g} and {left:.6g} of the population's epsilon {cap.epsilon:g} is left "
        f"(delta left: {delta_left:.3g} of {cap.delta:.3g}): ask for a run with {remedy}"
    )


def _delta(charges: Iterable[Charge]) -> float:
    return fsum(charge.delta for charge in charges)


def _delta_is_exceeded(cap: Cap, charges: Sequence[Charge]) -> bool:
    return cap.filter == "sum" and all(map(_is_private, charges)) and spent(cap, charges) == inf


def _is_private(charge: Charge) -> bool:
    """False for what is infinite, not a number, not protected, or could not have been spent."""
    return (
        0 <= charge.epsilon < inf
        and 0 <= charge.delta < 1
        and all(
            spend.unit != "none"
            and 0 < spend.noise_multiplier < inf
            and 0 < spend.sample_rate <= 1
            and spend.steps >= 0
            for spend in charge.spends
        )
    )


def _renyi(cap: Cap, charges: Sequence[Charge]) -> float:
    if cap.order is None or not 1 < cap.order < inf:
        raise InvalidInput(f"order is {cap.order}; the filter 'renyi' needs one above 1, such as 8")
    steps: Counter[tuple[float, float]] = Counter()
    for spend in (spend for charge in charges for spend in charge.spends):
        steps[spend.noise_multiplier, spend.sample_rate] += spend.steps
    each = [count * _divergence(cap.order, z, q) for (z, q), count in sorted(steps.items()) if count]
    bare = [charge.epsilon + _shortfall(cap.order, cap.delta) for charge in charges if not charge.spends]
    divergence = fsum(each + bare)
    if not divergence:
        return 0.0
    from dp_accounting.rdp import compute_epsilon

    return float(compute_epsilon([cap.order], [divergence], cap.delta)[0])


@lru_cache(maxsize=4096)
def _divergence(order: float, noise_multiplier: float, sample_rate: float) -> float:
    """Of one step of the Poisson-subsampled Gaussian, under adding or removing one unit; infinite if out of reach."""
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant([order], NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier)))
    return float(accountant.rdp[0])


def _shortfall(order: float, delta: float) -> float:
    """By how much an epsilon of this order is below its divergence: 0 unless the order is near 1 / delta."""
    return max(0.0, -(log1p(-1 / order) - log(delta * order) / (order - 1)))
