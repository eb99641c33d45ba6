"""Canaries among a site's units: `deerfield.audit` on the real sampling, clipping, noise and steps.

A canary is a unit whose gradient we choose: one direction in each step, orthogonal to those of all other canaries,
ten times as long as the clip. It is sampled with the site's units by the same draw, clipped by the engine's
own code, noised, divided and stepped with; what the optimizer is handed is what the auditor sees. It sees all that
differential privacy concedes to an attacker: the data, who was sampled, every step; all but the canaries' own coins.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from deerfield.errors import InvalidInput
from deerfield.randomness import SystemRandomness
from deerfield.tensors import Factors, Wide
from deerfield.types import Unit
from services.client.training.dplora import Fused
from services.client.training.mechanism import Batch, Engine
from services.client.training.models import Classifier
from services.client.training.trainer import engine
from services.client.training.units import Lot, Units, units

LOUD = 10.0  # canaries' gradients over the clip: none is in a step unless it is clipped
QUIETEST = 1e-3  # of the clip: what counts as noise where there is none
FEWEST = 50  # directions that tell how much noise a block has, to 10 %


class Directions:
    """Orthonormal directions, each within one of blocks of `sizes`: cosines under random signs, none near an axis.

    The first `count`, in a random order over all blocks, belong to canaries, the others to nobody: what a step holds
    along those is its noise.
    """

    def __init__(self, sizes: Sequence[int], count: int, generator: np.random.Generator) -> None:
        self._starts, self._sizes = np.cumsum([0, *sizes[:-1]]), np.asarray(sizes)
        self._block = np.repeat(np.arange(len(sizes)), sizes)  # (d,) of each direction
        self._signs = generator.choice((-1.0, 1.0), self._sizes.sum())
        order = generator.permutation(self._sizes.sum())
        self._canaries, self._nobody = order[:count], order[count:]

    def rows(self, chosen: NDArray[np.int64]) -> Wide:
        """Those of the canaries `chosen`, (chosen, d)."""
        found = np.zeros((len(chosen), len(self._signs)))
        for row, direction in zip(found, self._canaries[chosen], strict=True):
            start, size = self._starts[self._block[direction]], self._sizes[self._block[direction]]
            k, n = direction - start, np.arange(size)
            wave = np.cos(np.pi / (2 * size) * (k * (2 * n + 1) % (4 * size)))
            row[start : start + size] = wave * np.sqrt((2 if k else 1) / size)
        return np.asarray(found * self._signs)

    def along(self, vector: Wide) -> tuple[Wide, Wide]:
        """The length of `vector` (d,) along each canary, and the standard deviation of what is there of nobody."""
        parts = np.split(self._signs * vector, self._starts[1:])
        found = np.concatenate([dct(part, norm="ortho") for part in parts])
        return found[self._canaries], np.maximum(self._deviations(found)[self._block[self._canaries]], QUIETEST)

    def _deviations(self, found: Wide) -> Wide:
        """Of the noise in each block; in all together for those that have too few directions of nobody."""
        nobody, block, many = found[self._nobody], self._block[self._nobody], len(self._sizes)
        counts = np.bincount(block, minlength=many)
        squares = np.bincount(block, weights=nobody**2, minlength=many)
        own = np.sqrt(squares / np.maximum(counts, 1))
        return np.where(counts >= FEWEST, own, np.sqrt((nobody**2).mean()))


@dataclass(slots=True)
class Plant:
    """The canaries of one audit: their coins, where they are in the step under way, and what the steps have shown."""

    count: int
    clip: float
    coins: NDArray[np.bool_] = field(init=False)
    seen: list[Wide] = field(default_factory=list)  # one (count,) each step, in units of the clip
    deviations: list[Wide] = field(default_factory=list)  # of the noise around it, likewise
    parameters: Sequence[torch.nn.Parameter] = ()  # trained in the phase under way
    _sampled: NDArray[np.int64] | None = None  # canaries of this step that the engine has yet to take
    _known: Wide | None = None  # the other units' clipped sum in this step
    _directions: Sequence[Directions] = ()  # those of every other step
    _generator: np.random.Generator = field(default_factory=np.random.default_rng)

    def __post_init__(self) -> None:
        self.coins = SystemRandomness().uniform(self.count) < 0.5

    def engage(self, classifier: Classifier, slot: str, factors: Factors, *, clip: float, kind: str) -> Engine:
        """The engine that the trainer asked for, with the sampled canaries among its units."""
        entries = classifier.trained(slot, factors)
        self.parameters = list(entries.values())
        sizes = [parameter.numel() for parameter in self.parameters]
        # across all tensors, where only the joint norm bounds them; within one, which may be the one without noise
        self._directions = [Directions(blocks, self.count, self._generator) for blocks in ([sum(sizes)], sizes)]
        inner = engine(classifier, slot, factors, clip=clip, kind=kind)
        return _Planted(inner, self, {name: p.shape for name, p in entries.items()})

    def grouped(self, unit: Unit, owners: NDArray[np.int64], *, at_most: int | None, microbatch: int) -> Units:
        """The site's units, and after them the canaries that are in."""
        return _Joined(units(unit, owners, at_most=at_most, microbatch=microbatch), self)

    def sample(self, canaries: NDArray[np.int64]) -> None:
        """Notes who of those that are in has been sampled for the next step."""
        self._sampled = np.flatnonzero(self.coins)[canaries]

    def take(self) -> Wide | None:
        """The gradients (sampled, size) of the step's canaries, once; None where there are none."""
        sampled, self._sampled = self._sampled, None
        if sampled is None or not len(sampled):
            return None
        return LOUD * self.clip * self._now().rows(sampled)

    def know(self, sums: Sequence[Tensor]) -> None:
        """Adds to what the auditor knows of the step: the clipped sum of the other units."""
        total = _flat(sums)
        self._known = total if self._known is None else self._known + total

    def _now(self) -> Directions:
        """The directions of the step under way."""
        return self._directions[len(self.seen) % len(self._directions)]

    @contextmanager
    def watching(self, denominator: float) -> Iterator[None]:
        """Records what the optimizer is handed in every step."""

        def record(*_: Any) -> None:
            released = _flat([p.grad for p in self.parameters if p.grad is not None]) * denominator
            unknown = released if self._known is None else released - self._known
            self._known = None
            seen, deviations = self._now().along(unknown / self.clip)
            self.seen.append(seen)
            self.deviations.append(deviations)

        hook = register_optimizer_step_pre_hook(record)
        try:
            yield
        finally:
            hook.remove()


