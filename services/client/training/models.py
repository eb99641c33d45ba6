"""A site's model: one frozen base, PEFT adapters and heads by slot name.

Entries are named as PEFT's state dict names them, `base_model.model.<path>.lora_A.weight`, and `head.weight`,
`head.bias`. A factor of a 1x1 convolution is exchanged as the matrix it is: A (r, d_in), B (d_out, r).
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor, nn

from deerfield.errors import InvalidInput, UnknownTensor, WrongShape
from deerfield.runspec import RunSpec
from deerfield.tensors import Factors, Shapes, Tensors, digest, factor
from services.client.training import backbones, prefix
from services.client.training.backbones import Backbone, Inputs
from services.client.training.device import Device
from services.client.training.preprocess import Images, Tokens
from services.client.training.targets import refuse_batch_mixing, select

FEATURES = "features"  # the entry of `Inputs` that stands for the whole base
SHARED = "shared"


def load(
    folder: Path, spec: RunSpec, *, device: Device | None = None, slots: Sequence[str] = (SHARED,)
) -> "Classifier":
    """The model that `spec` describes, on the base in `folder`, with adapter and head at zero.

    Raises:
        InvalidInput: the base cannot be loaded, or does not fit `spec.model`.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw initial values, which are overwritten: leave no trace
        backbone = backbones.load(folder, spec.model.input, spec.model.pooling)
        return Classifier(backbone, spec, slots=slots, device=device or Device())


