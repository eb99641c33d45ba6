"""Unit "site": central differential privacy, which hides what one whole site contributes to a phase.

    published mean = (sum over the sites that answered of clip(update, C) + N(0, (z C)^2)) / N

After McMahan, Ramage, Talwar, Zhang 2018 (arXiv:1710.06963), with their fixed denominator q N at q = 1: who takes part
is no secret here, so that nothing may be saved by sampling. N is the number of sites that the run names, never of those
that answered. Adding or removing a site moves the sum by at most C: one Gaussian release for each phase.

The aggregator is trusted: it sees every update, clips it again, and adds the noise. That noise comes from a key which
the operating system made when the phase opened, which lies in the aggregator's database until the phase is published,
and which goes nowhere else: whoever has it takes the noise off.
"""

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from math import inf, isfinite

import numpy as np

from deerfield.randomness import KEY_BYTES, KeyedRandomness, Randomness, grid
from deerfield.tensors import Array, Shapes, Tensors, digest, norm, plus_weighted
from deerfield.types import Spend, Task, Update

FEDERATION = "federation"  # whose update the mean is


def noise_key() -> bytes:
    """A fresh secret for the noise of one phase."""
    return os.urandom(KEY_BYTES)


def noise_of(key: bytes, *content: str) -> KeyedRandomness:
    """The noise under `key` for a sum that `content` determines: the same for a redo, independent for any other sum.

    A database that was put back from a backup may close the same phase over other updates; with equal noise on both
    sums, their difference would show what one site sent.
    """
    return KeyedRandomness(hmac.digest(key, dumps(content).encode(), "sha256"))


def clipped(change: Tensors, clip: float) -> Tensors:
    """`change`, scaled to joint L2 norm `clip` if it is longer; all zeros where its norm is not finite."""
    factor = _factor(norm(change), clip)
    if factor == 1:
        return change
    if not factor:
        return {name: np.zeros_like(v) for name, v in change.items()}
    return {name: np.multiply(v, factor, dtype=np.float64).astype(np.float32) for name, v in change.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """How the updates of one phase become a release."""

    spend: Spend  # its noise and its clip
    sites: int  # that the run names: N
    noise: Randomness


def privatised(task: Task, schema: Shapes, updates: Sequence[Update], mechanism: Mechanism) -> Update:
    """The one update that stands for all `updates` (none is enough) of a phase, with noise on every entry of `schema`.

    Clips each update whatever its site did, in the order of the sites and in float64: equal arguments and equal noise
    give equal bits. Reads updates tensor by tensor, twice.

    Raises:
        ValueError: the mechanism has no noise, no clip, or no sites.
    """
    spend, sites = mechanism.spend, mechanism.sites
    deviation = spend.noise_multiplier * spend.clip
    if not 0 < deviation < inf or sites < 1:
        raise ValueError(f"noise {spend.noise_multiplier:g}, clip {spend.clip:g} and {sites} sites give no privacy")
    step = grid(deviation)
    ordered = sorted(updates, key=lambda update: update.site)
    factors = [_factor(norm(update.delta), spend.clip) for update in ordered]

    def mean(name: str) -> Array:
        noise = deviation * mechanism.noise.normal(int(np.prod(schema[name]))).reshape(schema[name])
        terms = ((factor, update.delta[name]) for factor, update in zip(factors, ordered, strict=True) if factor)
        total = plus_weighted(noise, terms)
        return (np.round(total / step) * (step / sites)).astype(np.float32)

    delta = {name: mean(name) for name in sorted(schema)}
    return Update(site=FEDERATION, round=task.round, phase=task.phase, base=digest(task.start), delta=delta)


def _factor(length: float, clip: float) -> float:
    """What brings a vector of L2 norm `length` to at most `clip`; 0 where the norm is not finite."""
    return min(1.0, clip / length) if isfinite(length) and length else float(length == 0)
