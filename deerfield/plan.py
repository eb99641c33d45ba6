"""What a run will cost a site and whether that fits, from public terms alone, before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, prod, sqrt

import numpy as np

from deerfield.errors import BudgetExhausted
from deerfield.filters import Cap, Charge, fits, refusal, remaining, spent
from deerfield.privacy import epsilon, noise_multiplier
from deerfield.runspec import RunSpec
from deerfield.strategy import Declaration
from deerfield.tensors import Tensors, trained
from deerfield.types import Spend, Task

FLOAT32_BYTES = 4
FEW_UNITS = 1000  # below, a private probe of the frozen base did as well as every adapter: docs/benchmarks.md
FEW_SITES = 10_000  # below, noise on the mean of clipped updates drowns it at every useful epsilon
MOST_ROUNDS = 100_000  # of a run file


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A site's population as the run finds it."""

    units: tuple[int, int]  # the policy's public bounds on how many there are
    cap: Cap | None  # None: the population protects nothing
    charges: Sequence[Charge] = ()
    metrics: tuple[Spend, ...] = ()  # what leaves beside the updates in the whole run, paid from the run's epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePlan:
    """One site's part of a run; an epsilon of infinity is that of a run or a population that protects nothing."""

    units: tuple[int, int]
    sample_rate: float
    steps: int  # of the whole run, spare phases included
    noise_multiplier: float
    epsilon: float  # of this run alone, at `delta`
    delta: float
    epsilon_after: float  # of the population, under its filter, once the run is charged
    epsilon_left: float  # of the population, after the run; what is left before it, where the run does not fit
    delta_left: float
    step_signal_to_noise: float | None  # see `signal_to_noise`; None where the run file has no shapes yet
    phase_signal_to_noise: float | None
    bytes_up: int | None  # of tensors, without the frames around them
    bytes_down: int | None  # at most: a site does not fetch again what it still has
    rounds_that_fit: int | None  # of this strategy, with this noise, into what is left before; None: any number
    fits: bool
    refusal: str | None  # one sentence, where it does not
    warnings: tuple[str, ...]


def plan(spec: RunSpec, declares: Declaration, standing: Standing) -> SitePlan:
    """What the run costs the site whose population is as `standing` says, and whether that fits.

    Raises:
        InvalidInput: no noise keeps the run's epsilon.
    """
    spends = (schedule(spec, declares, standing.metrics), *standing.metrics)
    spend, cost = spends[0], run_charge(spec, spends)
    cap, charges = standing.cap or Cap(epsilon=inf, delta=inf), standing.charges
    fitting = fits(cap, charges, cost)
    left, delta_left = remaining(cap, (*charges, cost) if fitting else charges)
    each = _signal(spec, declares, spend, _counted(spec, standing.units[0]))
    up, down = _traffic(spec, declares)
    return SitePlan(
        units=standing.units,
        sample_rate=spend.sample_rate,
        steps=spend.steps,
        noise_multiplier=spend.noise_multiplier,
        epsilon=cost.epsilon,
        delta=cost.delta,
        epsilon_after=spent(cap, (*charges, cost)),
        epsilon_left=left,
        delta_left=delta_left,
        step_signal_to_noise=each,
        phase_signal_to_noise=None if each is None else each * sqrt(spec.releases(declares.epochs)),
        bytes_up=up,
        bytes_down=down,
        rounds_that_fit=_rounds_that_fit(spec, declares, cap, charges, spends),
        fits=fitting,
        refusal=None if fitting else refusal(cap, charges, cost),
        warnings=_warnings(spec, declares, standing.units),
    )


def schedule(spec: RunSpec, declares: Declaration, metrics: tuple[Spend, ...] = ()) -> Spend:
    """All releases of the run, spare phases included, with the noise that keeps its epsilon (0 under unit "none").

    The aggregator reads the noise of unit "site" here, and every site what that noise costs it.

    Raises:
        InvalidInput: no noise keeps the run's epsilon.
        BudgetExhausted: the run trains nothing, and `metrics` alone cost more than its epsilon.
    """
    privacy = spec.privacy
    steps = _phases(spec, declares, declares.rounds) * spec.releases(declares.epochs)
    z = 0.0
    if privacy.epsilon is not None and not steps:
        z = _noise_beside(privacy.epsilon, privacy.delta, metrics)
    elif privacy.epsilon is not None:
        z = noise_multiplier(privacy.epsilon, privacy.delta, spec.release_rate, steps, metrics)
    clip = inf if privacy.clip is None else privacy.clip
    return Spend(unit=privacy.unit, noise_multiplier=z, sample_rate=spec.release_rate, steps=steps, clip=clip)


def _noise_beside(limit: float, delta: float, metrics: tuple[Spend, ...]) -> float:
    """The noise of a run that trains nothing, whose metrics have theirs from the site's policy: the least of those."""
    if (cost := epsilon(metrics, delta)) > limit:
        raise BudgetExhausted(
            f"the run's epsilon is {limit:g}, and what it reports, under the noise of this site's policy, costs "
            f"{cost:.4g}: ask for a run with a larger epsilon, or for fewer models"
        )
    return min((each.noise_multiplier for each in metrics), default=0.0)


