"""Whether what an update claims to have spent is what its run allows."""

from math import inf

from deerfield.errors import BadRequest, BudgetExhausted
from deerfield.privacy import epsilon
from deerfield.runspec import RunSpec
from deerfield.strategy import Declaration
from deerfield.types import Spend

ROUNDING = 1e-6  # relative, between two builds that compute the same epsilon


def check_spend(spec: RunSpec, declares: Declaration, epochs: int, spend: Spend) -> None:
    """Holds a spend against the run's public terms; the first time it sees a noise multiplier it takes a second.

    Raises:
        BadRequest: another unit, rate, number of steps or clip than the run says.
        BudgetExhausted: with this noise all the phases of the run would cost more than its epsilon.
    """
    privacy = spec.privacy
    told = (spend.unit, spend.sample_rate, spend.steps, spend.clip)
    agreed = (privacy.unit, privacy.sample_rate, spec.steps(epochs), privacy.clip or inf)
    if told != agreed:
        raise BadRequest(f"the update spent (unit, sample_rate, steps, clip) = {told}; the run says {agreed}")
    if privacy.unit == "none" or privacy.epsilon is None:
        return
    phases = declares.rounds * len(declares.phases)
    cost = epsilon([spend] * phases, privacy.delta)
    if cost > privacy.epsilon * (1 + ROUNDING):
        raise BudgetExhausted(
            f"noise multiplier {spend.noise_multiplier:g} over {phases} phases costs epsilon {cost:.4g}; "
            f"the run allows {privacy.epsilon:g}"
        )
