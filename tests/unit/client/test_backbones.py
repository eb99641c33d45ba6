"""Base models: where they are found, what names them, and how they read texts and images."""

import json
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from deerfield.errors import InvalidInput
from services.client.training import backbones
from services.client.training.device import choose
from services.client.training.models import load
from tests.unit.client import tiny


def test_the_digest_is_of_the_content(saved, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(saved("bert"), copy)
    assert backbones.digest(copy) == backbones.digest(saved("bert"))
    (copy / "README.md").write_text("hello")
    assert backbones.digest(copy) == backbones.digest(saved("bert"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    assert backbones.digest(copy) != backbones.digest(saved("bert"))


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("./nowhere/model", "no such folder"),
        ("/nowhere/model", "no such folder"),
        ("package:no_such_package_here", "no such package"),
        ("package:numpy", "no config.json"),
        ("package:../etc", "no such package"),
        ("some-owner/some-model-that-is-not-there", "hub"),
    ],
)
def test_a_base_that_cannot_be_found_is_one_sentence_and_quick(base, says):
    began = time.monotonic()
    with pytest.raises(InvalidInput, match=says) as error:
        backbones.locate(base)
    assert base in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 10


def test_folders_that_hold_no_model_are_refused(saved, tmp_path):
    with pytest.raises(InvalidInput, match=r"config\.json"):
        backbones.locate(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-thing"}')
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        load(backbones.locate(str(tmp_path)), tiny.spec("vit"))
    shutil.copy(saved("vit") / "model.safetensors", tmp_path)
    shutil.copy(saved("bert") / "config.json", tmp_path)
    with pytest.raises(InvalidInput, match=r"config\.json"):
        load(tmp_path, tiny.spec("bert"))
    shutil.copy(saved("vit") / "config.json", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[next(name for name in tensors if name.endswith("intermediate.dense.bias"))]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"lacks 1 of its weights, such as layers\.\d\.mlp\.fc1\.bias"):
        load(tmp_path, tiny.spec("vit"))


def test_a_base_of_the_other_input_is_refused(saved):
    with pytest.raises(InvalidInput, match="reads image"):
        load(saved("vit"), tiny.spec("vit", input="text"))
    with pytest.raises(InvalidInput, match="two-tower"):
        load(saved("clip"), tiny.spec("clip", pooling="mean"))


def test_images_without_a_processor_are_scaled_to_one(saved):
    classifier = load(saved("mobilenet"), tiny.spec("mobilenet"))
    grey = np.full((10, 20), 255, np.uint8)
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[..., 1] = 51
    values = classifier.prepare([grey, colour, Image.fromarray(colour)])["pixel_values"]
    assert values.shape == (3, 3, 32, 32)
    assert values.dtype == torch.float32
    assert torch.equal(values[0], torch.ones(3, 32, 32))
    torch.testing.assert_close(values[1, :, 0, 0], torch.tensor([-1.0, -0.6, -1.0]))
    assert torch.equal(values[1], values[2])


def test_images_go_through_the_processor_of_the_base(saved, tmp_path):
    folder = tmp_path / "vit"
    shutil.copytree(saved("vit"), folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.0, 0.0, 0.5],
        "image_std": [1.0, 0.5, 1.0],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    values = load(folder, tiny.spec("vit")).prepare([np.full((20, 20), 255, np.uint8)])["pixel_values"]
    torch.testing.assert_close(values[0, :, 3, 3], torch.tensor([1.0, 2.0, 0.5]))
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')
    with pytest.raises(InvalidInput, match="preprocessor_config"):
        load(folder, tiny.spec("vit"))


def test_texts_are_cut_at_the_limit_and_padded_to_the_longest(saved):
    classifier = load(saved("bert"), tiny.spec("bert", max_tokens=6))
    found = classifier.prepare(["fever", "fever cough rash pain normal a photo"])
    assert found["input_ids"].shape == (2, 6)
    assert found["attention_mask"].sum(1).tolist() == [3, 6]
    assert classifier.prepare(["fever"])["input_ids"].tolist() == [[2, 4, 3]]


def test_a_text_base_without_a_tokenizer_is_refused(saved, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(saved("bert") / name, tmp_path)
    with pytest.raises(InvalidInput, match="tokenizer"):
        load(tmp_path, tiny.spec("bert"))


def test_a_device_that_is_not_there_is_refused():
    assert choose("cpu").precision == "fp32"
    assert str(choose("cpu", "bf16")).startswith("cpu, bf16")
    if not torch.cuda.is_available():
        assert choose().kind == "cpu"
        with pytest.raises(InvalidInput, match="no GPU"):
            choose("cuda")
