"""How far the published adapter is from the mean of the sites' products: the quantity that DEeR removes.

With weights w_k the mean change of a layer is sum_k w_k B_k A_k, but averaging the factors publishes another product;
per layer the two differ by D = sum_k w_k (B_k - Bbar)(A_k - Abar) (Zhu et al. 2024, arXiv:2410.12926). One factor that
is equal at all sites suffices for D = 0. The paper calls that necessary too, which it is not: r = 1, B = (-1, 0, 1),
A = (1, -2, 1) with equal weights has D = 0.

It is measured on what was really published, whatever its gauge, so it includes the rounding to float32 (about 1e-7).
"""

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np

from deerfield.tensors import MARK, Tensors, Wide, layers


def deviation(start: Tensors, deltas: Sequence[Tensors], shares: Sequence[float], published: Tensors) -> float:
    """||sum_k w_k B_k A_k - B A||_F / ||sum_k w_k B_k A_k||_F over all layers jointly; 0 where the mean product is 0.

    `B_k` and `A_k` are `start` plus the site's delta, where it has one; `B` and `A` are `published`; `shares` are the
    w_k, summing to 1. A delta may be lazy: each tensor is read once, and memory does not grow with the sites beyond one
    layer's own size.
    """
    squares = [_squares(layer, start, deltas, shares, published) for layer in layers(start)]
    apart, mean = (sum(column) for column in zip((0.0, 0.0), *squares, strict=True))
    return sqrt(apart / mean) if mean > 0 else 0.0


def _squares(
    layer: str, start: Tensors, deltas: Sequence[Tensors], shares: Sequence[float], published: Tensors
) -> tuple[float, float]:
    """The squared norms (difference, mean product) of one layer."""
    sites = ((share * B, A) for share, (B, A) in zip(shares, _factors(layer, start, deltas), strict=True))
    ((B, A),) = _factors(layer, published, [{}])
    rows = (len(deltas) + 1) * len(A)
    return _thin(sites, B, A) if rows < min(len(B), A.shape[1]) else _dense(sites, B, A)


def _factors(layer: str, start: Tensors, deltas: Sequence[Tensors]) -> Iterator[tuple[Wide, Wide]]:
    B, A = (f"{layer}{MARK[which]}weight" for which in "BA")
    for delta in deltas:
        yield _sum(start, delta, B), _sum(start, delta, A)


def _sum(start: Tensors, delta: Tensors, name: str) -> Wide:
    wide = start[name].astype(np.float64)
    return wide + delta[name] if name in delta else wide


def _thin(sites: Iterator[tuple[Wide, Wide]], B: Wide, A: Wide) -> tuple[float, float]:
    """||L R||_F of stacked factors is that of the small triangles of their QRs: no (d_out, d_in) matrix."""
    Bs, As = zip(*sites, (-B, A), strict=True)
    left, right = _triangle(np.hstack(Bs)), _triangle(np.vstack(As).T)
    mean = len(A) * (len(Bs) - 1)  # the columns that belong to the sites
    return _square(left @ right.T), _square(left[:, :mean] @ right[:, :mean].T)


def _dense(sites: Iterator[tuple[Wide, Wide]], B: Wide, A: Wide) -> tuple[float, float]:
    """Adds the products up, where there are so many sites that their stacked factors would be the larger."""
    total = np.zeros((len(B), A.shape[1]))
    for B_k, A_k in sites:
        total += B_k @ A_k
    mean = _square(total)
    total -= B @ A
    return _square(total), mean


def _triangle(tall: Wide) -> Wide:
    return np.asarray(np.linalg.qr(tall, mode="r"), np.float64)


def _square(array: Wide) -> float:
    return float(np.sum(array**2))
