"""Whether a run can be run: what is refused before its first phase is made."""

from math import prod

from deerfield.errors import InvalidInput
from deerfield.manifest import FLOAT32_BYTES
from deerfield.runspec import RunSpec
from deerfield.strategy import Declaration
from deerfield.tensors import Shapes, layers
from deerfield.wire import limits
from deerfield.wire.checks import at_most, tensor_name


def check_size(adapter: Shapes, models: int) -> None:
    """Raises TooLarge or InvalidInput before a tensor is drawn; a run may hold several `models` of its shapes."""
    at_most(models * len(adapter), limits.TENSORS, "tensors in an adapter")
    total = 0
    for name, shape in adapter.items():
        tensor_name(name)
        at_most(len(shape), limits.DIMENSIONS, f"dimensions in {name}")
        if any(side < 1 for side in shape):
            raise InvalidInput(f"adapter: {name} has shape {list(shape)}; every side is at least 1")
        at_most(size := FLOAT32_BYTES * prod(shape), limits.TENSOR_BYTES, f"bytes in {name}")
        total += size
    at_most(models * total, limits.MANIFEST_BYTES, "bytes in an adapter")


def check_run(spec: RunSpec, declares: Declaration) -> None:
    """Raises InvalidInput for a run whose sites, weights or adapter do not fit its strategy and rank."""
    sites = spec.federation.sites
    if not sites:
        raise InvalidInput("federation.sites is empty; name the sites of the run")
    if declares.topology == "pooled" and len(sites) != 1:
        raise InvalidInput(f"{spec.strategy['name']} pools all data at one site; the run names {len(sites)}")
    if spec.privacy.unit == "site" and len(set(spec.shares(sites))) > 1:
        raise InvalidInput("federation.weights differ, and under unit site every site counts alike; leave them out")
    if not spec.adapter:
        raise InvalidInput("adapter is empty; it holds the shapes of the exchanged tensors")
    wrong = [layer for layer in layers(spec.adapter) if not _has_rank(spec, layer)]
    if wrong:
        raise InvalidInput(f"adapter: {wrong[0]} does not have factors of rank {spec.model.lora.rank}")


def _has_rank(spec: RunSpec, layer: str) -> bool:
    A, B = (spec.adapter.get(f"{layer}.lora_{which}.weight", ()) for which in "AB")
    return len(A) == len(B) == 2 and A[0] == B[1] == spec.model.lora.rank
