"""The site's `Trainer`: what a strategy may ask of the model, every step of it through the privacy mechanism."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import nan

import numpy as np
import torch
from torch import Tensor

from deerfield.errors import BudgetExhausted, InvalidInput
from deerfield.runspec import RunSpec
from deerfield.strategy import FitReport, Scores
from deerfield.tensors import Factors, Tensors, factor
from services.client.training.backbones import Inputs
from services.client.training.cached import Cached, chunks
from services.client.training.device import reproducible
from services.client.training.mechanism import Batch, Engine, Mechanism
from services.client.training.models import FEATURES, SHARED, Classifier
from services.client.training.units import Lot, Part, Units, units

Read = Callable[[Tensor], Inputs]  # indices of examples -> what the model reads of them


def engine(classifier: Classifier, slot: str, factors: Factors, *, clip: float, kind: str = "fused") -> Engine:
    """The engine that a run names, detached: enter it to train `factors` and the head of `slot`.

    Raises:
        InvalidInput: there is nothing to train.
    """
    if kind == "opacus":
        from services.client.training.opacus_engine import Hooked  # 9 s to import, and seldom asked for

        return Hooked(classifier, slot, factors, clip)
    from services.client.training.dplora import Fused

    return Fused(classifier, slot, factors, clip)


def optimizer(classifier: Classifier, slot: str, factors: Factors, spec: RunSpec) -> torch.optim.SGD:
    """SGD without any state, over exactly what an exchange of `factors` trains; one learning rate for each part."""
    entries = classifier.trained(slot, factors)
    rates = dict(zip(("adapter", "head"), spec.learning_rates, strict=True))
    groups = [
        {"params": [p for name, p in entries.items() if (factor(name) == "head") == (part == "head")], "lr": rate}
        for part, rate in rates.items()
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=0.0,
        momentum=spec.training.momentum,
        weight_decay=spec.training.weight_decay,
    )


def clipped_sums(engaged: Engine, read: Read, labels: Tensor, lots: Iterable[Lot]) -> tuple[list[Tensor], float]:
    """Adds up the units of `lots`; the sums (none for no lot), and the sum of the units' losses."""
    sums: list[Tensor] = []
    losses = 0.0
    for lot in lots:
        found, loss = engaged.clipped_sum(_batch(read, labels, part) for part in lot)
        sums = [total.add_(more) for total, more in zip(sums, found, strict=True)] if sums else found
        losses += float(loss)
    return sums, losses


def _batch(read: Read, labels: Tensor, part: Part) -> Batch:
    chosen, owners = part
    inputs = read(chosen)
    device = next(iter(inputs.values())).device
    return Batch(inputs, labels[chosen].to(device), owners.to(device) if owners else None)


def take_step(
    sgd: torch.optim.SGD, parameters: list[torch.nn.Parameter], sums: list[Tensor], mechanism: Mechanism
) -> None:
    """Noise, denominator and one optimizer step; no sums stand for an empty batch, which is a step like any other."""
    for parameter, gradient in zip(
        parameters, mechanism.release(sums or [torch.zeros_like(p) for p in parameters]), strict=True
    ):
        parameter.grad = gradient
    sgd.step()
    sgd.zero_grad(set_to_none=True)


@dataclass(kw_only=True, slots=True)
class TorchTrainer:
    """`deerfield.strategy.Trainer` for one task; cheap to make, because model and splits are those of the run.

    Refuses to take more steps than the task's mechanism was charged for.
    """

    classifier: Classifier
    train: Cached
    validation: Cached | None
    spec: RunSpec
    mechanism: Mechanism
    engage: Callable[..., Engine] = engine  # with another `grouped`, another only in an audit: `audit.Plant`
    grouped: Callable[..., Units] = units
    first_step: int = 0  # steps of the run before this task: public; where patients' turns go on
    on_step: Callable[[int, int], None] = lambda _done, _of: None
    reports: list[FitReport] = field(default_factory=list)  # private unless the policy says so
    _taken: int = 0

    def load(self, tensors: Tensors, *, slot: str = SHARED) -> None:
        """Overwrites the entries of `slot` that `tensors` names."""
        self.classifier.load(slot, tensors)

    def read(self, *, slot: str = SHARED, factors: Factors = "AB") -> Tensors:
        """The entries of `slot` that an exchange of `factors` trains."""
        return self.classifier.read(slot, factors)

    def fit(self, *, epochs: int, slot: str = SHARED, factors: Factors = "AB") -> FitReport:
        """Trains `factors` and the head of `slot` for `epochs` passes with a fresh optimizer.

        Raises:
            BudgetExhausted: the task was charged for fewer steps; none was taken.
        """
        steps = self.spec.steps(epochs)
        if self._taken + steps > self.mechanism.spend.steps:
            raise BudgetExhausted(
                f"{epochs} epochs are {steps} steps; the task was charged for {self.mechanism.spend.steps} and has "
                f"taken {self._taken}"
            )
        first, self._taken = self.first_step + self._taken, self._taken + steps
        classifier, spec = self.classifier, self.spec
        sgd = optimizer(classifier, slot, factors, spec)
        parameters = list(classifier.trained(slot, factors).values())
        drawn, losses, seen = self._units(), 0.0, 0
        with reproducible():
            read = self._reader(slot, factors)
            clip, kind = self.mechanism.spend.clip, spec.training.engine
            with self.engage(classifier, slot, factors, clip=clip, kind=kind) as engaged:
                for step in range(steps):
                    chosen = self.mechanism.sample(len(drawn))
                    sums, loss = clipped_sums(engaged, read, self.train.labels, drawn.lots(chosen, first + step))
                    take_step(sgd, parameters, sums, self.mechanism)
                    losses, seen = losses + loss, seen + len(chosen)
                    self.on_step(step + 1, steps)
        report = FitReport(steps=steps, loss=losses / seen if seen else nan)
        self.reports.append(report)
        return report

    def _units(self) -> Units:
        """What a step draws from: the units that the task was charged for."""
        at_most, microbatch = self.spec.privacy.examples_per_unit, self.spec.training.microbatch
        return self.grouped(self.mechanism.spend.unit, self.train.owners, at_most=at_most, microbatch=microbatch)

    def _reader(self, slot: str, factors: Factors) -> Read:
        """Where training reads from: the base's features where nothing below the head is trained."""
        if factors:
            return self.train.inputs
        features, device = self.train.features(slot), self.classifier.device.kind
        return lambda chosen: {FEATURES: features[chosen].to(device)}

    def score(self, *, slot: str = SHARED, split: str = "validation") -> Scores:
        """Predicts the `split` of the site's data with `slot`.

        Raises:
            InvalidInput: the site has no such split.
        """
        data = {"train": self.train, "validation": self.validation}.get(split)
        if data is None:
            raise InvalidInput(
                f"split {split!r}: this site has none; it has train{', validation' if self.validation else ''}"
            )
        with reproducible():
            probabilities = predict(self.classifier, data, slot)
        return Scores(probabilities=probabilities, labels=data.labels.numpy())


@torch.no_grad()
def predict(
    classifier: Classifier, data: Cached, slot: str = SHARED
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Probabilities (n, labels) of every example of `data` under `slot`."""
    features = data.features(slot)
    classifier.activate(slot, "")
    device = classifier.device.kind
    parts = [
        classifier({FEATURES: features[chosen].to(device)}).double().softmax(-1).cpu()
        for chosen in chunks(len(data), 4096)
    ]
    return torch.cat(parts).numpy() if parts else np.zeros((0, classifier.labels))
