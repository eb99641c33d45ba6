"""Which examples a step reads of the units that it drew, and how they are laid out in microbatches.

A step draws units; what it then reads of one is decided by that unit's own examples and the public number of the step,
so that removing a unit changes nothing for the others. Microbatches are a matter of memory and never of the result.
"""

from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deerfield.types import Unit
from services.client.training.mechanism import Owners

Part: TypeAlias = tuple[Tensor, Owners | None]  # indices of the examples of one microbatch, and whose they are
Lot: TypeAlias = tuple[Part, ...]  # whole units: one microbatch, or several of one unit that is too large for one


class Units(Protocol):
    """The units that a step draws from, numbered from 0."""

    def __len__(self) -> int:
        """How many there are: private."""
        ...

    def lots(self, chosen: Tensor, step: int) -> Iterator[Lot]:
        """What step number `step` of the run reads of the units `chosen`; nothing for none."""
        ...


def units(unit: Unit, owners: NDArray[np.int64], *, at_most: int | None, microbatch: int) -> Units:
    """The units of a run over examples whose patients are numbered `owners` (n,).

    Under unit patient at most `at_most` examples of each are read in a step (None: all); otherwise each example is one.
    """
    if unit == "patient":
        return Patients(owners, at_most=at_most, microbatch=microbatch)
    return Records(len(owners), microbatch=microbatch)


class Records:
    """Every example is a unit."""

    def __init__(self, count: int, *, microbatch: int) -> None:
        self._count, self._microbatch = count, microbatch

    def __len__(self) -> int:
        return self._count

    def lots(self, chosen: Tensor, step: int) -> Iterator[Lot]:
        """As `Units` says; the step does not matter."""
        for part in torch.split(chosen, self._microbatch) if len(chosen) else ():
            yield ((part, None),)


class Patients:
    """All examples of one patient are a unit; who has more than `at_most` brings them in turns.

    Step t takes the `at_most` examples from number t * at_most on, around the patient's own examples in the order of
    their rows: consecutive steps see them all, and no randomness is needed.
    """

    def __init__(self, owners: NDArray[np.int64], *, at_most: int | None, microbatch: int) -> None:
        self._order = np.argsort(owners, kind="stable")  # examples, patient by patient
        _, starts = np.unique(owners[self._order], return_index=True)
        self._bounds = np.append(starts, len(owners))  # (patients + 1,)
        self._at_most, self._microbatch = at_most, microbatch

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def window(self, unit: int, step: int) -> NDArray[np.int64]:
        """The examples of `unit` that step number `step` reads."""
        own = self._order[self._bounds[unit] : self._bounds[unit + 1]]
        if self._at_most is None or len(own) <= self._at_most:
            return own
        return own[(step * self._at_most + np.arange(self._at_most)) % len(own)]

    def lots(self, chosen: Tensor, step: int) -> Iterator[Lot]:
        """As `Units` says; whole patients, in the order of `chosen`, as many as a microbatch holds."""
        together: list[NDArray[np.int64]] = []
        for unit in chosen.tolist():
            found = self.window(unit, step)
            if together and sum(map(len, together)) + len(found) > self._microbatch:
                yield self._lot(together)
                together = []
            together.append(found)
        if together:
            yield self._lot(together)

    def _lot(self, together: list[NDArray[np.int64]]) -> Lot:
        sizes = torch.tensor([len(found) for found in together])
        places = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        parts = torch.split(torch.from_numpy(np.concatenate(together)), self._microbatch)
        return tuple(
            (part, Owners(place, sizes))
            for part, place in zip(parts, torch.split(places, self._microbatch), strict=True)
        )
