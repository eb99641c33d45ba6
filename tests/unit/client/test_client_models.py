"""Base models of every family: what is adapted, how entries are named, what is refused."""

import json
import shutil
import time
import warnings

import numpy as np
import peft
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

from deerfield.errors import InvalidInput, UnknownTensor, WrongShape
from deerfield.tensors import factor, layers
from services.client import backbones
from services.client.device import choose
from services.client.models import load, show_geometry
from services.client.targets import adaptable, matches, refuse_batch_mixing, select
from tests.unit.client import tiny

FAMILIES = ("bert", "vit", "dinov2", "clip_vision", "clip", "dual", "mobilenet", "resnet", "albert")
WIDTHS = {"bert": 12, "clip": 10, "dual": 10, "mobilenet": 1280, "albert": 12}


def plain(family, folder):
    """The model as transformers loads it, where it has the paths of ours."""
    if family == "clip":
        return transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    return transformers.AutoModel.from_pretrained(folder).eval()


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
        expected = nn.functional.normalize(pooled(family, plain(family, saved(family)), inputs), dim=-1) * 4.0
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
        model = peft.PeftModel.from_pretrained(plain(family, saved(family)), tmp_path)
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


def test_targets_and_patterns_are_ends_of_paths_at_whole_components():
    path = "encoder.layer.1.attention.self.query"
    assert matches(path, "query")
    assert matches(path, "self.query")
    assert not matches(path, "uery")
    assert not matches(path, "attention")
    assert matches(path, "encoder.layer.[01].*query")
    assert matches(path, "layer.1.*")
    assert not matches(path, "ayer.1.*")
    assert not matches(path, "layer.1.*.key")


def test_targets_are_a_union_and_one_may_match_nothing(saved):
    base = plain("vit", saved("vit"))
    assert select(base, ["q_proj", "query", "layers.0.mlp.fc1"], 2) == [
        "layers.0.attention.q_proj",
        "layers.0.mlp.fc1",
        "layers.1.attention.q_proj",
        "layers.2.attention.q_proj",
    ]


def test_targets_that_match_nothing_are_answered_with_what_there_is(saved):
    with pytest.raises(InvalidInput, match=r"querry names no .*q_proj \(3\).*fc1 \(3\)") as error:
        load(saved("vit"), tiny.spec("vit", lora={"rank": 2, "targets": ["querry"]}))
    assert len(str(error.value)) < 300


def test_a_rank_above_a_layers_width_names_layer_and_limit(saved):
    with pytest.raises(InvalidInput, match=r"rank: 17 is above 16.*layers\.0\.attention\.q_proj"):
        load(saved("vit"), tiny.spec("vit", lora={"rank": 17, "targets": ["q_proj"]}))


def test_only_linear_layers_and_plain_1x1_convolutions_are_adaptable():
    assert adaptable(nn.Linear(2, 3))
    assert adaptable(nn.Conv2d(2, 4, 1, stride=2))
    assert not adaptable(nn.Conv2d(2, 4, 3))
    assert not adaptable(nn.Conv2d(2, 4, 1, groups=2))
    assert not adaptable(nn.Conv2d(2, 4, 1, padding=1))
    assert not adaptable(nn.Embedding(2, 3))


def test_layers_that_mix_a_batch_are_refused():
    refuse_batch_mixing(nn.Sequential(nn.BatchNorm2d(3)).eval())
    with pytest.raises(InvalidInput, match="layer 0 is a BatchNorm2d that is in training mode"):
        refuse_batch_mixing(nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.raises(InvalidInput, match="no running statistics"):
        refuse_batch_mixing(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval())


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


def test_pooling_can_be_chosen(saved):
    for family, pooling, expected in (
        ("bert", "cls", lambda out: out.last_hidden_state[:, 0]),
        ("vit", "mean", lambda out: out.last_hidden_state[:, 1:].mean(1)),
        ("mobilenet", "mean", lambda out: out.last_hidden_state.mean((2, 3))),
    ):
        classifier = load(saved(family), tiny.spec(family, pooling=pooling))
        inputs, _ = tiny.batch(classifier, family)
        with torch.no_grad():
            features = nn.functional.normalize(expected(plain(family, saved(family))(**inputs)), dim=-1) * 4
            torch.testing.assert_close(classifier.features(inputs), features, rtol=1e-4, atol=1e-5)


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
