"""The frozen layers before the first adapter: the same for every step, so computed once and then skipped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from services.client.training.backbones import Inputs, Tower

HIDDEN = "hidden"  # the entry of `Inputs` that stands for everything the skipped layers read

# (layers before the blocks in the order they run, list of blocks), by transformers' model_type; others are not skipped.
LAYOUTS = {
    "bert": (("embeddings",), "encoder.layer"),
    "vit": (("embeddings",), "layers"),
    "dinov2": (("embeddings",), "encoder.layer"),
    "clip_vision_model": (("embeddings", "pre_layrnorm"), "encoder.layers"),
    "mobilenet_v2": (("conv_stem",), "layer"),
}


class _Reached(Exception):  # no error: it ends a forward pass whose rest nobody needs
    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


@dataclass(frozen=True, slots=True)
class Prefix:
    """The modules of `base` that run before anything trained, in order; each hands its output to the next alone."""

    base: nn.Module
    skipped: tuple[nn.Module, ...]
    argument: str  # the argument of the base's forward that takes what the first of them reads, or its output

    def run(self, inputs: Inputs) -> dict[str, Tensor]:
        """`inputs` with the output of the skipped layers, (n, ...), in place of what only they read."""

        def stop(_module: nn.Module, _args: Any, hidden: Tensor) -> None:
            raise _Reached(hidden)

        handle = self.skipped[-1].register_forward_hook(stop)
        try:
            self.base(**inputs)
        except _Reached as reached:
            kept = {name: inputs[name] for name in ("attention_mask",) if name in inputs}
            return {HIDDEN: reached.hidden, **kept}
        finally:
            handle.remove()
        raise RuntimeError(f"{type(self.base).__name__} did not run {type(self.skipped[-1]).__name__}")

    def resume(self, inputs: Inputs) -> Any:
        """The base's outputs from what `run` gave."""
        hidden = inputs[HIDDEN]
        rest = {name: value for name, value in inputs.items() if name != HIDDEN}
        with _replaced(self.skipped, hidden):
            return self.base(**{self.argument: hidden}, **rest)


@contextmanager
def _replaced(modules: Sequence[nn.Module], hidden: Tensor) -> Iterator[None]:
    """Makes each of `modules` answer `hidden`; the model's own forward then needs no copy of ours."""
    for module in modules:
        vars(module)["forward"] = lambda *_args, **_kwargs: hidden
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]


def find(base: nn.Module, adapted: Sequence[str]) -> Prefix | None:
    """The prefix of `base` before the first of the layers at `adapted`; None where that saves no whole block."""
    inner: nn.Module = base.vision_model if isinstance(base, Tower) else base
    inside = "vision_model." if isinstance(base, Tower) else ""
    if (layout := LAYOUTS.get(getattr(inner.config, "model_type", ""))) is None:
        return None
    stems, blocks_path = layout
    blocks = list(inner.get_submodule(blocks_path).children())
    first = min(_position(path.removeprefix(inside), stems, blocks_path, len(blocks)) for path in adapted)
    if first < 1:
        return None
    skipped = (*(inner.get_submodule(stem) for stem in stems), *blocks[:first])
    return Prefix(base, skipped, "inputs_embeds" if layout is LAYOUTS["bert"] else "pixel_values")


def _position(path: str, stems: Sequence[str], blocks_path: str, count: int) -> int:
    """The block that holds `path`; -1 before the blocks, their count behind them."""
    if path.startswith(f"{blocks_path}."):
        return int(path.removeprefix(f"{blocks_path}.").split(".")[0])
    return -1 if path.split(".", maxsplit=1)[0] in stems else count
