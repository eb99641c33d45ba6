"""Small adapters of random numbers, for any test that needs one."""

from collections.abc import Sequence

import numpy as np

from deerfield.tensors import Tensors


def adapter(
    seed: int = 0, *, layers: int = 2, d_out: int = 5, d_in: int = 6, rank: int = 2, labels: int = 3
) -> dict[str, np.ndarray]:
    """`layers` rectangular layers and a head, every entry from N(0, 1)."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, Sequence[int]] = {"head.weight": (labels, 4), "head.bias": (labels,)}
    for i in range(layers):
        shapes[f"block.{i}.lora_A.weight"] = (rank, d_in)
        shapes[f"block.{i}.lora_B.weight"] = (d_out, rank)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def products(tensors: Tensors) -> dict[str, np.ndarray]:
    """B A of each layer, in float64."""
    paths = [name.removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name]
    return {
        path: tensors[f"{path}.lora_B.weight"].astype(float) @ tensors[f"{path}.lora_A.weight"].astype(float)
        for path in paths
    }