class _Joined:
    """`units.Units`: the site's, then the canaries; a step draws from them all alike."""

    def __init__(self, real: Units, plant: Plant) -> None:
        self._real, self._plant = real, plant

    def __len__(self) -> int:
        return len(self._real) + int(self._plant.coins.sum())

    def lots(self, chosen: Tensor, step: int) -> Iterator[Lot]:
        """As `Units` says; a step of canaries alone has one empty lot."""
        is_canary = chosen >= len(self._real)
        self._plant.sample((chosen[is_canary] - len(self._real)).numpy())
        if is_canary.any() and is_canary.all():
            yield ()
        yield from self._real.lots(chosen[~is_canary], step)


class _Planted:
    """`mechanism.Engine`: another one, whose code also measures, clips and adds up the canaries."""

    def __init__(self, inner: Engine, plant: Plant, shapes: dict[str, torch.Size]) -> None:
        self._inner, self._plant, self._shapes = inner, plant, shapes

    def __enter__(self) -> "_Planted":
        self._inner.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.__exit__(*_)

    def clipped_sum(self, batches: Iterable[Batch]) -> tuple[list[Tensor], Tensor]:
        """As `mechanism.Engine` says."""
        batches = iter(batches)
        first = next(batches, None)
        sums: list[Tensor] = []
        losses = torch.zeros(())
        if first is not None:
            sums, losses = self._inner.clipped_sum(chain((first,), batches))
            self._plant.know(sums)
        rows = self._plant.take()
        if rows is None:
            return sums, losses
        found = self._clipped(rows)
        return [a + b for a, b in zip(sums, found, strict=True)] if sums else found, losses

    @torch.no_grad()
    def _clipped(self, rows: Wide) -> list[Tensor]:
        """The clipped sum of the canaries by the engine's own norms, factors and product: there is no other way in."""
        device = self._plant.parameters[0].device
        parts = torch.split(torch.from_numpy(rows).float().to(device), [s.numel() for s in self._shapes.values()], 1)
        if not isinstance(self._inner, Fused):
            raise InvalidInput("engine: opacus takes no canaries; audit the run with engine: fused")
        self._inner._taken = dict(zip(self._shapes, parts, strict=True))
        sums = self._inner._sums()
        self._inner._taken.clear()
        return sums


def _flat(tensors: Sequence[Tensor]) -> Wide:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).double().cpu().numpy()
