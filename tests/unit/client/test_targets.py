"""Which layers of a base model are adapted, and which cannot be."""

import pytest
from torch import nn

from deerfield.errors import InvalidInput
from services.client.training.models import load
from services.client.training.targets import adaptable, matches, refuse_batch_mixing, select
from tests.unit.client import tiny


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
    base = tiny.plain("vit", saved("vit"))
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
