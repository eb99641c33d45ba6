"""The engine check: silent when all is well, loud about each thing that has gone wrong before."""

import pytest
import torch

from benchmarks.audit_faults import Apart
from deerfield.errors import EngineFault, InvalidInput
from deerfield.tensors import digest
from services.client.training.device import Device
from services.client.training.dplora import Fused
from services.client.training.engine_check import check_engine
from services.client.training.mechanism import Batch
from services.client.training.models import load
from tests.unit.client import tiny


@pytest.mark.parametrize("unit", ["record", "patient"])
@pytest.mark.parametrize("engine", ["fused", "opacus"])
@pytest.mark.parametrize("factors", ["A", "B", "AB", ""])
@pytest.mark.parametrize("family", ["bert", "vit", "clip", "mobilenet", "resnet"])
def test_a_sound_engine_passes_and_nothing_is_changed(saved, family, factors, engine, unit):
    run = tiny.spec(family, training={"engine": engine}, privacy={"unit": unit, "epsilon": 8.0})
    classifier = load(saved(family), run)
    tiny.randomise(classifier)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    state = torch.get_rng_state()
    check_engine(classifier, run, factors)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_it_passes_in_bf16_and_on_an_adapter_at_zero(saved):
    classifier = load(saved("vit"), tiny.spec("vit"), device=Device("cpu", "bf16"))
    check_engine(classifier, tiny.spec("vit"), "AB")
    assert not any(array.any() for array in classifier.read("shared").values())


def test_an_adapter_that_is_not_part_of_the_model_is_found(saved):
    classifier = load(saved("vit"), tiny.spec("vit"))
    for layer in classifier.layers().values():
        layer.enable_adapters(False)
    with pytest.raises(EngineFault, match="does not change the model's answers"):
        check_engine(classifier, tiny.spec("vit"), "B")


class Forgetful(Fused):
    """Clips every example of a patient, and none of the patients."""

    def clipped_sum(self, batches):
        found = [super(Forgetful, self).clipped_sum([Batch(batch.inputs, batch.labels)]) for batch in batches]
        return [sum(parts) for parts in zip(*(sums for sums, _ in found), strict=True)], sum(loss for _, loss in found)


def test_an_engine_that_clips_examples_where_patients_are_protected_is_found(saved):
    def engage(classifier, slot, factors, *, clip, kind):
        return Forgetful(classifier, slot, factors, clip)

    classifier = load(saved("vit"), tiny.spec("vit"))
    check_engine(classifier, tiny.spec("vit"), "B", engage=engage)
    with pytest.raises(EngineFault, match="off by"):
        check_engine(classifier, tiny.spec("vit", privacy={"unit": "patient", "epsilon": 8.0}), "B", engage=engage)


@pytest.mark.parametrize("factors", ["A", "B", "AB"])
def test_an_engine_that_clips_each_tensor_for_itself_is_found(saved, factors):
    classifier, run = load(saved("vit"), tiny.spec("vit")), tiny.spec("vit")
    with pytest.raises(EngineFault, match="off by"):
        check_engine(classifier, run, factors, engage=lambda c, s, f, *, clip, kind: Apart(c, s, f, clip))


@pytest.mark.parametrize("engine", ["fused", "opacus"])
def test_one_bypassed_layer_is_found_and_named(saved, engine):
    run = tiny.spec("vit", training={"engine": engine})
    classifier = load(saved("vit"), run)
    path, layer = next(iter(classifier.layers().items()))
    layer.enable_adapters(False)
    with pytest.raises(EngineFault, match=path):
        check_engine(classifier, run, "B")


def test_a_layer_that_scales_otherwise_than_it_says_is_found(saved):
    """PEFT's own layer is the reference: what it computes and what the fused engine merges must agree."""
    classifier = load(saved("vit"), tiny.spec("vit"))
    layer = next(iter(classifier.layers().values()))
    layer.lora_dropout["shared"] = torch.nn.Hardtanh(-0.01, 0.01)
    with pytest.raises(EngineFault, match="off by"):
        check_engine(classifier, tiny.spec("vit"), "B")


def test_a_dead_head_is_found_and_the_model_put_back(saved):
    classifier = tiny.build("vit", saved("vit"))
    before = digest(classifier.read("shared"))
    head = classifier.heads["shared"]
    vars(head)["forward"] = lambda features: features[:, :3]
    with pytest.raises(EngineFault, match=r"head\.weight"):
        check_engine(classifier, tiny.spec("vit"), "")
    assert digest(classifier.read("shared")) == before


def test_training_mode_and_an_empty_exchange_are_refused(saved):
    classifier = load(saved("mobilenet"), tiny.spec("mobilenet"))
    classifier.encoder.train()
    with pytest.raises(InvalidInput, match="training mode"):
        check_engine(classifier, tiny.spec("mobilenet"), "B")
    run = tiny.spec("clip", head={"kind": "prompt", "prompts": "a photo of {label}"})
    with pytest.raises(InvalidInput, match="nothing to train"):
        check_engine(load(saved("clip"), run), run, "")


def test_the_check_is_cheap_enough_for_every_phase(saved):
    classifier = load(saved("vit"), tiny.spec("vit"))
    seen = []
    handle = classifier.base.register_forward_hook(lambda *_: seen.append(1))
    check_engine(classifier, tiny.spec("vit"), "B")
    handle.remove()
    assert len(seen) <= 6
