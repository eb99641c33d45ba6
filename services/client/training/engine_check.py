"""Checks before a phase is charged that its engine trains what it says, on random examples and random factors.

PEFT and Opacus have combined to train nothing, silently, and under noise a tensor that has moved proves nothing. So the
engine's clipped sum is compared with plain autograd through PEFT's own layers, one example at a time, and one step must
move exactly the trained tensors. Reads no data, draws from a generator of its own, and puts every bit back.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from deerfield.errors import EngineFault
from deerfield.randomness import SeededRandomness
from deerfield.runspec import RunSpec
from deerfield.tensors import Factors, factor
from deerfield.types import Spend
from services.client.training.backbones import Inputs
from services.client.training.device import reproducible
from services.client.training.mechanism import Batch, Engine, Mechanism, Owners, clip_factors
from services.client.training.models import SHARED, Classifier, side
from services.client.training.targets import refuse_batch_mixing
from services.client.training.trainer import engine, optimizer, take_step

Gradients: TypeAlias = Mapping[str, Tensor]

EXAMPLES = 3  # the fewest that tell "each clipped" from "the sum clipped" and from "the first and the last"
# whose they are under unit patient: one of two examples, apart and in two microbatches; one of one
PATIENTS = (0, 1, 0)
TOKENS = 8
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}  # relative L2 error of one tensor; bf16 has 8 bits, over some tens of layers


def check_engine(
    classifier: Classifier,
    spec: RunSpec,
    factors: Factors,
    *,
    slot: str = SHARED,
    engage: Callable[..., Engine] = engine,
) -> None:
    """Checks the engine that `engage` makes for `spec` and an exchange of `factors`, by default the trainer's own.

    Raises:
        EngineFault: it would not train what it should; the message names the tensor.
        InvalidInput: the base mixes the examples of a batch, or there is nothing to train.
    """
    refuse_batch_mixing(classifier.base)
    classifier.trained(slot, factors)
    generator = torch.Generator().manual_seed(0)
    inputs, labels = _examples(classifier, generator)
    check = _Check(classifier, spec, slot, factors, inputs, labels, engage)
    with reproducible(), _scratch(classifier, slot, generator):
        if factors:
            check.adapter_counts()
        check.engine_agrees_and_moves_what_it_trains(check.by_unit([check.reference(i) for i in range(EXAMPLES)]))


def _examples(classifier: Classifier, generator: torch.Generator) -> tuple[Inputs, Tensor]:
    """Random inputs, from behind the frozen prefix where there is one, and labels."""
    device, base = classifier.device.kind, classifier.base
    if classifier.kind == "text":
        ids = torch.randint(base.config.vocab_size, (EXAMPLES, TOKENS), generator=generator)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    else:
        shape = (EXAMPLES, 3, side(base), side(base))
        inputs = {"pixel_values": torch.randn(shape, generator=generator).to(next(base.parameters()).dtype)}
    inputs = {name: value.to(device) for name, value in inputs.items()}
    if classifier.prefix:
        with torch.no_grad(), classifier.device.autocast():
            inputs = classifier.prefix.run(inputs)
    return inputs, torch.randint(classifier.labels, (EXAMPLES,), generator=generator).to(device)


@contextmanager
def _scratch(classifier: Classifier, slot: str, generator: torch.Generator) -> Iterator[None]:
    """Lends `slot` random non-zero entries, and puts back what was there."""
    entries = classifier.entries(slot)
    kept = {name: parameter.detach().clone() for name, parameter in entries.items()}
    try:
        with torch.no_grad():
            for parameter in entries.values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
        yield
    finally:
        with torch.no_grad():
            for name, parameter in entries.items():
                parameter.copy_(kept[name])
                parameter.grad = None


@dataclass(frozen=True, slots=True)
class _Check:
    classifier: Classifier
    spec: RunSpec
    slot: str
    factors: Factors
    inputs: Inputs
    labels: Tensor  # (EXAMPLES,)
    engage: Callable[..., Engine]

    @torch.no_grad()
    def adapter_counts(self) -> None:
        """The logits must change when the adapter does."""
        self.classifier.activate(self.slot, "")
        with_adapter = self.classifier(self.inputs)
        B = [p for name, p in self.classifier.entries(self.slot).items() if factor(name) == "B"]
        kept = [parameter.clone() for parameter in B]
        for parameter in B:
            parameter.zero_()
        without = self.classifier(self.inputs)
        for parameter, value in zip(B, kept, strict=True):
            parameter.copy_(value)
        if torch.equal(with_adapter, without):
            raise EngineFault(
                "the adapter does not change the model's answers: its layers are not part of the forward pass"
            )

    def reference(self, index: int) -> Gradients:
        """The gradient of one example by plain autograd, which must be non-zero somewhere in every entry."""
        entries = self.classifier.activate(self.slot, self.factors)
        one = {name: value[index : index + 1] for name, value in self.inputs.items()}
        loss = nn.functional.cross_entropy(self.classifier(one), self.labels[index : index + 1])
        if not loss.requires_grad:
            raise EngineFault(f"{next(iter(entries))} gets no gradient, and neither does anything else")
        found = torch.autograd.grad(loss, list(entries.values()), allow_unused=True)
        for name, gradient in zip(entries, found, strict=True):
            if gradient is None or not gradient.any():
                raise EngineFault(f"{name} gets no gradient: its layer is not part of the forward pass")
        return dict(zip(entries, found, strict=True))

    def by_unit(self, each: list[Gradients]) -> list[Gradients]:
        """The references of the units that the run protects: examples, or the means over a patient's examples."""
        if self.spec.privacy.unit != "patient":
            return each
        owned = [[g for g, unit in zip(each, PATIENTS, strict=True) if unit == wanted] for wanted in set(PATIENTS)]
        return [{name: torch.stack([g[name] for g in mine]).mean(0) for name in mine[0]} for mine in owned]

    def batches(self) -> Iterator[Batch]:
        """The examples as the trainer would hand them to the engine; under unit patient in two microbatches."""
        if self.spec.privacy.unit != "patient":
            yield Batch(self.inputs, self.labels)
            return
        places = torch.tensor(PATIENTS)
        for part in torch.split(torch.arange(EXAMPLES), EXAMPLES - 1):
            owners = Owners(places[part], torch.bincount(places)).to(self.labels.device)
            yield Batch({name: value[part] for name, value in self.inputs.items()}, self.labels[part], owners)

    def engine_agrees_and_moves_what_it_trains(self, each: list[Gradients]) -> None:
        """Compares the engine's sum with that of the clipped references, then takes one step without noise."""
        norms = torch.stack([torch.stack([g.norm() for g in one.values()]).norm() for one in each])
        clip = float(norms.median())  # one unit is clipped, one is not
        scales = clip_factors(norms, clip)
        trained = self.classifier.trained(self.slot, self.factors)
        frozen = {name: (p, p._version) for name, p in self.classifier.named_parameters() if _absent(p, trained)}
        before = {name: p.detach().clone() for name, p in self.classifier.entries(self.slot).items()}
        kind = self.spec.training.engine
        with self.engage(self.classifier, self.slot, self.factors, clip=clip, kind=kind) as engaged:
            sums, _ = engaged.clipped_sum(self.batches())
            for name, total in zip(trained, sums, strict=True):
                expected = torch.stack([scale * one[name] for scale, one in zip(scales, each, strict=True)]).sum(0)
                self.compare(name, total, expected)
            sgd = optimizer(self.classifier, self.slot, self.factors, self.spec)
            take_step(sgd, list(trained.values()), sums, _noiseless())
        moved = {name for name, p in self.classifier.entries(self.slot).items() if not torch.equal(p, before[name])}
        if moved != set(trained):
            raise EngineFault(f"one step moves {sorted(moved)}, the exchange trains {sorted(trained)}")
        for name, (parameter, version) in frozen.items():
            if parameter._version != version:
                raise EngineFault(f"one step writes to {name}, which is frozen")

    def compare(self, name: str, found: Tensor, expected: Tensor) -> None:
        """The engine's clipped sum of one entry against the reference's."""
        tolerance = TOLERANCE[self.classifier.device.precision]
        error = float((found - expected).norm() / expected.norm())
        if not error <= tolerance:  # also when it is not a number
            raise EngineFault(
                f"{name}: the engine's clipped sum is off by {error:.1e} of its norm; at most {tolerance:g} may be"
            )


def _absent(parameter: nn.Parameter, entries: Mapping[str, nn.Parameter]) -> bool:
    return all(parameter is not entry for entry in entries.values())


def _noiseless() -> Mechanism:
    spend = Spend(unit="none", noise_multiplier=0.0, sample_rate=1.0, steps=1, clip=float("inf"))
    nothing = SeededRandomness("engine check")
    return Mechanism(spend=spend, units_low=EXAMPLES, sampling=nothing, noise=nothing)
