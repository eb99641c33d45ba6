"""Which layers of a base model carry an adapter, and which models may not be trained by units at all."""

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from deerfield.errors import InvalidInput

SHOWN = 12  # distinct names in an error message; a large model has no more kinds of layers than that


def adaptable(layer: nn.Module) -> bool:
    """Linear layers and 1x1 convolutions: what has a closed-form gradient by example as a product of two matrices."""
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1 and layer.padding in ((0, 0), "valid", "same")
    return isinstance(layer, nn.Linear)


def matches(path: str, target: str) -> bool:
    """A target is the end of the path, whole components; with a wildcard it is a pattern for such an end."""
    if any(sign in target for sign in "*?["):
        return fnmatchcase(path, target) or fnmatchcase(path, f"*.{target}")
    return path == target or path.endswith(f".{target}")


def select(base: nn.Module, targets: Sequence[str], rank: int) -> list[str]:
    """Paths of the layers of `base` that any of `targets` names, in the order of the model.

    Raises:
        InvalidInput: none of the targets names an adaptable layer, or a layer is narrower than `rank`.
    """
    candidates = {path: layer for path, layer in base.named_modules() if adaptable(layer)}
    chosen = [path for path in candidates if any(matches(path, target) for target in targets)]
    if not chosen:
        kinds = Counter(_kind(path) for path in candidates)
        shown = ", ".join(f"{name} ({count})" for name, count in kinds.most_common(SHOWN))
        raise InvalidInput(
            f"lora: targets: {', '.join(targets)} names no linear layer or 1x1 convolution of this base; it has "
            f"{shown}{', ...' if len(kinds) > SHOWN else ''}"
        )
    for path in chosen:
        limit = min(widths(candidates[path]))
        if rank > limit:
            raise InvalidInput(f"lora: rank: {rank} is above {limit}, the smaller width of layer {path}; lower it")
    return chosen


def widths(layer: nn.Module) -> tuple[int, int]:
    """(d_in, d_out)."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    raise TypeError(f"{type(layer).__name__} is not adaptable")


def _kind(path: str) -> str:
    """The last component, with the one before it where the last is a generic name or number."""
    *before, last = path.split(".")
    return f"{before[-1]}.{last}" if before and (last.isdigit() or last in ("dense", "convolution")) else last


def refuse_batch_mixing(module: nn.Module) -> None:
    """Refuses layers whose output for one example depends on the others of its batch.

    Raises:
        InvalidInput: a batch normalisation is in training mode, or keeps no running statistics.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or not layer.track_running_stats):
            why = "is in training mode" if layer.training else "keeps no running statistics"
            raise InvalidInput(
                f"layer {path or 'base'} is a {type(layer).__name__} that {why}: it mixes the examples of a batch, so "
                f"no unit's influence is bounded; use a base with running statistics, in eval mode"
            )
