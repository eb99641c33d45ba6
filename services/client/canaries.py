"""Canaries among a site's units: `deerfield.audit` on the real sampling, clipping, noise and steps.

A canary is a unit whose gradient we choose: one direction of the trained coordinates, orthogonal to those of all other
canaries, ten times as long as the clip. It is sampled with the site's units by the same draw, clipped by the engine's
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
from services.client.dplora import Fused
from services.client.mechanism import Batch, Engine
from services.client.models import Classifier
from services.client.trainer import engine
from services.client.units import Lot, Units, units

LOUD = 10.0  # canaries' gradients over the clip: none is in a step unless it is clipped


class Directions:
    """Orthonormal directions of a space: cosines under random signs, so that none is near an axis or a real gradient.

    The first `count` belong to canaries, the others to nobody: what is found along them is the noise.
    """

    def __init__(self, size: int, count: int, generator: np.random.Generator) -> None:
        self._size, self._count = size, count
        self._signs = generator.choice((-1.0, 1.0), size)
        self._order = generator.permutation(size)

    def rows(self, chosen: NDArray[np.int64]) -> Wide:
        """Those of the canaries `chosen`, (chosen, size)."""
        k, n = self._order[chosen][:, None], np.arange(self._size)
        scale = np.where(k == 0, np.sqrt(1 / self._size), np.sqrt(2 / self._size))
        return np.asarray(scale * np.cos(np.pi / (2 * self._size) * (k * (2 * n + 1) % (4 * self._size))) * self._signs)

    def along(self, vector: Wide) -> tuple[Wide, Wide]:
        """The lengths of `vector` (size,) along the canaries' directions and along nobody's."""
        found = dct(self._signs * vector, norm="ortho")[self._order]
        return found[: self._count], found[self._count :]


@dataclass(slots=True)
class Plant:
    """The canaries of one audit: their coins, where they are in the step under way, and what the steps have shown."""

    count: int
    clip: float
    coins: NDArray[np.bool_] = field(init=False)
    seen: list[Wide] = field(default_factory=list)  # one (count,) each step, in units of the clip
    nobody: list[Wide] = field(default_factory=list)
    parameters: Sequence[torch.nn.Parameter] = ()  # trained in the phase under way
    _sampled: NDArray[np.int64] | None = None  # canaries of this step that the engine has yet to take
    _known: Wide | None = None  # the other units' clipped sum in this step
    _directions: Directions | None = None
    _generator: np.random.Generator = field(default_factory=np.random.default_rng)

    def __post_init__(self) -> None:
        self.coins = SystemRandomness().uniform(self.count) < 0.5

    def engage(self, classifier: Classifier, slot: str, factors: Factors, *, clip: float, kind: str) -> Engine:
        """The engine that the trainer asked for, with the sampled canaries among its units."""
        entries = classifier.trained(slot, factors)
        self.parameters = list(entries.values())
        self._directions = Directions(sum(p.numel() for p in self.parameters), self.count, self._generator)
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
        if sampled is None or not len(sampled) or self._directions is None:
            return None
        return LOUD * self.clip * self._directions.rows(sampled)

    def know(self, sums: Sequence[Tensor]) -> None:
        """Adds to what the auditor knows of the step: the clipped sum of the other units."""
        total = _flat(sums)
        self._known = total if self._known is None else self._known + total

    @contextmanager
    def watching(self, denominator: float) -> Iterator[None]:
        """Records what the optimizer is handed in every step."""

        def record(*_: Any) -> None:
            released = _flat([p.grad for p in self.parameters if p.grad is not None]) * denominator
            unknown = released if self._known is None else released - self._known
            self._known = None
            if self._directions is not None:
                along, nobody = self._directions.along(unknown / self.clip)
                self.seen.append(along)
                self.nobody.append(nobody)

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
        parts = torch.from_numpy(rows).float().to(device).split([s.numel() for s in self._shapes.values()], dim=1)
        if not isinstance(self._inner, Fused):
            raise InvalidInput("engine: opacus takes no canaries; audit the run with engine: fused")
        self._inner._taken = dict(zip(self._shapes, parts, strict=True))
        sums = self._inner._sums()
        self._inner._taken.clear()
        return sums


def _flat(tensors: Sequence[Tensor]) -> Wide:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).double().cpu().numpy()
