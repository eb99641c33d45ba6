"""Which hardware a site trains on, in which precision, and how its results are made to repeat."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.utils.deterministic

from deerfield.errors import InvalidInput

Kind = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
_fills: Any = torch.utils.deterministic  # its one setting is a property that no stub knows


@dataclass(frozen=True, slots=True)
class Device:
    """Where the model lives; bf16 means autocast: weights, gradients of units, norms and sums stay fp32."""

    kind: Kind = "cpu"
    precision: Precision = "fp32"

    def __str__(self) -> str:
        """One line for the start-up log."""
        name = f"cuda ({torch.cuda.get_device_name()})" if self.kind == "cuda" else "cpu"
        return f"{name}, {self.precision}, {torch.get_num_threads()} threads"

    def autocast(self) -> AbstractContextManager[object]:
        """The context that forward passes run in."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.kind, torch.bfloat16)


def choose(
    device: Literal["auto", "cpu", "cuda"] = "auto", precision: Literal["auto", "fp32", "bf16"] = "auto"
) -> Device:
    """The device that a site's settings ask for; `auto` takes a GPU where there is one, and bf16 on it.

    Raises:
        InvalidInput: cuda is asked for and there is none.
    """
    present = torch.cuda.is_available()
    if device == "cuda" and not present:
        raise InvalidInput(
            "device: cuda, but torch sees no GPU on this machine; give it one (a pod asks for it in its "
            "resources), or write device: auto or cpu"
        )
    kind: Kind = "cpu" if device == "cpu" or not present else "cuda"
    if precision == "auto":
        fast = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return Device(kind, "bf16" if fast else "fp32")
    return Device(kind, precision)


@contextmanager
def reproducible() -> Iterator[None]:
    """Deterministic kernels without TF32; restores the process's settings afterwards."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        _fills.fill_uninitialized_memory,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself with this workspace alone
    try:
        _set(True, False, False, False)  # nothing here reads memory that it did not write, so none is filled
        yield
    finally:
        _set(*before)


def _set(deterministic: bool, fill: bool, matmul_tf32: bool, cudnn_tf32: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    _fills.fill_uninitialized_memory = fill
    torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
