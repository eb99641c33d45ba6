"""Base models of every family with their adapter and head: how entries are named, and what they compute."""

import json
import warnings

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.numpy import save_file
from torch import nn

from deerfield.errors import InvalidInput, UnknownTensor, WrongShape
from deerfield.tensors import factor, layers
from services.client.training.models import load, show_geometry
from tests.unit.client import tiny

FAMILIES = ("bert", "vit", "dinov2", "clip_vision", "clip", "dual", "mobilenet", "resnet", "albert")
WIDTHS = {"bert": 12, "clip": 10, "dual": 10, "mobilenet": 1280, "albert": 12}


def pooled(family, model, inputs):
    """What each family calls the features of an example, written down once more."""
    if family == "dual":
        return model.get_image_features(**inputs).pooler_output
    out = model(**inputs)
    if family in tiny.TEXT:
        mask = inputs["attention_mask"].bool()
        return torch.stack([hidden[keep].mean(0) for hidden, keep in zip(out.last_hidden_state, mask, strict=True)])
    if family == "clip":
        return out.image_embeds
    return out.last_hidden_state[:, 0] if family in ("vit", "dinov2") else out.pooler_output.flatten(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_adapter_leaves_the_pooled_features_of_the_base(saved, family):
    classifier = load(saved(family), tiny.spec(family))
    inputs, _ = tiny.batch(classifier, family)
    with torch.no_grad():
        features = classifier.features(inputs)
        expected = nn.functional.normalize(pooled(family, tiny.plain(family, saved(family)), inputs), dim=-1) * 4.0
        logits = classifier(inputs)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert features.shape == (5, WIDTHS.get(family, 16))
    assert torch.equal(logits, torch.zeros(5, 3))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_loads_with_peft_on_the_plain_checkpoint(saved, family, tmp_path):
    classifier = tiny.build(family, saved(family))
    inputs, _ = tiny.batch(classifier, family)
    adapter = {k: v for k, v in classifier.read("shared").items() if factor(k) != "head"}
    convolutional = family in ("mobilenet", "resnet")
    save_file(
        {k: v[..., None, None] if convolutional else v for k, v in adapter.items()},
        tmp_path / "adapter_model.safetensors",
    )
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 1.0,
        "target_modules": [path.removeprefix("base_model.model.") for path in layers(adapter)],
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():  # see models.py
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = peft.PeftModel.from_pretrained(tiny.plain(family, saved(family)), tmp_path)
    show_geometry(m for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer))
    with torch.no_grad():
        features = nn.functional.normalize(pooled(family, model.get_base_model(), inputs), dim=-1) * 4.0
        expected = features @ torch.from_numpy(classifier.read("shared")["head.weight"]).T
        expected += torch.from_numpy(classifier.read("shared")["head.bias"])
        torch.testing.assert_close(classifier(inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_schema_names_matrices_and_the_head(saved):
    assert load(saved("vit"), tiny.spec("vit", lora={"rank": 2, "targets": ["layers.1.*.q_proj"]})).schema() == {
        "base_model.model.layers.1.attention.q_proj.lora_A.weight": (2, 16),
        "base_model.model.layers.1.attention.q_proj.lora_B.weight": (16, 2),
        "head.weight": (3, 16),
        "head.bias": (3,),
    }
    schema = load(saved("mobilenet"), tiny.spec("mobilenet")).schema()
    assert {len(shape) for shape in schema.values()} == {1, 2}
    assert schema["base_model.model.conv_1x1.convolution.lora_B.weight"] == (1280, 2)


@pytest.mark.parametrize("family", ["vit", "mobilenet"])
def test_what_is_read_after_a_load_has_the_same_bits(saved, family):
    classifier = load(saved(family), tiny.spec(family))
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in classifier.schema().items()}
    classifier.load("shared", drawn)
    found = classifier.read("shared")
    assert found.keys() == drawn.keys()
    assert all(np.array_equal(found[name], drawn[name]) for name in drawn)
    assert set(classifier.read("shared", "B")) == {name for name in drawn if factor(name) != "A"}


def test_tensors_of_another_model_are_refused_before_any_is_loaded(saved):
    classifier = tiny.build("vit", saved("vit"))
    before = classifier.read("shared")
    good = {"head.bias": np.zeros(3, np.float32)}
    with pytest.raises(UnknownTensor, match=r"head\.scale"):
        classifier.load("shared", good | {"head.scale": np.zeros(3, np.float32)})
    with pytest.raises(WrongShape, match=r"\(2, 16\)"):
        classifier.load("shared", good | {"head.weight": np.zeros((2, 16), np.float32)})
    assert np.array_equal(classifier.read("shared")["head.bias"], before["head.bias"])


def test_slots_have_adapters_and_heads_of_their_own(saved):
    classifier = load(saved("vit"), tiny.spec("vit"), slots=("shared", "local"))
    inputs, _ = tiny.batch(classifier, "vit")
    tiny.randomise(classifier, slot="local")
    assert not classifier.read("shared")["head.weight"].any()
    with torch.no_grad():
        assert torch.equal(classifier(inputs), torch.zeros(5, 3))
        classifier.activate("local", "")
        assert classifier(inputs).any()


def test_the_base_stays_in_eval_mode_and_frozen(saved):
    classifier = load(saved("mobilenet"), tiny.spec("mobilenet")).train()
    assert not any(module.training for module in classifier.encoder.modules())
    trained = classifier.activate("shared", "A")
    assert {id(p) for p in classifier.parameters() if p.requires_grad} == {id(p) for p in trained.values()}


def test_loading_leaves_the_global_generator_alone(saved):
    state = torch.get_rng_state()
    load(saved("vit"), tiny.spec("vit"))
    assert torch.equal(torch.get_rng_state(), state)


def test_prompts_of_a_clip_give_its_own_logits(saved):
    head = {"kind": "prompt", "prompts": "a photo of {label}"}
    classifier = load(saved("clip"), tiny.spec("clip", head=head))
    inputs, _ = tiny.batch(classifier, "clip")
    model = transformers.CLIPModel.from_pretrained(saved("clip")).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(saved("clip"))(
        [f"a photo of {label}" for label in tiny.LABELS], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**tokens, **inputs).logits_per_image
        torch.testing.assert_close(classifier(inputs), expected, rtol=1e-4, atol=1e-4)
    assert all(factor(name) != "head" for name in classifier.schema())
    with pytest.raises(InvalidInput, match="nothing to train"):
        classifier.trained("shared", "")


def test_prompts_of_a_text_encoder_are_its_own_frozen_features(saved):
    head = {"kind": "prompt", "prompts": "{label} cough", "temperature": 7.0}
    classifier = load(saved("bert"), tiny.spec("bert", head=head))
    text = classifier.prepare([f"{label} cough" for label in tiny.LABELS])
    with torch.no_grad():
        features = classifier.features(text)
        torch.testing.assert_close(classifier(text), 7.0 * features @ features.T)
        tiny.randomise(classifier)
        moved = classifier.features(text)
        torch.testing.assert_close(classifier(text), 7.0 * moved @ features.T)


def test_prompts_need_a_text_tower(saved):
    folder = saved("vit")
    tiny._save_tokenizer(folder)
    with pytest.raises(InvalidInput, match="text tower"):
        load(folder, tiny.spec("vit", head={"kind": "prompt"}))


def test_pooling_can_be_chosen(saved):
    for family, pooling, expected in (
        ("bert", "cls", lambda out: out.last_hidden_state[:, 0]),
        ("vit", "mean", lambda out: out.last_hidden_state[:, 1:].mean(1)),
        ("mobilenet", "mean", lambda out: out.last_hidden_state.mean((2, 3))),
    ):
        classifier = load(saved(family), tiny.spec(family, pooling=pooling))
        inputs, _ = tiny.batch(classifier, family)
        with torch.no_grad():
            features = nn.functional.normalize(expected(tiny.plain(family, saved(family))(**inputs)), dim=-1) * 4
            torch.testing.assert_close(classifier.features(inputs), features, rtol=1e-4, atol=1e-5)
