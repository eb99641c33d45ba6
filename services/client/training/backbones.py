"""Base models: where they are found, what names them, and how their outputs become one vector for each example.

Everything is loaded through transformers. A base is a module whose submodule paths are those of its checkpoint, so
that an adapter trained here loads with `PeftModel.from_pretrained` on the same checkpoint.
"""

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import transformers
from torch import Tensor, nn

from deerfield.errors import InvalidInput
from services.client.sources import hub

Inputs: TypeAlias = Mapping[str, Tensor]  # what a base's forward takes, by argument; every value is (n, ...)
Pooling: TypeAlias = Literal["auto", "mean", "cls"]

# Everything that decides what a base computes from an input; a re-saved readme does not change a base.
DECISIVE = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.safetensors",
    "pytorch_model*.bin",
)
DOWNLOADED = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model")
LEARNT_POOLERS = ("bert", "roberta", "vit", "deit")  # checkpoints may lack it: each site would draw its own at random
TWO_TOWERS = ("clip", "vision-text-dual-encoder")
REMEDY = "give a local folder in transformers format in `embedded: base:`"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A frozen base model; `text` is there where it can turn sentences into features of the same space."""

    folder: Path
    module: nn.Module
    kind: Literal["text", "image"]
    pool: Callable[[Any, Inputs], Tensor]  # (outputs of the module, its inputs) -> (n, width)
    width: int
    text: Callable[[Inputs], Tensor] | None = None  # a tower of its own; None: the module itself if it reads text
    logit_scale: float | None = None  # factor on cosines that the model was trained with


def locate(base: str) -> Path:
    """The folder of `base`: a folder, `package:NAME` (an installed package that carries one), or a hub id.

    Raises:
        InvalidInput: there is no such folder or package, or the hub does not answer.
    """
    if base.startswith("package:"):
        return _in_package(base.removeprefix("package:"))
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InvalidInput(f"base {base!r} is a folder without config.json, so no model; {REMEDY}")
        return folder
    if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1:
        raise InvalidInput(f"base {base!r}: there is no such folder; {REMEDY}")
    return _from_hub(base)


def _in_package(name: str) -> Path:
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput(f"base 'package:{name}': no such package is installed; pip install it, or {REMEDY}")
    configs = sorted(Path(spec.submodule_search_locations[0]).rglob("config.json"), key=lambda p: (len(p.parts), p))
    for config in configs:
        if "model_type" in json.loads(config.read_text("utf-8")):
            return config.parent
    raise InvalidInput(f"base 'package:{name}': the package holds no config.json of a model; {REMEDY}")


def _from_hub(base: str) -> Path:
    import httpx2
    from huggingface_hub import errors, snapshot_download

    fetch = partial(snapshot_download, base, allow_patterns=list(DOWNLOADED), etag_timeout=hub.TIMEOUT_S)
    try:
        try:
            folder = Path(fetch(local_files_only=True))
        except errors.LocalEntryNotFoundError:
            if not hub.reachable():
                raise InvalidInput(
                    f"base {base!r}: no folder of that name, and the hub is unreachable; {REMEDY}"
                ) from None
            folder = Path(fetch())
    except (errors.HfHubHTTPError, errors.HFValidationError, httpx2.HTTPError, OSError) as error:
        raise InvalidInput(
            f"base {base!r} is not on the hub or cannot be read ({type(error).__name__}); {REMEDY}"
        ) from None
    if not any(folder.glob("*.safetensors")):
        raise InvalidInput(f"base {base!r} has no safetensors weights on the hub; convert it, then {REMEDY}")
    return folder


def digest(folder: Path) -> str:
    """sha256 (hex) over names and contents of the files that decide what the base computes, by name."""
    sha = sha256()
    for path in sorted({path for pattern in DECISIVE for path in folder.glob(pattern)}, key=lambda p: p.name):
        with path.open("rb") as file:
            sha.update(f"{path.name}\0{file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()


def load(folder: Path, kind: Literal["text", "image"], pooling: Pooling) -> Backbone:
    """Loads the base in `folder` in fp32, frozen and in eval mode, without the parts that features do not need.

    Raises:
        InvalidInput: it is not a model, its weights do not fit it, or it does not read `kind`.
    """
    module = _model(folder)
    if module.config.model_type in TWO_TOWERS:
        backbone = _two_towers(folder, module, kind, pooling)
    else:
        backbone = _one_tower(folder, module, kind, pooling)
    backbone.module.requires_grad_(False).eval()
    return backbone


def _model(folder: Path) -> Any:
    transformers.logging.set_verbosity_error()  # a site's log says what was loaded in one line of its own
    transformers.logging.disable_progress_bar()
    try:
        model, report = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except RuntimeError:  # its message is a table of all mismatched shapes
        raise InvalidInput(f"base {str(folder)!r}: its weights do not fit its config.json; {REMEDY}") from None
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInput(f"base {str(folder)!r} cannot be loaded as a model ({reason}); {REMEDY}") from None
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if lacking:
        raise InvalidInput(
            f"base {str(folder)!r} lacks {len(lacking)} of its weights, such as {lacking[0]}: the folder is incomplete "
            f"or holds another model; {REMEDY}"
        )
    return model


def _one_tower(folder: Path, module: Any, kind: Literal["text", "image"], pooling: Pooling) -> Backbone:
    reads = "image" if module.main_input_name == "pixel_values" else "text"
    if reads != kind:
        raise InvalidInput(f"base {str(folder)!r} reads {reads}, the run's model.input is {kind!r}: change one of them")
    if module.config.model_type in LEARNT_POOLERS:
        module.pooler = None
    pool = _pool_text if kind == "text" else _pool_image
    sizes = getattr(module.config, "hidden_sizes", None)
    width = (
        module.config.hidden_size
        if hasattr(module.config, "hidden_size")
        else sizes[-1]
        if sizes
        else _channels(module)
    )
    return Backbone(folder, module, kind, lambda outputs, inputs: pool(outputs, inputs, pooling), width)


def _channels(module: nn.Module) -> int:
    """Output channels of the last convolution: convolutional bases do not name their width."""
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)][-1]


def _pool_text(outputs: Any, inputs: Inputs, pooling: Pooling) -> Tensor:
    hidden: Tensor = outputs.last_hidden_state  # (n, tokens, width)
    if pooling == "cls":
        return hidden[:, 0]
    mask = inputs["attention_mask"].to(hidden.dtype).unsqueeze(-1)
    return (hidden * mask).sum(1) / mask.sum(1)


def _pool_image(outputs: Any, inputs: Inputs, pooling: Pooling) -> Tensor:
    hidden: Tensor = outputs.last_hidden_state  # (n, 1 + patches, width), or a map (n, width, h, w)
    if pooling == "mean":
        return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden[:, 1:].mean(1)
    pooled: Tensor | None = outputs.pooler_output
    return hidden[:, 0] if pooling == "cls" or pooled is None else pooled.flatten(1)


class Tower(nn.Module):
    """The image side of a two-tower model: `vision_model`, then `visual_projection`, named as in its checkpoint."""

    base_model_prefix = ""  # PEFT asks every module with a config for it

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config.vision_config
        self.vision_model = model.vision_model
        self.visual_projection = model.visual_projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Projected features (n, width)."""
        projected: Tensor = self.visual_projection(self.vision_model(pixel_values=pixel_values).pooler_output)
        return projected


def _two_towers(folder: Path, model: Any, kind: Literal["text", "image"], pooling: Pooling) -> Backbone:
    if kind != "image" or pooling != "auto":
        raise InvalidInput(
            f"base {str(folder)!r} is a two-tower model: its image side is adapted and pools as it was trained to; "
            f"write model: input: image and pooling: auto"
        )

    def text(inputs: Inputs) -> Tensor:
        features: Tensor = model.get_text_features(**inputs).pooler_output
        return features

    scale = float(model.logit_scale.detach().exp())
    return Backbone(folder, Tower(model), "image", lambda outputs, _: outputs, model.projection_dim, text, scale)
