"""Whether the bytes of a stored update are the ones that a ledger has committed to."""

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from deerfield.tensors import Tensors, digest


def update_of(data: bytes, name: str) -> Tensors:
    """The update in the bytes of a safetensors file.

    Raises:
        ValueError: they are no update, or not the one whose digest is `name`.
    """
    try:
        update = load(data)
    except SafetensorError as error:
        raise ValueError(f"it is no safetensors file: {error}") from error
    if digest(update) != name or any(array.dtype != np.float32 for array in update.values()):
        raise ValueError("its content has another digest")
    return update
