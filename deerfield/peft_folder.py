"""An adapter as a folder: what PEFT loads, the head beside it, and `deerfield.json`, which says what to do with both.

`adapter_config.json` and `adapter_model.safetensors` are PEFT's own; `head.safetensors` holds the head;
`deerfield.json` holds the public run and the digest of all tensors together.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from deerfield.errors import InvalidInput
from deerfield.runspec import RunSpec
from deerfield.tensors import MARK, Array, Tensors, digest, factor, layers

FORMAT = 1
PREFIX = "base_model.model."  # PEFT's, before the path of a layer in the base model
CONFIG, FACTORS, HEAD, ABOUT = "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "deerfield.json"


def write(folder: Path, spec: RunSpec, adapter: Tensors) -> None:
    """Writes `adapter`, as `spec` trained it, to `folder`, which it makes."""
    folder.mkdir(parents=True, exist_ok=True)
    factors = {name: _to_peft(name, array, spec) for name, array in adapter.items() if factor(name) != "head"}
    head = {name: np.ascontiguousarray(array) for name, array in adapter.items() if factor(name) == "head"}
    _write_json(folder / CONFIG, _config(spec, adapter))
    save_file(factors, folder / FACTORS, metadata={"format": "pt"})
    save_file(head, folder / HEAD, metadata={"format": "pt"})
    about = {
        "format": FORMAT,
        "adapter_sha256": digest(adapter),
        "spec_sha256": spec.sha256,
        "spec": json.loads(spec.canonical()),
    }
    _write_json(folder / ABOUT, about)


def read(folder: Path) -> tuple[RunSpec, Tensors]:
    """The run and the adapter in `folder`.

    Raises:
        InvalidInput: it is no adapter folder, or what it holds is not what it was written with.
    """
    try:
        about = json.loads((folder / ABOUT).read_text())
        spec = RunSpec.model_validate(about["spec"])
        factors, head = load_file(folder / FACTORS), load_file(folder / HEAD)
    except (OSError, ValueError, KeyError, ValidationError, SafetensorError) as error:
        raise InvalidInput(f"{folder} is no adapter folder ({type(error).__name__}: {error})") from None
    adapter = {name: array.reshape(array.shape[:2]) for name, array in factors.items()} | head
    if (found := digest(adapter)) != about["adapter_sha256"]:
        raise InvalidInput(f"{folder} holds an adapter with sha256 {found}, not {about['adapter_sha256']} as written")
    return spec, adapter


def _to_peft(name: str, array: Array, spec: RunSpec) -> Array:
    """A factor as PEFT keeps it: those of 1x1 convolutions have four dimensions."""
    four = any(name.startswith(f"{layer}{mark}") for layer in spec.convolutions for mark in MARK.values())
    shape = (*array.shape, 1, 1) if four else array.shape
    return np.ascontiguousarray(array).reshape(shape)


def _config(spec: RunSpec, adapter: Tensors) -> Mapping[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": spec.model.base,
        "inference_mode": True,
        "r": spec.model.lora.rank,
        "lora_alpha": spec.model.lora.scale * spec.model.lora.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": [layer.removeprefix(PREFIX) for layer in layers(adapter)],
    }


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
