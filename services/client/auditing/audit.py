"""An empirical audit of a site's training: what its releases give away about canaries, against what was claimed.

Nothing here is charged to a ledger, and nothing leaves the machine: it tests the implementation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from deerfield import audit
from deerfield.errors import InvalidInput
from deerfield.plan import schedule
from deerfield.privacy import epsilon
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import completed
from deerfield.tensors import Tensors, digest, factor, trained
from deerfield.types import Spend, Task, Unit, Update
from services.client import workbench
from services.client.auditing.canaries import Plant
from services.client.custody.run_account import evaluations
from services.client.policy import Policy
from services.client.training.engine_check import check_engine
from services.client.training.trainer import TorchTrainer

SITE = "audit"  # in updates that go nowhere

Build = Callable[[Task, Spend], TorchTrainer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How much to audit."""

    canaries: int | None = None  # None: as many as show clearly that noise is missing
    rounds: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `deerfield audit` prints; every epsilon is at `delta`."""

    unit: Unit
    delta: float
    claimed: float  # of the steps that were audited, by the accountant
    bound: float  # of the same steps, found with `confidence`; a right implementation is below the claim
    confidence: float
    ceiling: float  # the largest bound that so many canaries can give
    guesses: int
    correct: int
    canaries: int
    steps: int

    @property
    def violation(self) -> bool:
        """Whether the claim is refuted."""
        return self.bound > self.claimed


def check(spec: RunSpec) -> None:
    """Refuses a run that has nothing to audit.

    Raises:
        InvalidInput: it claims nothing, trains nothing, or its sites do not noise what they send.
    """
    if not make(spec).declares.epochs:
        raise InvalidInput(f"strategy: {spec.strategy['name']} trains nothing that could be audited")
    if spec.privacy.unit not in ("record", "patient"):
        raise InvalidInput(f"privacy: unit {spec.privacy.unit!r}: a site claims nothing under it that could be audited")
    if spec.training.engine != "fused":
        raise InvalidInput(f"engine: {spec.training.engine} takes no canaries; audit the run with engine: fused")


def train(spec: RunSpec, build: Build, plant: Plant, spend: Spend, rounds: int) -> int:
    """Trains `rounds` rounds of the run at one site with the canaries of `plant`; the steps that were taken.

    `spend` is of the run: its noise, rate and clip are those of each step, whatever was claimed.
    """
    strategy = make(spec)
    state, steps = strategy.init(_start(spec)), 0
    for _ in range(rounds * len(strategy.declares.phases)):
        task = strategy.plan(state, SITE)
        trainer = build(task, replace(spend, steps=spec.steps(task.epochs)))
        trainer.engage, trainer.grouped = plant.engage, plant.grouped
        with plant.watching(trainer.mechanism.denominator):
            raw = strategy.train(trainer, task)
        steps += sum(report.steps for report in trainer.reports)
        delta = strategy.release(raw, task)
        update = Update(site=SITE, round=task.round, phase=task.phase, base=digest(task.start), delta=delta)
        state = strategy.aggregate(state, [update])
    return steps


def examine(spec: RunSpec, build: Build, *, claim: Spend, taken: Spend, request: Request) -> Report:
    """Holds what `claim` promises against what a training with `taken` gives away; the two differ only in tests.

    Raises:
        InvalidInput: nothing to audit, too few or too many canaries or rounds, or the training diverged.
    """
    check(spec)
    declares, rounds = make(spec).declares, request.rounds
    if not 1 <= rounds <= declares.rounds:
        raise InvalidInput(f"--rounds {rounds}: the run has 1 to {declares.rounds}")
    steps = rounds * len(declares.phases) * spec.steps(declares.epochs)
    audited, delta, room = replace(claim, steps=steps), spec.privacy.delta, _room(spec)
    claimed = epsilon([audited], delta)
    chosen = request.canaries
    count = audit.canaries_for(claimed, delta, audited, room) if chosen is None else chosen
    audit.check_count(count, room)
    tried = audit.plans(count, audited)
    plant = Plant(count, claim.clip)
    found_steps = train(spec, build, plant, taken, rounds)
    scores = audit.scores(np.stack(plant.seen), np.stack(plant.deviations), claim.sample_rate)
    found = audit.find(scores, plant.coins, delta, tried)
    return Report(
        unit=claim.unit,
        delta=delta,
        claimed=claimed,
        bound=found.epsilon,
        confidence=audit.CONFIDENCE,
        ceiling=audit.ceiling(count, delta, tried),
        guesses=found.guesses,
        correct=found.correct,
        canaries=count,
        steps=found_steps,
    )


def at_site(site: str, policy: Policy, spec: RunSpec, request: Request, *, noiseless: bool) -> Report:
    """Audits a run at one site as the site would train it, from its policy on; `noiseless` is a fault to be found.

    Raises:
        DeerfieldError: as `examine`, or what a site refuses.
    """
    check(spec)
    declares = make(spec).declares
    spec = completed(spec, declares)
    bench = workbench.build(site, policy, b"audit", spec)
    claim = schedule(spec, declares, evaluations(spec, policy))

    def build(task: Task, spend: Spend) -> TorchTrainer:
        check_engine(bench.classifier, spec, task.factors)
        trainer = bench.trainer(task, spend, lambda _done, _of: None)
        if not isinstance(trainer, TorchTrainer):
            raise TypeError(f"a site trains with TorchTrainer, not {type(trainer).__name__}")
        return trainer

    taken = replace(claim, noise_multiplier=0.0) if noiseless else claim
    return examine(spec, build, claim=claim, taken=taken, request=request)


def _room(spec: RunSpec) -> int:
    """The most canaries: half of the coordinates of the phase that trains the fewest."""
    start = _start(spec)
    return min(sum(v.size for v in trained(start, factors).values()) for factors in make(spec).declares.phases) // 2


def _start(spec: RunSpec) -> Tensors:
    """An adapter as a run starts from: A drawn, B and the head zero."""
    generator = np.random.default_rng(spec.seed)
    return {
        name: (generator.uniform(-1, 1, shape) / np.sqrt(shape[1])).astype(np.float32)
        if factor(name) == "A"
        else np.zeros(shape, np.float32)
        for name, shape in sorted(spec.adapter.items())
    }
