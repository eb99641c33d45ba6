"""The fused clipping engine: clipped sums of per-example LoRA gradients within one backward pass.

For a layer y = x (W + s B A)^T + b with inputs x (n, t, d_in) and output gradients g (n, t, d_out), the gradients of
example i are products of thin matrices that the backward pass has at hand:

    dB_i = s g_i^T (x_i A^T)      (d_out, r)          dA_i = (s g_i B)^T x_i      (r, d_in)

and for the linear head, with features f (n, width) and logit gradients e (n, labels), dW_i = e_i f_i^T, db_i = e_i.
They are kept until the backward pass ends, measured jointly, scaled, and summed: no second backward pass (ghost
clipping, arXiv 2110.05679), no t x t Gram matrix, no hooks on the adapter's own layers (Opacus, arXiv 2109.12298). The
forward pass uses the merged weight W + s B A, so that the adapter costs it next to nothing.
Units of several examples cost one addition more: the loss weighs an example by one over its unit's examples, and what
a layer finds is added up by unit before it is kept, over as many microbatches as the units take.
Unclipped gradients live in this object alone, and are gone when `clipped_sum` returns: none reaches `.grad`.
"""

from collections.abc import Iterable
from math import isinf
from typing import Any

import torch
from torch import Tensor, nn

from deerfield.errors import EngineFault
from deerfield.tensors import Factors
from services.client.training.lowrank import Columns, Low, Rows, wide
from services.client.training.mechanism import Batch, Owners, clip_factors
from services.client.training.models import Classifier


class Fused:
    """`mechanism.Engine` for LoRA on linear layers and 1x1 convolutions, and a linear head.

    With an infinite clip no unit is told from another: the same products run over the whole batch at once.
    """

    def __init__(self, classifier: Classifier, slot: str, factors: Factors, clip: float) -> None:
        self._classifier, self._slot, self._clip = classifier, slot, clip
        self._shapes = {name: p.shape for name, p in classifier.trained(slot, factors).items()}
        self._factors = factors
        self._anchor = torch.zeros((), requires_grad=True)  # makes autograd visit layers whose inputs need no gradient
        self._layers: list[_Layer] = []
        self._taken: dict[str, Tensor] = {}
        self._owners: Owners | None = None  # of the batch that is under way
        self.count = 0  # its examples

    def __enter__(self) -> "Fused":
        entries = self._classifier.activate(self._slot, self._factors)
        if self._factors:
            for path, layer in self._classifier.layers().items():
                self._layers.append(_Layer(self, path, layer, self._slot, self._factors))
                vars(layer)["forward"] = self._layers[-1].forward
        head = self._classifier.heads[self._slot]
        self._head = head if "head.weight" in entries else None
        if self._head is not None:
            vars(head)["forward"] = self._forward_head
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self._layers:
            del vars(layer.peft)["forward"]
        if self._head is not None:
            del vars(self._head)["forward"]
        self._layers.clear()
        self._taken.clear()

    @property
    def summed(self) -> bool:
        """Nothing is clipped, so units need not be told apart."""
        return isinf(self._clip)

    def clipped_sum(self, batches: Iterable[Batch]) -> tuple[list[Tensor], Tensor]:
        """As `mechanism.Engine` says."""
        for layer in self._layers:
            layer.refresh()
        self._taken.clear()
        losses = []
        for batch in batches:
            self.count, self._owners = len(batch.labels), batch.owners
            loss = batch.loss(self._classifier(batch.inputs))
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        missing = [name for name in self._shapes if name not in self._taken]
        if missing:
            raise EngineFault(f"{missing[0]}: the model's forward pass does not use this layer")
        with torch.no_grad():
            sums = self._sums()
        self._taken.clear()
        return sums, torch.stack(losses).sum()

    def take(self, name: str, gradients: Tensor) -> None:
        """Keeps the gradients (n, ...) of one entry; what comes twice, by layer or batch, adds up before its norm."""
        if self._owners is not None and not self.summed:
            gradients = self._owners.summed(gradients)
        if name in self._taken:
            self._taken[name].add_(gradients)
        else:
            self._taken[name] = gradients

    def _sums(self) -> list[Tensor]:
        shapes = self._shapes.values()
        if self.summed:
            return [self._taken[name].view(shape) for name, shape in self._shapes.items()]
        each = [self._taken[name].flatten(1) for name in self._shapes]  # (units, entries)
        norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in each]).norm(dim=0)  # (units,)
        factors = clip_factors(norms, self._clip)
        broken = ~norms.isfinite()
        if broken.any():
            for gradients in each:
                gradients[broken] = 0  # 0 * inf is not 0
        return [torch.mv(g.t(), factors).view(shape) for g, shape in zip(each, shapes, strict=True)]

    def _forward_head(self, features: Tensor) -> Tensor:
        head = self._head
        if not isinstance(head, nn.Linear):
            raise TypeError(f"a trained head must be linear, not {type(head).__name__}")
        logits: Tensor = _FusedHead.apply(features, self._anchor, head, self)  # type: ignore[no-untyped-call]
        return logits


