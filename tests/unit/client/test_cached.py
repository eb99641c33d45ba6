"""What is kept of a text is that text's alone; how a batch is cut is a matter of cost."""

import numpy as np
import torch

from services.client.sources.data import Examples
from services.client.training.cached import Cached, cut
from tests.unit.client import tiny

TEXTS = ["fever", "cough rash", "pain " * 12, "a photo of rash"]


def cached(classifier, texts, limit=1 << 20):
    return Cached(classifier, Examples(texts, np.zeros(len(texts), np.int64), np.arange(len(texts)).astype(str)),
                  limit_bytes=limit)  # fmt: skip


def test_removing_the_longest_text_changes_nothing_that_is_kept_of_the_others(saved):
    late = ("encoder.layer.2.attention.self.query",)
    classifier = tiny.build("bert", saved("bert"), lora={"rank": 2, "scale": 0.5, "targets": late})
    for limit in (1 << 20, 0):  # hidden states of the frozen layers, token ids
        whole, rest = cached(classifier, TEXTS, limit), cached(classifier, TEXTS[:2] + TEXTS[3:], limit)
        before, after = whole._read(torch.tensor([0, 1, 3])), rest._read(torch.arange(3))
        assert ("hidden" in before) == bool(limit)
        assert all(torch.equal(before[name], after[name]) for name in before)
        inputs = whole.inputs(torch.tensor([0, 1, 3])), rest.inputs(torch.arange(3))
        assert torch.equal(classifier.features(inputs[0]), classifier.features(inputs[1]))


def test_a_batch_is_cut_to_its_longest_text_and_gives_the_same_features(saved):
    classifier = tiny.build("bert", saved("bert"))
    data = cached(classifier, TEXTS)
    short = data.inputs(torch.tensor([0, 1]))
    assert {value.shape for value in short.values()} == {(2, 4)}  # [CLS] cough rash [SEP]
    whole = data._read(torch.tensor([0, 1]))
    assert whole["input_ids"].shape == (2, 32)
    torch.testing.assert_close(classifier.features(short), classifier.features(whole))


def test_texts_of_no_tokens_and_images_are_not_cut_to_nothing():
    nothing = {"input_ids": torch.zeros(2, 5), "attention_mask": torch.zeros(2, 5)}
    assert cut(nothing)["input_ids"].shape == (2, 1)
    assert cut({"pixel_values": torch.zeros(2, 3, 4, 4)})["pixel_values"].shape == (2, 3, 4, 4)
