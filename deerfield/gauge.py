"""The regulator of DEeR as a change of gauge: the factor about to be frozen becomes orthonormal.

DEeR (Zhu et al. 2024, arXiv:2410.12926) shapes the noise on B as xi_W A^T (A A^T)^-1, on A as (B^T B)^-1 B^T xi_W, so
that its effect on the product does not depend on the size of the frozen factor. `B A` is unchanged by
(B, A) -> (B L, L^-1 A), so we move the factors instead of the noise:

    before B is trained:  A^T = Q R (thin QR)  =>  B <- B R^T,  A <- Q^T
    before A is trained:  B   = U R            =>  A <- R A,    B <- U

Ordinary DP-SGD on the other factor then has, in the old coordinates, exactly the regulated noise of the paper, a clip
in product space (||dB Q^T||_F = ||dB||_F), and an ordinary accountant that is exact, which the paper's own mechanism
lacks. It costs O(d r^2), takes any shapes with r <= d, B = 0 and rank-deficient factors, and spends no privacy: it is
computed from released values alone.
"""

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from deerfield.tensors import Tensors, Wide, factor, peer

Real = TypeVar("Real", np.float32, np.float64)


def regauge(adapter: Tensors, moving: Literal["A", "B"]) -> Tensors:
    """The same products, and the very same head, with the factors that do not move orthonormal; see `regauged`."""
    out = dict(adapter)
    for name in (name for name in adapter if factor(name) == "A"):
        B, A = regauged(adapter[peer(name)], adapter[name], moving)
        out[peer(name)], out[name] = _narrow(B), _narrow(A)
    return out


def regauged(B: NDArray[Real], A: NDArray[Real], moving: Literal["A", "B"]) -> tuple[Wide, Wide]:
    """(B, A) of equal product in which A A^T = 1 if B is `moving`, else B^T B = 1, in float64.

    `B` is (d_out, r) and `A` is (r, d_in), with r at most d_out and d_in. Idempotent; equal arguments give equal bits.
    """
    B64, A64 = B.astype(np.float64), A.astype(np.float64)
    if moving == "B":
        Q, R = _thin_qr(A64.T)
        return B64 @ R.T, Q.T
    U, R = _thin_qr(B64)
    return U, R @ A64


def _thin_qr(tall: Wide) -> tuple[Wide, Wide]:
    """Thin QR with diag(R) >= 0: without a fixed sign a frame that is orthonormal already would be turned about."""
    Q, R = np.linalg.qr(tall)
    sign = np.where(np.diagonal(R) < 0, -1.0, 1.0)
    return Q * sign, R * sign[:, None]


def _narrow(array: Wide) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, dtype=np.float32)
