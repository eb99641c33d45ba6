"""The private mechanism of one step, whoever computes the clipped gradients: Abadi et al. 2016, arXiv 1607.00133.

    step = (sum over the sampled units of clip(gradient) + N(0, (z C)^2)) / (q n_low)

A record's gradient is that of its loss. A patient's is the mean of the gradients of its sampled examples, clipped once:
a patient with many examples counts as one, and the clip keeps its scale however many they are.

Both engines end here. The denominator and the noise are the same for an empty batch: its size is private.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from deerfield.randomness import Randomness, grid
from deerfield.types import Spend
from services.client.training.backbones import Inputs

EPSILON = 1e-6  # added to norms before the division, as Opacus does


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """What a task's steps cost, over how many units they are a mean, and where their draws come from."""

    spend: Spend  # steps: at most so many will be taken
    units_low: int  # public lower bound on the number of units of the spend, n_low
    sampling: Randomness
    noise: Randomness

    @property
    def denominator(self) -> float:
        """The expected number of units in a step, as far as it is public."""
        return self.spend.sample_rate * self.units_low

    def sample(self, count: int) -> Tensor:
        """Indices of the units of one step, each of `count` with probability q and independently."""
        return torch.from_numpy(np.flatnonzero(self.sampling.uniform(count) < self.spend.sample_rate))

    def release(self, sums: Sequence[Tensor]) -> list[Tensor]:
        """The noised mean: noise on every coordinate of `sums` and on no other.

        Sum and noise are added in float64 and rounded to `grid` before anything else.
        """
        deviation = self.spend.noise_multiplier * self.spend.clip if self.spend.noise_multiplier else 0.0
        if not isfinite(deviation):
            raise ValueError(f"noise_multiplier {self.spend.noise_multiplier} needs a finite clip")
        if not deviation:
            return [total / self.denominator for total in sums]
        draws = torch.from_numpy(self.noise.normal(sum(total.numel() for total in sums))).mul_(deviation)
        parts, step = torch.split(draws, [total.numel() for total in sums]), grid(deviation)
        return [
            part.view_as(total)
            .to(total.device)
            .add_(total)
            .div_(step)
            .round_()
            .mul_(step / self.denominator)
            .to(total.dtype)
            for total, part in zip(sums, parts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose the examples of a microbatch are: units numbered from 0 within one `clipped_sum`."""

    places: Tensor  # (n,) the unit of each example
    sizes: Tensor  # (units,) examples of each unit, in all microbatches of that sum together

    def to(self, device: torch.device) -> "Owners":
        """The same on `device`."""
        return Owners(self.places.to(device), self.sizes.to(device))

    def summed(self, each: Tensor) -> Tensor:
        """The sums (units, ...) over each unit's examples of `each` (n, ...)."""
        return each.new_zeros(len(self.sizes), *each.shape[1:]).index_add_(0, self.places, each)


@dataclass(frozen=True, slots=True)
class Batch:
    """One microbatch; without owners every example is a unit of its own."""

    inputs: Inputs
    labels: Tensor  # (n,)
    owners: Owners | None = None

    def loss(self, logits: Tensor) -> Tensor:
        """The sum over units of the mean loss of their examples, as far as they are in this microbatch."""
        if self.owners is None:
            return nn.functional.cross_entropy(logits, self.labels, reduction="sum")
        each = nn.functional.cross_entropy(logits, self.labels, reduction="none")
        return (each / self.owners.sizes[self.owners.places]).sum()


class Engine(Protocol):
    """Computes what a step may know of its batch. Implementers guarantee for `clipped_sum`:

    - a unit's gradient is the mean of those of its examples; over all trained tensors together it is scaled once to L2
      norm at most `clip`, before any two units are added; one that is not finite counts as zero;
    - that holds however a unit's examples lie in the microbatches of one call, interleaved or apart;
    - unclipped gradients are on no parameter's `.grad` when it returns (the fused engine: never);
    - norms, factors and sums are at least fp32, whatever the forward pass ran in.
    """

    def __enter__(self) -> "Engine":
        """Attaches to the model."""
        ...

    def __exit__(self, *_: object) -> None:
        """Detaches, and leaves the model as it was."""

    def clipped_sum(self, batches: Iterable[Batch]) -> tuple[list[Tensor], Tensor]:
        """The sum over the units (at least one) for each trained entry, in its shape, and the sum of their losses.

        `batches` hold all examples of their units, and are read one at a time; batches after the first are for units
        that are too large for one, and have owners of the same numbering.
        """
        ...


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """Factors (n,) of the units that bring their norms (n,) to at most `clip`; zero where a norm is not finite."""
    return (clip / (norms + EPSILON)).clamp_(max=1.0).where(norms.isfinite(), norms.new_zeros(()))
