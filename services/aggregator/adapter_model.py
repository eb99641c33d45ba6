"""A registered adapter as an MLflow model: code that travels with it and depends on nothing of deerfield.

Input: a column `text`, or a column `image` with the bytes of image files. Output: the probability of each label. The
base model is found by the name in the model's config (a folder, or `package:NAME`), which a caller may override:
`mlflow.pyfunc.load_model(uri, model_config={"base": "/models/base"})`; where there is none of that name, by its digest
among the folders in `DEERFIELD_BASES`, and last as a hub id. Another base than the one the adapter was trained on is
refused. What turns a base's output into features is what services.client does, said once more.
"""

import hashlib
import importlib.util
import io
import json
import os
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd

DECISIVE = (  # the files of a base that its digest covers
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.safetensors",
    "pytorch_model*.bin",
)
LEARNT_POOLERS = ("bert", "roberta", "vit", "deit")  # left out: checkpoints may lack it
BASES = "DEERFIELD_BASES"  # an environment variable: a folder of base models, one in each folder under it
TWO_TOWERS = ("clip", "vision-text-dual-encoder")
BATCH = 64


class AdapterModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow is not typed
    """Base, adapter and head, as `deerfield.json` in the adapter's folder describes them."""

    def load_context(self, context: Any) -> None:
        """Loads everything; raises ValueError for another base than the adapter was trained on."""
        import peft
        import torch
        import transformers
        from safetensors.torch import load_file

        folder = Path(context.artifacts["adapter"])
        spec = json.loads((folder / "deerfield.json").read_text())["spec"]
        self.labels, self.described = spec["labels"], spec["model"]
        self.folder = _located(context.model_config["base"], self.described["digest"])
        _check_digest(self.folder, self.described["digest"])
        self.base = transformers.AutoModel.from_pretrained(self.folder, dtype=torch.float32).eval()
        if self.base.config.model_type in LEARNT_POOLERS:
            self.base.pooler = None
        if self.described["head"]["kind"] == "linear":
            head, self.length = load_file(folder / "head.safetensors"), self.described["head"]["length"]
        else:
            head, self.length = {"head.weight": self._prompts()}, self._sharpness()
        self.weight, self.bias = head["head.weight"], head.get("head.bias")
        with warnings.catch_warnings():  # peft 0.21 reads a property that transformers 5.23 has renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            peft.PeftModel.from_pretrained(self.base, folder).eval()  # puts its layers into the base
        _show_geometry(self.base)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The probability of each label for each row."""
        import torch

        rows = list(model_input[self.described["input"]])
        read = self._tokens if self.described["input"] == "text" else self._pixels
        with torch.inference_mode():
            batches = [self._logits(read(rows[start : start + BATCH])) for start in range(0, len(rows), BATCH)]
            logits = torch.cat(batches) if batches else torch.zeros(0, len(self.labels))
        return pd.DataFrame(torch.softmax(logits.double(), -1).numpy(), columns=self.labels)

    def _logits(self, inputs: Any) -> Any:
        from torch.nn.functional import linear, normalize

        return linear(normalize(self._features(inputs), dim=-1) * self.length, self.weight, self.bias)

    def _features(self, inputs: Any) -> Any:
        """One vector (n, width) for each example."""
        if self.base.config.model_type in TWO_TOWERS:
            return self.base.get_image_features(**inputs).pooler_output
        outputs, pooling = self.base(**inputs), self.described["pooling"]
        return (_pooled_text if "input_ids" in inputs else _pooled_image)(outputs, inputs, pooling)

    def _prompts(self) -> Any:
        """Features (labels, width), of length 1, of the labels' sentences."""
        import torch

        inputs = self._tokens([self.described["head"]["prompts"].format(label=label) for label in self.labels])
        with torch.inference_mode():
            two_towers = self.base.config.model_type in TWO_TOWERS
            found = self.base.get_text_features(**inputs).pooler_output if two_towers else self._features(inputs)
        return torch.nn.functional.normalize(found, dim=-1)

    def _sharpness(self) -> float:
        """The factor on cosines: the base's own, where it was trained with one."""
        own = getattr(self.base, "logit_scale", None)
        return float(self.described["head"]["temperature"] if own is None else own.detach().exp())

    @cached_property
    def _tokenizer(self) -> Any:
        import transformers

        return transformers.AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def _processor(self) -> Any:
        import transformers

        known = (self.folder / "preprocessor_config.json").is_file()
        return transformers.AutoImageProcessor.from_pretrained(self.folder, backend="pil") if known else None

    def _tokens(self, texts: list[str]) -> Any:
        limit = min(self.described["max_tokens"], self._tokenizer.model_max_length)
        return self._tokenizer(texts, truncation=True, max_length=limit, padding="longest", return_tensors="pt")

    def _pixels(self, files: list[bytes]) -> Any:
        import torch
        from PIL import Image

        pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        if self._processor is not None:
            return {"pixel_values": self._processor(images=pictures, return_tensors="pt")["pixel_values"].float()}
        size = getattr(getattr(self.base.config, "vision_config", self.base.config), "image_size", 224)
        side = size if isinstance(size, int) else size[0]
        resized = [picture.resize((side, side), Image.Resampling.BILINEAR) for picture in pictures]
        pixels = [torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8) for picture in resized]
        scaled = torch.stack([pixel.view(side, side, 3).permute(2, 0, 1) for pixel in pixels]).float() / 127.5 - 1
        return {"pixel_values": scaled}


