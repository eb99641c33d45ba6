"""What sites have spent: whether an update's claim is what its run allows, and what all their tasks add up to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, isclose

from deerfield.errors import BadAttestation, BadRequest, BudgetExhausted
from deerfield.ledger.details import ACCOUNTANT
from deerfield.plan import schedule
from deerfield.privacy import epsilon
from deerfield.runspec import DELTA_LIMIT, RunSpec
from deerfield.strategy import Declaration
from deerfield.types import Attestation, Spend

ROUNDING = 1e-6  # relative, between two builds that compute the same epsilon


def check_spend(
    spec: RunSpec, declares: Declaration, epochs: int, spend: Spend, beside: tuple[Spend, ...] = ()
) -> None:
    """Holds a spend against the run's public terms; the first time it sees a noise multiplier it takes a second.

    `beside` is what the whole run releases there apart from its updates.

    Raises:
        BadRequest: another unit, rate, number of steps or clip than the run says, fewer counts than a run that trains
            nothing reports, or, under unit site, other noise than the aggregator will add.
        BudgetExhausted: with this noise all the run would cost more than its epsilon.
    """
    privacy = spec.privacy
    told = (spend.unit, spend.sample_rate, spend.steps, spend.clip)
    agreed = (privacy.unit, spec.release_rate, spec.releases(epochs), privacy.clip or inf)
    if told != agreed:
        raise BadRequest(f"the update spent (unit, sample_rate, steps, clip) = {told}; the run says {agreed}")
    if any((each.unit, each.sample_rate) != (privacy.unit, 1.0) for each in beside):
        raise BadRequest(f"what is released beside the update must count every {privacy.unit}, at sample rate 1")
    if privacy.unit == "none" or privacy.epsilon is None:
        return
    if not declares.epochs and (paid := sum(each.steps for each in beside)) < declares.rounds:
        raise BadRequest(f"the run scores {declares.rounds} models, and the site was charged for the counts of {paid}")
    if privacy.unit == "site":
        _check_noise(schedule(spec, declares).noise_multiplier, spend.noise_multiplier)
    phases = declares.rounds * len(declares.phases)
    cost = epsilon([*[spend] * phases, *beside], privacy.delta)
    if cost > privacy.epsilon * (1 + ROUNDING):
        raise BudgetExhausted(
            f"noise multiplier {spend.noise_multiplier:g} over {phases} phases and what is released beside them cost "
            f"epsilon {cost:.4g}; the run allows {privacy.epsilon:g}"
        )


def _check_noise(ours: float, told: float) -> None:
    if not isclose(ours, told, rel_tol=ROUNDING):
        raise BadRequest(
            f"the site was charged for noise multiplier {told:g}, the aggregator adds {ours:g} to the sum over the "
            "sites; run the same version of deerfield on both sides"
        )


def check_account(spec: RunSpec, attestation: Attestation) -> None:
    """Holds the epsilon that a ledger is said to have come to against what the run alone costs, and may.

    Raises:
        BadAttestation: it was counted by what is not known here, is less than this task costs, or is more than the
            consortium lets a population spend.
    """
    if attestation.accountant != ACCOUNTANT:
        raise BadAttestation(f"the epsilon was counted by {attestation.accountant!r}, not by {ACCOUNTANT!r}; update")
    # whatever filter the site counts by: both are above what these steps cost, and no population's delta is larger
    least, after = epsilon([attestation.spend, *attestation.beside], DELTA_LIMIT), attestation.epsilon_after
    if after < least * (1 - ROUNDING):
        raise BadAttestation(f"the attested epsilon {after:g} is below the {least:.4g} that this task alone costs")
    most = spec.federation.lifetime_epsilon
    if most is not None and after > most * (1 + ROUNDING):
        raise BadAttestation(
            f"the population has spent epsilon {after:g}, and the consortium requires a lifetime epsilon of {most:g}"
        )


def charged(
    spec: RunSpec,
    declares: Declaration,
    sealed: Mapping[str, Sequence[Attestation]],
    taken: Sequence[tuple[str, int]],
    restores: int,
) -> Mapping[str, tuple[Spend, ...]]:
    """What each site may have spent: all steps of every (site, epochs) that was `taken`, whether or not it was sealed.

    An update that came late or was refused has left its site. Its noise is the least that the site has sealed in this
    run; of a site that has sealed nothing it is not known, and the site is left out. What a site releases beside its
    updates counts whole from its first one on. Nobody knows what came after the backup that a run was restored from: of
    each incarnation before this one, all that it reserves counts.
    """
    phases = declares.rounds * len(declares.phases) + spec.privacy.spare_phases
    whole = phases * spec.releases(declares.epochs)
    found = {}
    for site, attested in sealed.items():
        least = min((each.spend for each in attested), key=lambda spend: spend.noise_multiplier)
        steps = tuple(replace(least, steps=spec.releases(epochs)) for taker, epochs in taken if taker == site)
        lost = (replace(least, steps=whole),) * restores
        found[site] = (*lost, *steps, *attested[-1].beside * (1 + restores))
    return found
