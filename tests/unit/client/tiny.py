"""Random models of every family, a few thousand parameters each, saved as transformers saves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from deerfield.randomness import Randomness, SeededRandomness
from deerfield.runspec import RunSpec
from deerfield.types import Spend, Unit
from services.client.sources.data import Examples
from services.client.training.backbones import Inputs
from services.client.training.cached import LIMIT_BYTES, Cached
from services.client.training.mechanism import Mechanism
from services.client.training.models import Classifier, load
from services.client.training.trainer import TorchTrainer

SIDE = 16
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "fever", "cough", "rash", "pain", "normal", "a", "photo", "of")
LABELS = ("normal", "fever", "rash")

_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 8,
}
_TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
}


def _clip_text() -> tf.CLIPTextConfig:
    return tf.CLIPTextConfig(**_TEXT, projection_dim=10, bos_token_id=2, eos_token_id=3, pad_token_id=0)


def _resnet() -> tf.ResNetConfig:
    return tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")


def _clip() -> tf.CLIPConfig:
    vision = tf.CLIPVisionConfig(**_VISION, projection_dim=10)
    return tf.CLIPConfig(text_config=_clip_text().to_dict(), vision_config=vision.to_dict(), projection_dim=10)


def _dual() -> tf.VisionTextDualEncoderConfig:
    return tf.VisionTextDualEncoderConfig.from_vision_text_configs(
        tf.ViTConfig(**_VISION), tf.BertConfig(**_TEXT), projection_dim=10
    )


BASES: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: tf.BertModel(tf.BertConfig(**_TEXT)),
    "albert": lambda: tf.AlbertModel(tf.AlbertConfig(**_TEXT, embedding_size=8)),
    "vit": lambda: tf.ViTModel(tf.ViTConfig(**_VISION)),
    "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**{**_VISION, "mlp_ratio": 2})),
    "clip_vision": lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**_VISION)),
    "clip": lambda: tf.CLIPModel(_clip()),
    "dual": lambda: tf.VisionTextDualEncoderModel(_dual()),
    "mobilenet": lambda: tf.MobileNetV2Model(
        tf.MobileNetV2Config(image_size=32, depth_multiplier=0.1, min_depth=4, depth_divisible_by=4)
    ),
    "resnet": lambda: tf.ResNetModel(_resnet()),
    "swin": lambda: tf.SwinModel(
        tf.SwinConfig(image_size=SIDE, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    ),
}
TARGETS = {
    "bert": ("attention.self.query", "value"),
    "albert": ("query",),
    "vit": ("q_proj", "v_proj"),
    "dinov2": ("q_proj", "v_proj"),
    "clip_vision": ("q_proj", "v_proj"),
    "clip": ("q_proj", "v_proj"),
    "dual": ("q_proj", "v_proj"),
    "mobilenet": ("layer.1[3-5]*expand_1x1.convolution", "conv_1x1.convolution"),
    "resnet": ("shortcut.convolution",),
    "swin": ("q_proj",),
}
TEXT = ("bert", "albert")


def save(family: str, folder: Path) -> Path:
    """Writes a random model of `family`, and a tokenizer where it reads text."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = BASES[family]()
        with torch.no_grad():
            for parameter in model.parameters():  # transformers' initial weights are too small to tell layers apart
                if parameter.dim() > 1:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)  # type: ignore[operator]
    if family in (*TEXT, "clip", "dual"):
        _save_tokenizer(folder)
    return folder


def plain(family: str, folder: Path) -> nn.Module:
    """The model as transformers loads it, where it has the paths of ours."""
    kind = tf.CLIPVisionModelWithProjection if family == "clip" else tf.AutoModel
    return kind.from_pretrained(folder).eval()


def _save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def spec(family: str, **changes: Any) -> RunSpec:
    """A run on `family`; `changes` to its model, or to privacy and training by those names."""
    model: dict[str, Any] = {
        "base": family,
        "input": "text" if family in TEXT else "image",
        "lora": {"rank": 2, "scale": 0.5, "targets": TARGETS[family]},
    }
    privacy = changes.pop("privacy", {"epsilon": 8.0})
    training = {"lr_adapter": 0.8, "lr_head": 0.8, **changes.pop("training", {})}
    return RunSpec.model_validate(
        {
            "name": "tiny",
            "population": "p",
            "labels": LABELS,
            "model": model | changes,
            "privacy": privacy,
            "training": training,
        }
    )


def examples(family: str, count: int = 12, seed: int = 0, each: int = 1) -> Examples:
    """Random texts of different lengths, or random grey and colour images; a patient has `each` of them, in turn."""
    rng = np.random.default_rng(seed)
    if family in TEXT:
        inputs: list[Any] = [" ".join(rng.choice(WORDS[4:], rng.integers(1, 9))) for _ in range(count)]
    else:
        shapes = [(20, 20) if i % 2 else (20, 20, 3) for i in range(count)]
        inputs = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    return Examples(inputs, rng.integers(0, len(LABELS), count), (np.arange(count) % -(-count // each)).astype(str))


def randomise(classifier: Classifier, seed: int = 1, slot: str = "shared") -> None:
    """Non-zero factors and head, so that every entry has a gradient."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in classifier.schema().items()}
    classifier.load(slot, drawn)


def build(family: str, folder: Path, **changes: Any) -> Classifier:
    """A randomised classifier on the model that `save` wrote."""
    classifier = load(folder, spec(family, **changes))
    randomise(classifier)
    return classifier


def batch(
    classifier: Classifier, family: str, count: int = 5, dtype: torch.dtype = torch.float32
) -> tuple[Inputs, Tensor]:
    """Preprocessed inputs and labels, nothing cached."""
    data = examples(family, count)
    inputs = classifier.prepare(data.inputs)
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    return cast, torch.as_tensor(data.labels)


def mechanism(
    *,
    noise: float = 0.0,
    clip: float = 1.0,
    q: float = 0.5,
    steps: int = 2,
    units: int = 12,
    unit: Unit = "record",
    sampling: Randomness | None = None,
    draws: Randomness | None = None,
) -> Mechanism:
    """A mechanism with seeded generators where none are given."""
    spend = Spend(unit=unit, noise_multiplier=noise, sample_rate=q, steps=steps, clip=clip)
    return Mechanism(
        spend=spend,
        units_low=units,
        sampling=sampling or SeededRandomness("sampling"),
        noise=draws or SeededRandomness("noise"),
    )


def trainer(classifier: Classifier, family: str, run: RunSpec, draws: Mechanism, **more: Any) -> TorchTrainer:
    """A trainer on the examples of `family`, train and validation alike."""
    data = Cached(
        classifier, examples(family, each=more.pop("each", 1)), limit_bytes=more.pop("limit_bytes", LIMIT_BYTES)
    )
    return TorchTrainer(classifier=classifier, train=data, validation=data, spec=run, mechanism=draws, **more)
