"""A run's model and data at this site: built once for a run, used for every phase."""

from dataclasses import dataclass
from math import isnan
from statistics import fmean

import structlog

from deerfield.errors import NotMapped
from deerfield.randomness import Randomness, SeededRandomness, SystemRandomness
from deerfield.runspec import RunSpec
from deerfield.strategy import Trainer
from deerfield.types import Spend, Task
from services.client import backbones, data, device, models
from services.client.cached import Cached
from services.client.engine_check import check_engine
from services.client.mechanism import Mechanism
from services.client.models import Classifier
from services.client.policy import Policy, Population
from services.client.site import OnStep
from services.client.trainer import TorchTrainer

log = structlog.get_logger()


@dataclass(kw_only=True)
class TorchWorkbench:
    """`site.Workbench` over torch; the data are read when the first trainer is asked for."""

    site: str
    spec: RunSpec
    policy: Policy
    population: Population
    classifier: Classifier
    _train: Cached | None = None
    _last: TorchTrainer | None = None

    def check(self, task: Task) -> None:
        """Checks the engine on random examples; reads no data.

        Raises:
            EngineFault: the engine would not train what the task says.
        """
        check_engine(self.classifier, self.spec, task.factors)

    def trainer(self, task: Task, spend: Spend, on_step: OnStep) -> Trainer:
        """A trainer whose every step goes through the mechanism `spend`; reads the data the first time.

        Raises:
            InvalidInput: the data are not there, or lack a column; a row that cannot be used is left out.
        """
        if self._train is None:
            table = data.read(self.population.source, self.spec.labels, self.spec.model.input, invalid="drop")
            self._train = Cached(self.classifier, table.examples)
        sampling, noise = draws(self.spec, self.site, task)
        mechanism = Mechanism(spend=spend, units_low=self.population.units_low, sampling=sampling, noise=noise)
        self._last = TorchTrainer(
            classifier=self.classifier,
            train=self._train,
            validation=None,
            spec=self.spec,
            mechanism=mechanism,
            on_step=on_step,
        )
        return self._last

    def metrics(self) -> dict[str, float]:
        """The mean training loss of the last phase where the policy lets it out and no unit is protected."""
        if self.policy.metrics != "clear" or self.spec.privacy.unit != "none" or self._last is None:
            return {}
        losses = [report.loss for report in self._last.reports if not isnan(report.loss)]
        return {"loss": fmean(losses)} if losses else {}


def draws(spec: RunSpec, site: str, task: Task) -> tuple[Randomness, Randomness]:
    """(sampling, noise) of one task: from the system's entropy, or, with no guarantee to lose, from the run's seed."""
    if spec.privacy.unit != "none":
        return SystemRandomness(), SystemRandomness()
    key = (spec.seed, site, task.round, task.phase)
    return SeededRandomness("sampling", *key), SeededRandomness("noise", *key)


def build(site: str, policy: Policy, spec: RunSpec) -> TorchWorkbench:
    """The workbench for a run, once the policy maps what it names and the model is what it says.

    Raises:
        NotMapped: population or base model are not in the policy, or the base or adapter is another one.
        InvalidInput: the base model cannot be loaded.
    """
    population, folder = policy.population(spec), backbones.locate(policy.base(spec))
    if (found := backbones.digest(folder)) != spec.model.digest:
        raise NotMapped(f"base model in {folder} has digest {found}, the run names {spec.model.digest}")
    hardware = device.choose(policy.device, policy.precision)
    log.info("model", site=site, base=spec.model.base, device=str(hardware))
    classifier = models.load(folder, spec, device=hardware)
    if (shapes := dict(classifier.schema())) != dict(spec.adapter):
        strange = sorted(set(shapes.items()) ^ set(spec.adapter.items()))
        raise NotMapped(f"the run's adapter does not fit the base model here, first at {strange[0][0]}")
    return TorchWorkbench(site=site, spec=spec, policy=policy, population=population, classifier=classifier)