class PromptHead(nn.Module):
    """Cosine to the frozen text features of the labels' prompts, times a scale; nothing in it is trained."""

    def __init__(self, text: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("text", nn.functional.normalize(text, dim=-1))  # (labels, width)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """(n, width) of length 1 -> logits (n, labels)."""
        return self.scale * nn.functional.linear(features, self.get_buffer("text"))


class Classifier(nn.Module):
    """Scores of the labels from inputs, through the slot that was activated last.

    The base stays frozen and in eval mode whatever `train()` says: dropout would be noise that nobody accounts for, and
    batch statistics would mix units.
    """

    def __init__(self, backbone: Backbone, spec: RunSpec, *, slots: Sequence[str], device: Device) -> None:
        super().__init__()
        refuse_batch_mixing(backbone.module)
        lora, head = spec.model.lora, spec.model.head
        self.kind, self.device, self.labels, self.width = backbone.kind, device, len(spec.labels), backbone.width
        self._pool, self._length = backbone.pool, head.length if head.kind == "linear" else 1.0
        reads_text = backbone.kind == "text" or head.kind == "prompt"
        tokens = Tokens(backbone.folder, spec.model.max_tokens) if reads_text else None
        self.prepare = tokens if backbone.kind == "text" and tokens else Images(backbone.folder, side(backbone.module))
        text = None
        if head.kind == "prompt" and tokens:
            text = _text_features(backbone, tokens, [head.prompts.format(label=label) for label in spec.labels])
        self.paths = select(backbone.module, lora.targets, lora.rank)
        self._config = peft.LoraConfig(
            r=lora.rank, lora_alpha=lora.scale * lora.rank, target_modules=self.paths, lora_dropout=0.0, bias="none"
        )
        with warnings.catch_warnings():  # peft 0.21 reads a property that transformers 5.23 has renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            self.encoder: Any = peft.get_peft_model(backbone.module, self._config, adapter_name=slots[0])
        show_geometry(self.layers().values())
        self.heads = nn.ModuleDict()
        self.prefix = prefix.find(self.base, self.paths)
        for slot in slots:
            self._add(slot, PromptHead(text, backbone.logit_scale or head.temperature) if text is not None else None)
        self.to(device.kind)
        self.train()
        self.activate(slots[0], "")

    def _add(self, slot: str, prompt: PromptHead | None) -> None:
        """A slot at zero: the adapter changes nothing, every label has the same score."""
        if slot not in self.encoder.peft_config:
            self.encoder.add_adapter(slot, self._config)
        self.heads[slot] = prompt or nn.Linear(self.width, self.labels)
        for parameter in self.entries(slot).values():
            nn.init.zeros_(parameter)

    @property
    def base(self) -> Any:
        """The base model, with PEFT's layers in it."""
        return self.encoder.get_base_model()

    def train(self, mode: bool = True) -> "Classifier":
        """Switches the heads alone."""
        self.training = mode
        self.heads.train(mode)
        self.encoder.eval()
        return self

    def layers(self) -> dict[str, Any]:
        """PEFT's LoRA layers by path, in the order of the model."""
        return {path: self.base.get_submodule(path) for path in self.paths}

    def entries(self, slot: str) -> dict[str, nn.Parameter]:
        """The parameters of `slot` by entry name; convolutions' factors in their own four dimensions."""
        found: dict[str, nn.Parameter] = {}
        for path, layer in self.layers().items():
            found[f"base_model.model.{path}.lora_A.weight"] = layer.lora_A[slot].weight
            found[f"base_model.model.{path}.lora_B.weight"] = layer.lora_B[slot].weight
        head = {f"head.{name}": parameter for name, parameter in self.heads[slot].named_parameters()}
        return found | head

    def trained(self, slot: str, factors: Factors) -> dict[str, nn.Parameter]:
        """The entries that an exchange of `factors` trains.

        Raises:
            InvalidInput: there is none.
        """
        found = {name: p for name, p in self.entries(slot).items() if factor(name) in (*factors, "head")}
        if not found:
            raise InvalidInput(
                "nothing to train: strategy 'head' trains a linear head, and this run's head is 'prompt'"
            )
        return found

    def schema(self) -> Shapes:
        """The shapes of the exchanged entries."""
        return {name: (p.shape[0], *p.shape[1:2]) for name, p in self.entries(SHARED).items()}

    def convolutions(self) -> list[str]:
        """The adapted 1x1 convolutions, named as in the schema: their checkpoints have four dimensions."""
        return [f"base_model.model.{path}" for path, layer in self.layers().items() if layer.weight.dim() == 4]

    def read(self, slot: str, factors: Factors = "AB") -> Tensors:
        """Copies of the entries that an exchange of `factors` trains, as float32."""
        chosen = {name: p for name, p in self.entries(slot).items() if factor(name) in (*factors, "head")}
        return {name: _matrix(p.detach()).float().cpu().numpy().copy() for name, p in chosen.items()}

    def load(self, slot: str, tensors: Tensors) -> None:
        """Overwrites the entries that `tensors` names.

        Raises:
            UnknownTensor, WrongShape: the tensors are not of this model; nothing was overwritten.
        """
        entries = self.entries(slot)
        for name, array in tensors.items():
            if name not in entries:
                raise UnknownTensor(f"{name} is no entry of this model's adapter or head")
            if tuple(array.shape) != tuple(_matrix(entries[name]).shape):
                raise WrongShape(
                    f"{name} has shape {array.shape}, this model's is {tuple(_matrix(entries[name]).shape)}"
                )
        with torch.no_grad():
            for name, array in tensors.items():
                entries[name].copy_(torch.from_numpy(np.array(array)).view_as(entries[name]))

    def fingerprint(self, slot: str) -> str:
        """Digest of the adapter of `slot`, without its head: equal adapters give equal features."""
        return digest({name: array for name, array in self.read(slot).items() if factor(name) != "head"})

    def activate(self, slot: str, factors: Factors) -> dict[str, nn.Parameter]:
        """Makes `slot` answer, with gradients for exactly the entries that an exchange of `factors` trains."""
        self.slot = slot
        self.encoder.set_adapter(slot)
        self.requires_grad_(False)
        chosen = {name: p for name, p in self.entries(slot).items() if factor(name) in (*factors, "head")}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return chosen

    def features(self, inputs: Inputs) -> Tensor:
        """Pooled features (n, width) of fixed length; `inputs` may hold what the base's first layers made of them."""
        if FEATURES in inputs:
            return inputs[FEATURES]
        with self.device.autocast():
            outputs = self.prefix.resume(inputs) if self.prefix and prefix.HIDDEN in inputs else self.base(**inputs)
            pooled = self._pool(outputs, inputs)
        wide = pooled if pooled.dtype == torch.float64 else pooled.float()
        return nn.functional.normalize(wide, dim=-1) * self._length

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (n, labels), fp32."""
        logits: Tensor = self.heads[self.slot](self.features(inputs))
        return logits


def show_geometry(layers: Iterable[Any]) -> None:
    """Gives PEFT's convolutions the attributes of those they wrap, which MobileNets read to pad their inputs."""
    for layer in layers:
        inner = layer.get_base_layer()
        if isinstance(inner, nn.Conv2d):
            layer.stride, layer.kernel_size, layer.dilation = inner.stride, inner.kernel_size, inner.dilation


def side(base: nn.Module) -> int:
    """The side in pixels of the square images that `base` reads."""
    size: Any = getattr(base.config, "image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def _matrix(tensor: Tensor) -> Tensor:
    """A 1x1 convolution's (d_out, d_in, 1, 1) as (d_out, d_in); everything else as it is."""
    return tensor.flatten(1) if tensor.dim() == 4 else tensor


@torch.no_grad()
def _text_features(backbone: Backbone, tokens: Tokens, sentences: list[str]) -> Tensor:
    """Features (labels, width) of the sentences, from the frozen text tower or the frozen text encoder itself."""
    inputs = tokens(sentences)
    if backbone.text is not None:
        return backbone.text(inputs)
    if backbone.kind == "image":
        raise InvalidInput(
            f"head: kind: prompt needs a base with a text tower, and {str(backbone.folder)!r} has none; "
            f"use a CLIP-like base or head: kind: linear"
        )
    return backbone.pool(backbone.module(**inputs), inputs)
