"""The products of the fused engine, for the two layouts that activations come in.

Shapes: n examples, t positions (tokens, pixels), d_in, d_out, r; `Rows` are linear layers' (n, ..., d), `Columns` 1x1
convolutions' (n, d, h, w). Neither layout is ever copied into the other.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Low(Protocol):
    """One layout. `outer(a, b)` is, for each example, the sum over positions of a's vector times b's transposed."""

    def forward(self, x: Tensor, merged: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output."""
        ...

    def backward(self, g: Tensor, merged: Tensor, shape: Sequence[int]) -> Tensor:
        """The gradient of the layer's input, which has `shape`."""
        ...

    def inputs(self, x: Tensor) -> Tensor:
        """The input at the positions that the layer reads, three-dimensional."""
        ...

    def outputs(self, g: Tensor) -> Tensor:
        """The output gradient, three-dimensional."""
        ...

    def times(self, x: Tensor, scaled_A: Tensor) -> Tensor:
        """`s A x` at every position."""
        ...

    def times_outputs(self, g: Tensor, scaled_B: Tensor) -> Tensor:
        """`s B^T g` at every position."""
        ...

    def outer(self, a: Tensor, b: Tensor, summed: bool) -> Tensor:
        """(n, d_a, d_b), or (d_a, d_b) over all examples."""
        ...


class Rows:
    """Linear layers: positions by rows."""

    def forward(self, x: Tensor, merged: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.linear(x, merged, bias)

    def backward(self, g: Tensor, merged: Tensor, shape: Sequence[int]) -> Tensor:
        return torch.matmul(g, merged)

    def inputs(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, x.shape[-1])

    outputs = inputs

    def times(self, x: Tensor, scaled_A: Tensor) -> Tensor:
        return nn.functional.linear(self.inputs(x), scaled_A)

    def times_outputs(self, g: Tensor, scaled_B: Tensor) -> Tensor:
        return torch.matmul(self.inputs(g), scaled_B)

    def outer(self, a: Tensor, b: Tensor, summed: bool) -> Tensor:
        if summed:
            return a.flatten(0, 1).t() @ b.flatten(0, 1)
        return torch.bmm(a.transpose(1, 2), b)


class Columns:
    """1x1 convolutions: positions by columns, every `stride`-th pixel."""

    def __init__(self, stride: Sequence[int]) -> None:
        self._stride = tuple(stride)

    def forward(self, x: Tensor, merged: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.conv2d(x, merged[..., None, None], bias, self._stride)

    def backward(self, g: Tensor, merged: Tensor, shape: Sequence[int]) -> Tensor:
        dx = torch.matmul(merged.t(), g.flatten(2)).view(g.shape[0], -1, *g.shape[2:])
        if self._stride == (1, 1):
            return dx
        spread = dx.new_zeros(shape)
        spread[..., :: self._stride[0], :: self._stride[1]] = dx
        return spread

    def inputs(self, x: Tensor) -> Tensor:
        return x[..., :: self._stride[0], :: self._stride[1]].flatten(2)

    def outputs(self, g: Tensor) -> Tensor:
        return g.flatten(2)

    def times(self, x: Tensor, scaled_A: Tensor) -> Tensor:
        return torch.matmul(scaled_A, self.inputs(x))

    def times_outputs(self, g: Tensor, scaled_B: Tensor) -> Tensor:
        return torch.matmul(scaled_B.t(), self.outputs(g))

    def outer(self, a: Tensor, b: Tensor, summed: bool) -> Tensor:
        if summed:
            return torch.einsum("nat,nbt->ab", a, b)
        return torch.bmm(a, b.transpose(1, 2))


def wide(tensor: Tensor) -> Tensor:
    """At least fp32: what is measured and summed must not be rounded to bf16."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
