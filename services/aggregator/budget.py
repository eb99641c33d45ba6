"""What sites have spent: whether an update's claim is what its run allows, and what all their tasks add up to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, isclose

from deerfield.errors import BadRequest, BudgetExhausted
from deerfield.plan import schedule
from deerfield.privacy import epsilon
from deerfield.runspec import RunSpec
from deerfield.strategy import Declaration
from deerfield.types import Spend

ROUNDING = 1e-6  # relative, between two builds that compute the same epsilon


def check_spend(spec: RunSpec, declares: Declaration, epochs: int, spend: Spend) -> None:
    """Holds a spend against the run's public terms; the first time it sees a noise multiplier it takes a second.

    Raises:
        BadRequest: another unit, rate, number of steps or clip than the run says, or, under unit site, other noise
            than the aggregator will add.
        BudgetExhausted: with this noise all the phases of the run would cost more than its epsilon.
    """
    privacy = spec.privacy
    told = (spend.unit, spend.sample_rate, spend.steps, spend.clip)
    agreed = (privacy.unit, spec.release_rate, spec.releases(epochs), privacy.clip or inf)
    if told != agreed:
        raise BadRequest(f"the update spent (unit, sample_rate, steps, clip) = {told}; the run says {agreed}")
    if privacy.unit == "none" or privacy.epsilon is None:
        return
    if privacy.unit == "site":
        _check_noise(schedule(spec, declares).noise_multiplier, spend.noise_multiplier)
    phases = declares.rounds * len(declares.phases)
    cost = epsilon([spend] * phases, privacy.delta)
    if cost > privacy.epsilon * (1 + ROUNDING):
        raise BudgetExhausted(
            f"noise multiplier {spend.noise_multiplier:g} over {phases} phases costs epsilon {cost:.4g}; "
            f"the run allows {privacy.epsilon:g}"
        )


def _check_noise(ours: float, told: float) -> None:
    if not isclose(ours, told, rel_tol=ROUNDING):
        raise BadRequest(
            f"the site was charged for noise multiplier {told:g}, the aggregator adds {ours:g} to the sum over the "
            "sites; run the same version of deerfield on both sides"
        )


def charged(
    spec: RunSpec, sealed: Mapping[str, Sequence[Spend]], taken: Sequence[tuple[str, int]]
) -> Mapping[str, tuple[Spend, ...]]:
    """What each site may have spent: all steps of every (site, epochs) that was `taken`, whether or not it was sealed.

    An update that came late or was refused has left its site. Its noise is the least that the site has sealed in this
    run; of a site that has sealed nothing it is not known, and the site is left out.
    """
    least = {site: min(spends, key=lambda spend: spend.noise_multiplier) for site, spends in sealed.items()}
    return {
        site: tuple(replace(spend, steps=spec.releases(epochs)) for taker, epochs in taken if taker == site)
        for site, spend in least.items()
    }