class _Layer:
    """One adapted layer while the engine holds it, and which of its factors are trained."""

    def __init__(self, engine: Fused, path: str, layer: Any, slot: str, factors: Factors) -> None:
        self.engine, self.peft = engine, layer
        self.A, self.B = layer.lora_A[slot].weight, layer.lora_B[slot].weight
        self.name_A, self.name_B = (f"base_model.model.{path}.lora_{which}.weight" for which in "AB")
        self.trains_A, self.trains_B = "A" in factors, "B" in factors
        self.scale = layer.scaling[slot]
        base = layer.get_base_layer()
        self.weight, self.bias = base.weight.detach(), base.bias
        self.shape: Low = Columns(base.stride) if isinstance(base, nn.Conv2d) else Rows()

    @torch.no_grad()
    def refresh(self) -> None:
        """Takes up the factors as they are now."""
        self.scaled_A, self.scaled_B = self.scale * self.A.flatten(1), self.scale * self.B.flatten(1)

    def merged(self, dtype: torch.dtype) -> Tensor:
        """W + s B A, (d_out, d_in), added in the parameters' own precision.

        Made anew for the forward and the backward pass: r / (n t) of the layer's own work, where keeping it would
        double the adapted weights.
        """
        return torch.addmm(self.weight.flatten(1), self.B.detach().flatten(1), self.scaled_A).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Stands in for the PEFT layer's forward: the same function of x, and of nothing else."""
        if x.shape[0] != self.engine.count:
            raise EngineFault(
                f"{self.name_B}: the layer sees {x.shape[0]} rows for {self.engine.count} examples; its base mixes "
                f"examples into the first dimension, so per-example gradients do not exist"
            )
        kind = x.device.type
        x = x.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.weight.dtype)
        with torch.autocast(kind, enabled=False):
            y: Tensor = _FusedLora.apply(x, self.engine._anchor, self)  # type: ignore[no-untyped-call]
        return y


class _FusedLora(torch.autograd.Function):
    """y = x (W + s B A)^T + b; the backward pass gives dx to autograd and the factors' gradients to the engine."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor, layer: _Layer) -> Tensor:
        down = layer.shape.times(wide(x), layer.scaled_A) if layer.trains_B else None
        ctx.layer, ctx.x_shape = layer, x.shape
        ctx.save_for_backward(down, x if layer.trains_A else None)
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return layer.shape.forward(x, layer.merged(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        layer: _Layer = ctx.layer
        down, x = ctx.saved_tensors
        shape, summed, g = layer.shape, layer.engine.summed, wide(grads[0])
        if layer.trains_B:
            layer.engine.take(layer.name_B, shape.outer(shape.outputs(g), down, summed))
        if layer.trains_A:
            back = shape.times_outputs(g, layer.scaled_B)
            layer.engine.take(layer.name_A, shape.outer(back, shape.inputs(wide(x)), summed))
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return shape.backward(grads[0], layer.merged(grads[0].dtype), ctx.x_shape), None, None


class _FusedHead(torch.autograd.Function):
    """logits = f W^T + b, with both gradients for the engine."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, _anchor: Tensor, head: nn.Linear, engine: Fused) -> Tensor:
        ctx.head, ctx.engine = head, engine
        ctx.save_for_backward(features)
        return nn.functional.linear(features, head.weight, head.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        (features,), (errors,) = ctx.saved_tensors, grads
        engine: Fused = ctx.engine
        if engine.summed:
            engine.take("head.weight", errors.t() @ features)
            engine.take("head.bias", errors.sum(0))
        else:
            engine.take("head.weight", errors.unsqueeze(2) * features.unsqueeze(1))
            engine.take("head.bias", errors.clone())
        return errors @ ctx.head.weight if ctx.needs_input_grad[0] else None, None, None, None
