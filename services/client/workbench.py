"""A run's model and data at this site: built once for a run, used for every phase."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, isnan
from statistics import fmean

import numpy as np
import structlog

from deerfield import partition
from deerfield.errors import NotMapped
from deerfield.ledger.account import Reservation
from deerfield.link import Assignment
from deerfield.randomness import Randomness, SeededRandomness, SystemRandomness
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import Declaration, Scores, Trainer
from deerfield.tensors import Tensors
from deerfield.types import Spend, Task
from services.client.policy import Policy, Population
from services.client.site import OnStep
from services.client.sources import data
from services.client.training import backbones, device, dp_metrics, models
from services.client.training.cached import Cached
from services.client.training.device import reproducible
from services.client.training.engine_check import check_engine
from services.client.training.mechanism import Mechanism
from services.client.training.models import Classifier
from services.client.training.trainer import TorchTrainer, predict

log = structlog.get_logger()

Draws = Callable[[RunSpec, str, Task], tuple[Randomness, Randomness]]  # (sampling, noise) of one task


@dataclass(kw_only=True)
class TorchWorkbench:
    """`site.Workbench` over torch; the data are read when the first trainer is asked for."""

    site: str
    spec: RunSpec
    policy: Policy
    population: Population
    classifier: Classifier
    split_key: bytes  # the site's secret, by which units are kept out of training
    draws: "Draws" = field(default_factory=lambda: system_or_seed)  # tests inject both; nothing in production does
    _splits: tuple[Cached, Cached] | None = None  # train, validation
    _last: TorchTrainer | None = None
    _scores: Mapping[str, float] = field(default_factory=dict)  # of the task's start tensors, noised

    def check(self, assignment: Assignment, on_step: OnStep) -> None:
        """Checks the engine on random examples; reads no data.

        Raises:
            EngineFault: the engine would not train what the task says.
        """
        if assignment.task.epochs:
            check_engine(self.classifier, self.spec, assignment.task.factors)

    def release(self, assignment: Assignment, reservation: Reservation, on_step: OnStep) -> Tensors:
        """Trains as the strategy says, and answers what it releases; raises as `trainer` does."""
        strategy, task = make(self.spec), assignment.task
        return strategy.release(strategy.train(self.trainer(task, reservation.spend, on_step), task), task)

    def done(self) -> None:
        """Keeps model and data for the next phase."""

    def trainer(self, task: Task, spend: Spend, on_step: OnStep) -> Trainer:
        """A trainer whose every step goes through the mechanism `spend`; reads the data the first time.

        Raises:
            InvalidInput: the data are not there, or lack a column; a row that cannot be used is left out.
        """
        if self._splits is None:
            self._splits = self._read()
        train, validation = self._splits
        before = self._phases_before(task)
        self._scores = self._evaluate(task, validation) if self._is_due(before) else {}
        sampling, noise = self.draws(self.spec, self.site, task)
        units_low = self.population.units_low
        if self.spec.privacy.unit == "site":  # whatever happens inside a site is hidden by the clip of its whole update
            spend, units_low = _unprotected(self.spec, task), max(1, len(train))
        mechanism = Mechanism(spend=spend, units_low=units_low, sampling=sampling, noise=noise)
        self._last = TorchTrainer(
            classifier=self.classifier,
            train=train,
            validation=None,
            spec=self.spec,
            mechanism=mechanism,
            first_step=before * self.spec.steps(task.epochs),
            on_step=on_step,
        )
        return self._last

    def metrics(self) -> Mapping[str, float]:
        """What the policy lets out: scores of the task's start tensors, or the mean loss of its training."""
        if self.policy.metrics != "clear" or self._last is None:
            return self._scores
        losses = [report.loss for report in self._last.reports if not isnan(report.loss)]
        return {"loss": fmean(losses)} if losses else self._scores

    def _read(self) -> tuple[Cached, Cached]:
        """The site's examples; who is kept out of training is decided for each patient by that patient's name alone.

        Of a run that trains nothing the first part is empty.
        """
        table = data.read(self.population.source, self.spec.labels, self.spec.model.input, invalid="drop")
        examples = table.examples
        held = partition.held_out(examples.units, self.population.validation, key=self.split_key)
        kept = ~held if self._declares.epochs else np.zeros_like(held)
        train, validation = (examples.take(np.flatnonzero(rows)) for rows in (kept, held))
        return Cached(self.classifier, train), Cached(self.classifier, validation)

    def _phases_before(self, task: Task) -> int:
        return task.round * len(self._declares.phases) + task.phase

    def _is_due(self, phases_before: int) -> bool:
        """Whether the run reserved an evaluation for this phase: by its number, and by nothing that is private."""
        if self.policy.metrics == "clear":  # its policy allows a run of unit none that trains nothing, and no other
            return not self._declares.epochs
        is_reserved = self.policy.metrics == "dp" and self.spec.privacy.unit != "none"
        return is_reserved and phases_before % self.policy.every(self._declares) == 0

    @property
    def _declares(self) -> Declaration:
        return make(self.spec).declares

    def _evaluate(self, task: Task, validation: Cached) -> Mapping[str, float]:
        """Scores what the aggregator published: computed from releases alone, so that only the counts need noise."""
        self.classifier.load(models.SHARED, task.start)
        with reproducible():
            probabilities = predict(self.classifier, validation)
        scores = Scores(probabilities=probabilities, labels=validation.labels.numpy())
        owners = validation.owners if self.spec.privacy.unit == "patient" else np.arange(len(validation))
        table = dp_metrics.counts(scores, owners)
        noise_multiplier = 0.0 if self.policy.metrics == "clear" else self.policy.dp_metrics.noise_multiplier
        return dp_metrics.release(table, noise_multiplier, SystemRandomness())


