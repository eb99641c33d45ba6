"""The private mechanism of one step, whoever computes the clipped gradients: Abadi et al. 2016, arXiv 1607.00133.

    step = (sum over the sampled units of clip(gradient) + N(0, (z C)^2)) / (q n_low)

Both engines end here. The denominator and the noise are the same for an empty batch: its size is private.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deerfield.randomness import Randomness
from deerfield.types import Spend
from services.client.backbones import Inputs

EPSILON = 1e-6  # added to norms before the division, as Opacus does


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """What a task's steps cost, over how many units they are a mean, and where their draws come from."""

    spend: Spend  # steps: at most so many will be taken
    units_low: int  # public lower bound on the number of units, n_low
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
        """The noised mean: noise on every coordinate of `sums` and on no other."""
        deviation = self.spend.noise_multiplier * self.spend.clip if self.spend.noise_multiplier else 0.0
        if not isfinite(deviation):
            raise ValueError(f"noise_multiplier {self.spend.noise_multiplier} needs a finite clip")
        if not deviation:
            return [total / self.denominator for total in sums]
        draws = torch.from_numpy(self.noise.normal(sum(total.numel() for total in sums))).mul_(deviation)
        parts = torch.split(draws, [total.numel() for total in sums])
        return [
            total.add(part.view_as(total).to(total.device, total.dtype)).div_(self.denominator)
            for total, part in zip(sums, parts, strict=True)
        ]


class Engine(Protocol):
    """Computes what a step may know of its batch. Implementers guarantee for `clipped_sum`:

    - each example's gradient over all trained tensors together is scaled to L2 norm at most `clip` before any two are
      added; one that is not finite counts as zero;
    - unclipped gradients are on no parameter's `.grad` when it returns (the fused engine: never);
    - norms, factors and sums are at least fp32, whatever the forward pass ran in.

    Units of several examples are meant to come as one more argument: the index of each example's unit.
    """

    def __enter__(self) -> "Engine":
        """Attaches to the model."""
        ...

    def __exit__(self, *_: object) -> None:
        """Detaches, and leaves the model as it was."""

    def clipped_sum(self, inputs: Inputs, labels: Tensor) -> tuple[list[Tensor], Tensor]:
        """The sum over the examples (n >= 1) for each trained entry, in its shape, and the sum of their losses."""
        ...


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """Per-example factors (n,) that bring norms (n,) to at most `clip`; zero where a norm is not finite."""
    return (clip / (norms + EPSILON)).clamp_(max=1.0).where(norms.isfinite(), norms.new_zeros(()))
