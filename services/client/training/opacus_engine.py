"""Clipped sums by Opacus' hooks on PEFT's own layers: the reference for `dplora`, selectable as `engine: opacus`.

Opacus computes and clips the per-example gradients; noise, denominator and optimizer are ours (`mechanism`), because
its own noise comes from torch's global generator. A wrapped model cannot change what it trains: each phase wraps anew.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor

from deerfield.errors import EngineFault, InvalidInput
from deerfield.tensors import Factors
from services.client.training.mechanism import Batch
from services.client.training.models import Classifier


class Hooked:
    """`mechanism.Engine` for every layer that Opacus knows, at the price of its activations and hooks."""

    def __init__(self, classifier: Classifier, slot: str, factors: Factors, clip: float) -> None:
        self._classifier, self._slot, self._factors, self._clip = classifier, slot, factors, clip
        classifier.trained(slot, factors)
        if classifier.device.precision != "fp32":  # the hooks would measure gradients in the precision of the forward
            raise InvalidInput("engine: opacus computes in fp32 alone; write precision: fp32, or engine: fused")

    def __enter__(self) -> "Hooked":
        self._entries = list(self._classifier.activate(self._slot, self._factors).values())
        self._hooked = [
            module
            for module in self._classifier.modules()
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        ]
        for module in self._hooked:
            module.train()  # Opacus' hooks look away in eval mode; these are linear maps, the same in both
        self._wrapped: Any = GradSampleModule(self._classifier, loss_reduction="sum")
        self._clipper: Any = DPOptimizer(
            torch.optim.SGD(self._entries, lr=0.0),
            noise_multiplier=0.0,
            max_grad_norm=self._clip,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        self._wrapped.remove_hooks()
        for parameter in self._classifier.parameters():
            for name in ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample"):
                vars(parameter).pop(name, None)
        for module in self._hooked:
            vars(module).pop("activations", None)
            module.eval()

    def clipped_sum(self, batches: Iterable[Batch]) -> tuple[list[Tensor], Tensor]:
        """As `mechanism.Engine` says."""
        each: list[Tensor] = []
        losses = []
        for batch in batches:
            found, loss = self._samples(batch)
            each = [total.add_(more) for total, more in zip(each, found, strict=True)] if each else found
            losses.append(loss)
        finite = torch.stack([units.flatten(1).isfinite().all(1) for units in each]).all(0)  # (units,)
        for parameter, units in zip(self._entries, each, strict=True):
            units[~finite] = 0
            vars(parameter).update(grad_sample=units)
        self._clipper.clip_and_accumulate()
        sums = [vars(parameter)["summed_grad"] for parameter in self._entries]
        self._forget()
        return sums, torch.stack(losses).sum()

    def _samples(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """The gradients (units, ...) of each entry, as far as they come from `batch`, and the loss."""
        self._forget()
        loss = batch.loss(self._wrapped(batch.inputs))
        with warnings.catch_warnings():  # of its hooks on layers whose inputs need no gradient, which is so by design
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            loss.backward()  # type: ignore[no-untyped-call]
        samples = [vars(parameter)["grad_sample"] for parameter in self._entries]
        if any(sample is None for sample in samples):
            raise EngineFault("the model's forward pass does not use one of the trained layers")
        self._forget()
        return (samples if batch.owners is None else [batch.owners.summed(g) for g in samples]), loss.detach()

    def _forget(self) -> None:
        """Drops every gradient, clipped or not."""
        for parameter in self._entries:
            parameter.grad = None
            vars(parameter).update(grad_sample=None, summed_grad=None)