def _pooled_text(outputs: Any, inputs: Any, pooling: str) -> Any:
    hidden = outputs.last_hidden_state  # (n, tokens, width)
    if pooling == "cls":
        return hidden[:, 0]
    mask = inputs["attention_mask"].to(hidden.dtype).unsqueeze(-1)
    return (hidden * mask).sum(1) / mask.sum(1)


def _pooled_image(outputs: Any, inputs: Any, pooling: str) -> Any:
    hidden = outputs.last_hidden_state  # (n, 1 + patches, width), or a map (n, width, h, w)
    if pooling == "mean":
        return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden[:, 1:].mean(1)
    return hidden[:, 0] if pooling == "cls" or outputs.pooler_output is None else outputs.pooler_output.flatten(1)


def _located(base: str, digest: str | None) -> Path:
    """Where the base is: by its name, else by its digest, else on the hub; raises ValueError where it is nowhere."""
    if (package := _packaged(base)) is not None:
        return package
    if Path(base).is_dir():
        return Path(base)
    if (held := _held(digest)) is not None:
        return held
    where = (
        f"{BASES}={os.environ[BASES]} has none with digest {digest}" if os.environ.get(BASES) else f"{BASES} is not set"
    )
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(base))
    except Exception as error:  # no such id, no network, no permission: of many libraries
        raise ValueError(
            f"base model {base!r} is no folder or installed package, {where}, and it is not to be had as a hub id "
            f"({type(error).__name__}); put it into a folder under {BASES}, or name its folder with model_config "
            '{"base": FOLDER}'
        ) from error


def _packaged(base: str) -> Path | None:
    """The first model in an installed package, if the name is one's."""
    if not base.startswith("package:"):
        return None
    try:
        package = importlib.util.find_spec(base.removeprefix("package:"))
    except ModuleNotFoundError:  # of a name with dots
        package = None
    places = (package.submodule_search_locations if package else None) or []
    found = (config for place in places for config in Path(place).rglob("config.json"))
    configs = sorted(found, key=lambda config: (len(config.parts), config))
    models = (config.parent for config in configs if "model_type" in json.loads(config.read_text("utf-8")))
    return next(models, None)


def _held(digest: str | None) -> Path | None:
    """The folder under `DEERFIELD_BASES` whose content has the digest, whatever it is called."""
    place = os.environ.get(BASES)
    if digest is None or not place:
        return None
    if not Path(place).is_dir():
        raise ValueError(f"{BASES} is {place}, which is no folder; name one that holds a folder for each base model")
    # those that are called by their digest first: hashing gigabytes takes its time
    folders = sorted(
        (each for each in Path(place).iterdir() if each.is_dir()), key=lambda each: (each.name != digest, each)
    )
    return next((each for each in folders if (each / "config.json").is_file() and _digest(each) == digest), None)


def _check_digest(folder: Path, expected: str | None) -> None:
    found = _digest(folder)
    if expected is not None and found != expected:
        raise ValueError(f"base {folder} has digest {found}, the adapter was trained on {expected}")


def _digest(folder: Path) -> str:
    """sha256 over the files that decide what the base computes."""
    sha = hashlib.sha256()
    for path in sorted({path for pattern in DECISIVE for path in folder.glob(pattern)}, key=lambda path: path.name):
        with path.open("rb") as file:
            sha.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()


def _show_geometry(base: Any) -> None:
    """Gives PEFT's convolutions the attributes of those they wrap, which MobileNets read to pad their inputs."""
    for layer in base.modules():
        inner: Any = getattr(layer, "base_layer", None)
        if hasattr(inner, "kernel_size"):
            layer.stride, layer.kernel_size, layer.dilation = inner.stride, inner.kernel_size, inner.dilation


mlflow.models.set_model(AdapterModel())