def drowned(spec: RunSpec, declares: Declaration) -> str | None:
    """One line on how the noise of unit "site" compares with what it hides, where the run names too few sites."""
    count = len(spec.federation.sites)
    if spec.privacy.unit != "site" or not 0 < count < FEW_SITES:
        return None
    spend = schedule(spec, declares)
    z, clip = spend.noise_multiplier, spend.clip
    sizes = [_size(trained(task.start, task.factors)) for task in _tasks(spec, declares)] if spec.adapter else []
    if not any(sizes):
        return f"unit site with {count} sites: below {FEW_SITES} its noise drowns what the sites learn"
    noise = z * sqrt(max(sizes)) * clip / count
    return (
        f"unit site with {count} sites: below {FEW_SITES} noise drowns what they learn; on the mean update, of L2 norm "
        f"at most C = {clip:g}, it has norm z sqrt(d) C / N = {z:.3g} x sqrt({max(sizes)}) x {clip:g} / {count} = "
        f"{noise:.3g}"
    )


def run_charge(spec: RunSpec, spends: tuple[Spend, ...]) -> Charge:
    """What all `spends` of a run cost together at the run's delta."""
    return Charge(epsilon=epsilon(spends, spec.privacy.delta), delta=spec.privacy.delta, spends=spends)


def signal_to_noise(units: int, spend: Spend, coordinates: int) -> float:
    """q n / (z sqrt(d)): one step's clipped sum over its noise, both as L2 norms, if all gradients agree.

    q n C is the sum of the expected q n gradients of norm C, z C sqrt(d) the norm of the noise on d trained
    coordinates. Steps that agree add up, their noise does so by the square root: T steps are sqrt(T) better.
    """
    noise = spend.noise_multiplier * sqrt(coordinates)
    return spend.sample_rate * units / noise if noise else inf


def _phases(spec: RunSpec, declares: Declaration, rounds: int) -> int:
    return rounds * len(declares.phases) + spec.privacy.spare_phases


def _rounds_that_fit(
    spec: RunSpec, declares: Declaration, cap: Cap, charges: Sequence[Charge], spends: tuple[Spend, ...]
) -> int | None:
    """The most rounds of which one run still fits; doubles and halves, because cost grows with rounds."""

    def fitting(rounds: int) -> bool:
        share = _phases(spec, declares, rounds) / _phases(spec, declares, declares.rounds)
        longer = tuple(replace(spend, steps=ceil(spend.steps * share - 1e-9)) for spend in spends)
        return fits(cap, charges, run_charge(spec, longer))

    if cap.epsilon == inf:
        return None
    if not fitting(1):
        return 0
    low = high = 1
    while high < MOST_ROUNDS and fitting(high):
        low, high = high, min(2 * high, MOST_ROUNDS)
    if fitting(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fitting(middle) else (low, middle)
    return low


def _signal(spec: RunSpec, declares: Declaration, spend: Spend, units: int) -> float | None:
    """Of the phase that trains the most coordinates."""
    if not spec.adapter or not units or not declares.epochs:
        return None
    return min(
        signal_to_noise(units, spend, _size(trained(task.start, task.factors))) for task in _tasks(spec, declares)
    )


def _traffic(spec: RunSpec, declares: Declaration) -> tuple[int, int] | tuple[None, None]:
    """Bytes (up, down) of all rounds."""
    if not spec.adapter:
        return None, None
    tasks = _tasks(spec, declares)
    up = sum(prod(shape) for task in tasks for shape in declares.upload(task).values())
    down = sum(_size(task.start) for task in tasks)
    return declares.rounds * FLOAT32_BYTES * up, declares.rounds * FLOAT32_BYTES * down


def _tasks(spec: RunSpec, declares: Declaration) -> Sequence[Task]:
    """Those of one round, on zeros that take no memory."""
    start: Tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in spec.adapter.items()}
    return [
        Task(round=0, phase=phase, factors=factors, epochs=declares.epochs, start=start)
        for phase, factors in enumerate(declares.phases)
    ]


def _size(tensors: Tensors) -> int:
    return sum(array.size for array in tensors.values())


def _counted(spec: RunSpec, units_low: int) -> int:
    """How many units a noised sum is over, at least: those of the site, or, under unit site, the sites."""
    return len(spec.federation.sites) if spec.privacy.unit == "site" else units_low


def _warnings(spec: RunSpec, declares: Declaration, units: tuple[int, int]) -> tuple[str, ...]:
    if spec.privacy.unit == "site":
        return () if (warning := drowned(spec, declares)) is None else (warning,)
    if spec.privacy.unit == "none" or units[0] >= FEW_UNITS or not declares.epochs:
        return ()
    return (
        f"units_low is {units[0]}, below {FEW_UNITS}: noise will likely hide what an adapter learns; "
        f"try strategy: head first, or a larger epsilon",
    )
