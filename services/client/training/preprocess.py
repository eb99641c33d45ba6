"""Texts and images as a base model reads them. Every constant is public and comes with the base."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deerfield.errors import InvalidInput
from services.client.training.backbones import Inputs

VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
CHUNK = 256  # images in the processor at once: its intermediate copies are float64


class Tokens:
    """Turns texts into token ids of one length, at most `limit`."""

    def __init__(self, folder: Path, limit: int) -> None:
        try:
            if not any(True for pattern in VOCABULARIES for _ in folder.glob(pattern)):
                raise FileNotFoundError(folder)  # transformers 5 would make up an empty tokenizer
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise InvalidInput(
                f"base {str(folder)!r} has no usable tokenizer ({type(error).__name__}); put its tokenizer files there"
            ) from None
        self._limit = min(limit, self._tokenizer.model_max_length)

    def __call__(self, texts: Sequence[str], *, pad_to: Literal["longest", "limit"] = "longest") -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and what else the tokenizer gives, each (n, tokens)."""
        padding = "longest" if pad_to == "longest" else "max_length"
        found = self._tokenizer(
            list(texts), truncation=True, max_length=self._limit, padding=padding, return_tensors="pt"
        )
        return dict(found)


class Images:
    """Turns uint8 arrays (H, W) or (H, W, 3), or PIL images, into pixel values (n, 3, side, side)."""

    def __init__(self, folder: Path, side: int) -> None:
        self._side = side
        self._processor: Any = None
        if (folder / "preprocessor_config.json").is_file():
            try:
                self._processor = transformers.AutoImageProcessor.from_pretrained(
                    folder, backend="pil", local_files_only=True
                )
            except (OSError, ValueError, ImportError, KeyError) as error:
                raise InvalidInput(
                    f"{folder / 'preprocessor_config.json'} names no image processor that transformers knows "
                    f"({type(error).__name__}); mend it, or remove it to scale images to [-1, 1]"
                ) from None

    def __call__(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """`pixel_values` (n, 3, side, side), float32."""
        chunks = [self._chunk(images, start) for start in range(0, len(images), CHUNK)]
        return {"pixel_values": torch.cat(chunks) if chunks else torch.zeros(0, 3, self._side, self._side)}

    def _chunk(self, images: Sequence[Any], start: int) -> Tensor:
        pictures = [_rgb(images[i]) for i in range(start, min(start + CHUNK, len(images)))]
        if self._processor is None:
            return torch.from_numpy(np.stack([self._scaled(picture) for picture in pictures]))
        values: Tensor = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        return values.float()

    def _scaled(self, picture: Image.Image) -> NDArray[np.float32]:
        """Resized to the base's size and scaled to [-1, 1], the convention of bases that ship no processor."""
        side = (self._side, self._side)
        resized = picture if picture.size == side else picture.resize(side, Image.Resampling.BILINEAR)
        return (np.asarray(resized, dtype=np.float32) / 127.5 - 1).transpose(2, 0, 1)


def _rgb(image: Any) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image, dtype=np.uint8))
    return picture.convert("RGB")


def rows(inputs: Inputs, chosen: Tensor) -> dict[str, Tensor]:
    """The examples `chosen` (indices) of `inputs`."""
    return {name: values[chosen] for name, values in inputs.items()}
