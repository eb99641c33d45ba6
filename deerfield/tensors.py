"""Adapters as plain values: named float32 arrays, keyed as PEFT's state dict keys them.

A LoRA layer owns two entries, ``<path>.lora_A.weight`` of shape (r, d_in) and ``<path>.lora_B.weight`` of shape
(d_out, r); its effect on the layer is ``s B A``. Every other entry belongs to the head (``head.weight`` of shape
(labels, features), ``head.bias`` of shape (labels,)), which is trained beside whatever factor is.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Wide: TypeAlias = NDArray[np.float64]
Tensors: TypeAlias = Mapping[str, Array]
Factors: TypeAlias = Literal["", "A", "B", "AB"]  # the LoRA factors an exchange trains; "" trains the head alone
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

BLOCK = 1 << 15  # entries that are added at once: their float64 stays in a processor's cache

MARK = {"A": ".lora_A.", "B": ".lora_B."}


def factor(name: str) -> Literal["A", "B", "head"]:
    """Says which part of the adapter the entry ``name`` belongs to."""
    return "A" if MARK["A"] in name else "B" if MARK["B"] in name else "head"


def trained(tensors: Tensors, factors: Factors) -> Tensors:
    """The entries that an exchange of ``factors`` trains: those factors and the head."""
    return {name: array for name, array in tensors.items() if factor(name) in (*factors, "head")}


def peer(name: str) -> str:
    """The name of the other factor of the same layer."""
    old, new = ("A", "B") if factor(name) == "A" else ("B", "A")
    return name.replace(MARK[old], MARK[new])


def layers(tensors: Tensors | Shapes) -> tuple[str, ...]:
    """The paths of the adapted layers, sorted."""
    return tuple(sorted(name.split(MARK["A"])[0] for name in tensors if factor(name) == "A"))


def gathered(adapters: Mapping[str, Tensors]) -> Tensors:
    """Several adapters as one value: the entries of each under ``NAME/``, the very same arrays."""
    return {f"{name}/{entry}": array for name, adapter in adapters.items() for entry, array in adapter.items()}


def member(tensors: Tensors, name: str) -> Tensors:
    """The adapter that ``gathered`` has put under ``name/``."""
    begin = f"{name}/"
    return {entry.removeprefix(begin): array for entry, array in tensors.items() if entry.startswith(begin)}


def add(x: Tensors, y: Tensors) -> Tensors:
    """``x + y`` where ``y`` has the entry, the very same array of ``x`` elsewhere."""
    return {name: (v + y[name]).astype(np.float32) if name in y else v for name, v in x.items()}


def subtract(x: Tensors, y: Tensors) -> Tensors:
    """``x - y``, over the entries of ``x``."""
    return {name: (v - y[name]).astype(np.float32) for name, v in x.items()}


def norm(tensors: Tensors) -> float:
    """Joint Frobenius norm of all entries, summed in float64."""
    return float(np.sqrt(sum(float(np.sum(np.square(v, dtype=np.float64))) for v in tensors.values())))


def plus_weighted(start: Wide, terms: Iterable[tuple[float, Array]]) -> Wide:
    """`start` and the sum of weight x array, in float64 and in the order of the terms.

    Adds block by block: beside the sum there is one array at a time, as it is, and a block. The bits are those of
    `total = total + weight * array`.
    """
    total = np.array(start, np.float64, order="C")
    sums, product = total.reshape(-1), np.empty(min(BLOCK, total.size))
    for weight, array in terms:
        entries = array.reshape(-1)
        for first in range(0, sums.size, BLOCK):
            block = entries[first : first + BLOCK]
            sums[first : first + BLOCK] += np.multiply(block, weight, out=product[: block.size], dtype=np.float64)
    return total


def shapes(tensors: Tensors) -> Shapes:
    """The shape of every entry."""
    return {name: tuple(v.shape) for name, v in tensors.items()}


def digest(tensors: Tensors) -> str:
    """sha256 (hex) over names, shapes and little-endian float32 bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], dtype="<f4")
        sha.update(f"{name}\0{list(array.shape)}\0".encode())
        sha.update(array.data)
    return sha.hexdigest()