def _unprotected(spec: RunSpec, task: Task) -> Spend:
    """Local steps without noise or clip, which a run under unit site takes and no ledger counts."""
    rate, steps = spec.privacy.sample_rate, spec.steps(task.epochs)
    return Spend(unit=spec.privacy.unit, noise_multiplier=0.0, sample_rate=rate, steps=steps, clip=inf)


def system_or_seed(spec: RunSpec, site: str, task: Task) -> tuple[Randomness, Randomness]:
    """(sampling, noise) of one task: from the system's entropy, or, with no guarantee to lose, from the run's seed."""
    if spec.privacy.unit != "none":
        return SystemRandomness(), SystemRandomness()
    key = (spec.seed, site, task.round, task.phase)
    return SeededRandomness("sampling", *key), SeededRandomness("noise", *key)


def build(site: str, policy: Policy, split_key: bytes, spec: RunSpec) -> TorchWorkbench:
    """The workbench for a run, once the policy maps what it names and the model is what it says.

    Raises:
        NotMapped: population or base model are not in the policy, or the base or adapter is another one.
        InvalidInput: the base model cannot be loaded.
    """
    population, folder = policy.population(spec), backbones.locate(policy.base(spec))
    data.check_unit(population.source, spec.privacy.unit)
    if (found := backbones.digest(folder)) != spec.model.digest:
        raise NotMapped(f"base model in {folder} has digest {found}, the run names {spec.model.digest}")
    hardware = device.choose(policy.device, policy.precision)
    log.info("model", site=site, base=spec.model.base, device=str(hardware))
    classifier = models.load(folder, spec, device=hardware)
    if (shapes := dict(classifier.schema())) != dict(spec.adapter):
        strange = sorted(set(shapes.items()) ^ set(spec.adapter.items()))
        raise NotMapped(f"the run's adapter does not fit the base model here, first at {strange[0][0]}")
    return TorchWorkbench(
        site=site, spec=spec, policy=policy, population=population, classifier=classifier, split_key=split_key
    )
