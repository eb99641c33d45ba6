"""Means that a minority of bad sites cannot move far: coordinate-wise median and trimmed mean, one site one vote.

Yin, Chen, Ramchandran, Bartlett 2018 (arXiv:1803.01498), over whole updates instead of gradients: while fewer than half
of the sites (or than the share that is trimmed) are bad, each coordinate of the result lies between two honest ones. A
coordinate must mean the same at every site: of LoRA's factors it does while the other one is frozen and shared. Where
both move, B_k A_k = (B_k L)(L^-1 A_k) for any L of the site's own, and the median of the factors is of nothing.
"""

from collections.abc import Callable, Sequence
from math import floor
from typing import TypeAlias

import numpy as np

from deerfield.runspec import Federation
from deerfield.tensors import Array, Tensors, Wide

Combine: TypeAlias = Callable[[Wide], Wide]  # (sites, entries), each column sorted -> (entries,)
SLICE = 1 << 16  # entries of a tensor that are widened and sorted at a time
NEARLY = 1e-9  # 0.29 * 100 is 28.999999999999996


def combine_of(federation: Federation) -> Combine | None:
    """What a run names in `federation.robust`; None for the weighted mean."""
    return {"none": None, "median": median, "trimmed_mean": trimmed_mean(federation.trim)}[federation.robust]


def median(ordered: Wide) -> Wide:
    """The middle value of each column, or the mean of the two in the middle."""
    count = len(ordered)
    return np.asarray((ordered[(count - 1) // 2] + ordered[count // 2]) / 2)


def trimmed_mean(trim: float) -> Combine:
    """The mean of each column without its floor(trim x sites) largest and as many smallest values."""

    def combine(ordered: Wide) -> Wide:
        cut = floor(trim * len(ordered) + NEARLY)
        return np.asarray(ordered[cut : len(ordered) - cut].mean(axis=0))

    return combine


def robustly_moved(start: Tensors, deltas: Sequence[Tensors], combine: Combine) -> Tensors:
    """`start` plus what `combine` makes of the deltas; entries that no delta has stay the very same arrays.

    Sorts each coordinate over the sites in float64, so that equal deltas in any order give equal bits. Reads one tensor
    of all deltas at a time: memory grows with the sites times the largest tensor, in float32.
    """

    def combined(name: str) -> Wide:
        stack = np.stack([delta[name].reshape(-1) for delta in deltas])
        firsts = range(0, stack.shape[1], SLICE)
        parts = [combine(_sorted(stack[:, first : first + SLICE])) for first in firsts]
        return np.concatenate(parts).reshape(start[name].shape)

    names = set(deltas[0])
    return {name: (v + combined(name)).astype(np.float32) if name in names else v for name, v in start.items()}


def _sorted(part: Array) -> Wide:
    return np.sort(part.astype(np.float64), axis=0)
