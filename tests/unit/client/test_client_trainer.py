"""The trainer: what moves, what stays, where the noise lands, and what repeats."""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from deerfield.errors import BudgetExhausted, InvalidInput
from deerfield.randomness import SeededRandomness, SystemRandomness
from deerfield.tensors import digest, factor
from services.client.training.cached import LIMIT_BYTES, Cached
from services.client.training.models import load
from services.client.training.trainer import TorchTrainer
from tests.unit.client import tiny

FACTORS = ("A", "B", "AB", "")


@dataclass
class Ledger:
    """Randomness that hands out what it is told to and remembers what it was asked for."""

    uniforms: float = 0.0
    normals: float = 1.0
    asked: list = field(default_factory=list)

    def uniform(self, n):
        self.asked.append(n)
        return np.full(n, self.uniforms)

    def normal(self, n):
        self.asked.append(n)
        return np.full(n, self.normals)


def fitted(saved, family="vit", factors="B", *, engine="fused", microbatch=64, **mechanism):
    run = tiny.spec(family, training={"engine": engine, "microbatch": microbatch})
    classifier = load(saved(family), run)
    tiny.randomise(classifier)
    trainer = tiny.trainer(classifier, family, run, tiny.mechanism(**mechanism, steps=8))
    report = trainer.fit(epochs=1, factors=factors)
    return trainer, report


@pytest.mark.parametrize("engine", ["fused", "opacus"])
@pytest.mark.parametrize("factors", FACTORS)
def test_a_phase_moves_exactly_what_it_trains(saved, factors, engine):
    run = tiny.spec("vit", training={"engine": engine})
    classifier = load(saved("vit"), run)
    tiny.randomise(classifier)
    before = classifier.read("shared")
    base = {name: p.detach().clone() for name, p in classifier.named_parameters() if "lora" not in name}
    trainer = tiny.trainer(classifier, "vit", run, tiny.mechanism(noise=1.0, steps=8))
    trainer.fit(epochs=1, factors=factors)
    after = trainer.read()
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in after if factor(name) in (*factors, "head")} == set(trainer.read(factors=factors))
    for name, parameter in classifier.named_parameters():
        if name in base and not name.startswith("heads"):
            assert torch.equal(parameter, base[name])
            assert parameter.grad is None


def test_seeded_fits_are_equal_to_the_bit_and_system_fits_are_not(saved):
    def once(make):
        trainer, _ = fitted(saved, noise=1.0, sampling=make("sampling"), draws=make("noise"))
        return digest(trainer.read())

    assert once(SeededRandomness) == once(SeededRandomness)
    assert once(lambda _: SystemRandomness()) != once(lambda _: SystemRandomness())


def test_another_process_gets_the_same_bits(saved):
    trainer, _ = fitted(saved, "mobilenet", "AB", noise=0.5)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from tests.unit.client import test_client_trainer as t\n"
        "trainer, _ = t.fitted(lambda family: Path(sys.argv[1]), 'mobilenet', 'AB', noise=0.5)\n"
        "print(t.digest(trainer.read()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(saved("mobilenet"))], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == digest(trainer.read())


def test_training_leaves_the_global_generators_alone(saved):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1]
    fitted(saved, noise=1.0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("engine", ["fused", "opacus"])
def test_noise_is_added_once_on_every_active_coordinate_and_divided_by_the_public_count(saved, engine):
    """With the batch empty, one step is lr * z C / (q n_low), whatever the data."""
    run = tiny.spec("vit", training={"engine": engine, "lr_adapter": 0.5, "lr_head": 2.0, "momentum": 0.0})
    classifier = load(saved("vit"), run)
    draws = tiny.mechanism(noise=3.0, clip=0.5, q=1.0, units=6, steps=8, sampling=Ledger(uniforms=1.0), draws=Ledger())
    trainer = tiny.trainer(classifier, "vit", run, draws)
    before = trainer.read()
    report = trainer.fit(epochs=1, factors="A")
    for name, array in trainer.read().items():
        rate = {"A": 0.5, "B": 0.0, "head": 2.0}[factor(name)]
        np.testing.assert_allclose(before[name] - array, report.steps * rate * 3.0 * 0.5 / 6, rtol=1e-5)
    assert set(draws.noise.asked) == {sum(array.size for array in trainer.read(factors="A").values())}
    assert set(draws.sampling.asked) == {12}
    assert np.isnan(report.loss)


@pytest.mark.parametrize("engine", ["fused", "opacus"])
def test_a_step_over_patients_draws_patients_and_divides_by_their_public_count(saved, engine):
    """Noise of variance (z C / (q n_low))^2 on the active coordinates and none elsewhere, the batch being empty."""
    privacy = {"unit": "patient", "epsilon": 8.0, "sample_rate": 1.0}
    run = tiny.spec("vit", privacy=privacy, training={"engine": engine, "lr_adapter": 1, "lr_head": 1, "momentum": 0})
    classifier = load(saved("vit"), run)
    tiny.randomise(classifier)
    draws = tiny.mechanism(noise=3.0, clip=0.5, q=1.0, units=3, unit="patient", sampling=Ledger(uniforms=1.0))
    trainer = tiny.trainer(classifier, "vit", run, draws, each=4)
    before = trainer.read()
    assert trainer.fit(epochs=1, factors="A").steps == 1
    moved = {name: before[name] - array for name, array in trainer.read().items()}
    assert not any(change.any() for name, change in moved.items() if factor(name) == "B")
    noise = np.concatenate([change.ravel() for name, change in moved.items() if factor(name) != "B"])
    assert noise.std() == pytest.approx(3.0 * 0.5 / 3, rel=0.2)
    assert draws.sampling.asked == [3]  # three patients of four examples


def test_a_step_over_patients_is_the_mean_of_their_clipped_mean_gradients(saved):
    privacy = {"unit": "patient", "epsilon": 8.0, "sample_rate": 1.0}
    run = tiny.spec("vit", privacy=privacy, training={"lr_adapter": 1, "lr_head": 1, "momentum": 0, "microbatch": 3})
    classifier = load(saved("vit"), run)
    tiny.randomise(classifier)
    trainer = tiny.trainer(classifier, "vit", run, tiny.mechanism(clip=0.05, q=1.0, units=3, unit="patient"), each=4)
    before, inputs = trainer.read(factors="AB"), trainer.train.inputs(torch.arange(12))
    entries, expected = classifier.activate("shared", "AB"), 0
    for patient in range(3):
        mine = torch.arange(patient, 12, 3)
        logits = classifier({name: value[mine] for name, value in inputs.items()})
        loss = torch.nn.functional.cross_entropy(logits, trainer.train.labels[mine])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(entries.values()))])
        expected = expected + gradient * min(1, 0.05 / float(gradient.norm())) / 3
    trainer.fit(epochs=1)
    after = trainer.read(factors="AB")
    found = np.concatenate([(before[name] - after[name]).ravel() for name in entries])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_patients_take_turns_over_the_steps_of_a_run_and_not_of_a_task(saved):
    """One step a task: without the public number of the step, a task would begin each time with the same examples."""
    privacy = {"unit": "patient", "epsilon": 8.0, "sample_rate": 1.0, "examples_per_unit": 2}
    run, seen = tiny.spec("vit", privacy=privacy), []
    classifier = load(saved("vit"), run)
    for task in range(3):
        trainer = tiny.trainer(
            classifier, "vit", run, tiny.mechanism(q=1.0, unit="patient"), each=6, first_step=task, limit_bytes=0
        )
        read = trainer.train.inputs
        trainer.train.inputs = lambda chosen, read=read: (seen.append(chosen.tolist()), read(chosen))[1]
        trainer.fit(epochs=1, factors="B")
    assert seen == [[0, 2, 1, 3], [4, 6, 5, 7], [8, 10, 9, 11]]


def test_noise_has_the_variance_that_was_charged():
    total = [torch.zeros(100, 100), torch.zeros(7)]
    draws = tiny.mechanism(noise=2.0, clip=0.5, q=0.25, units=40, draws=SystemRandomness())
    found = torch.cat([part.flatten() for part in draws.release(total)]).numpy()
    assert found.std() == pytest.approx(2.0 * 0.5 / 10, rel=0.05)
    assert abs(found.mean()) < 5 * 0.1 / 100


def test_sampling_is_poisson_at_the_charged_rate():
    draws = tiny.mechanism(q=0.3, sampling=SystemRandomness())
    sizes = [len(draws.sample(1000)) for _ in range(200)]
    assert np.mean(sizes) == pytest.approx(300, abs=5)
    assert np.var(sizes) == pytest.approx(210, rel=0.4)


def test_an_infinite_clip_with_noise_is_refused():
    with pytest.raises(ValueError, match="finite clip"):
        tiny.mechanism(noise=1.0, clip=float("inf")).release([torch.zeros(2)])


def test_more_steps_than_were_charged_are_refused_before_any(saved):
    trainer, _ = fitted(saved)
    before = digest(trainer.read())
    with pytest.raises(BudgetExhausted, match="8 steps"):
        trainer.fit(epochs=1, factors="A")
    assert digest(trainer.read()) == before


def test_a_fit_starts_without_momentum(saved):
    """Two fits of one epoch differ from one fit of two, and each repeats."""
    run = tiny.spec("vit")
    classifier = load(saved("vit"), run)
    ends = []
    for plan in ((1, 1), (2,)):
        classifier.load("shared", {name: np.zeros(shape, np.float32) for name, shape in classifier.schema().items()})
        tiny.randomise(classifier)
        trainer = tiny.trainer(classifier, "vit", run, tiny.mechanism(q=1.0, steps=16))
        for epochs in plan:
            trainer.fit(epochs=epochs)
        ends.append(trainer.read())
    assert digest(ends[0]) != digest(ends[1])


def peak_bytes(saved, engine, count, microbatch):
    """The most that the allocator held at once of what a fit on logical batches of `count` examples asked it for."""
    run = tiny.spec("vit", training={"engine": engine, "microbatch": microbatch})
    classifier = load(saved("vit"), run)
    tiny.randomise(classifier)
    data = Cached(classifier, tiny.examples("vit", count))
    draws = tiny.mechanism(q=1.0, steps=run.steps(2), units=count)
    trainer = TorchTrainer(classifier=classifier, train=data, validation=None, spec=run, mechanism=draws)
    trainer.fit(epochs=1)  # what is made once is made now
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        trainer.fit(epochs=1)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("engine", ["fused", "opacus"])
def test_memory_grows_with_the_microbatch_and_not_with_the_logical_batch(saved, engine):
    few, many = peak_bytes(saved, engine, 16, 8), peak_bytes(saved, engine, 64, 8)
    assert many < 1.05 * few  # an index and a uniform number for each example
    assert peak_bytes(saved, engine, 64, 64) > 4 * few


def test_microbatches_do_not_change_the_result(saved):
    ends = [fitted(saved, "bert", "AB", microbatch=size, q=1.0)[0].read() for size in (12, 5)]
    for name, array in ends[0].items():
        np.testing.assert_allclose(array, ends[1][name], atol=1e-5)


def test_both_engines_train_the_same(saved):
    ends = [fitted(saved, "mobilenet", "AB", engine=name, q=1.0)[0].read() for name in ("fused", "opacus")]
    for name, array in ends[0].items():
        np.testing.assert_allclose(array, ends[1][name], atol=1e-4)


def test_training_learns(saved):
    run = tiny.spec("vit", privacy={"unit": "none", "clip": None}, training={"lr_adapter": 0.05, "lr_head": 0.05})
    classifier = load(saved("vit"), run)
    tiny.randomise(classifier)
    trainer = tiny.trainer(classifier, "vit", run, tiny.mechanism(clip=float("inf"), q=1.0, steps=160))
    first = trainer.fit(epochs=1, factors="AB").loss
    for _ in range(18):
        trainer.fit(epochs=1, factors="AB")
    assert trainer.fit(epochs=1, factors="AB").loss < 0.5 * first
    scores = trainer.score(split="train")
    assert (scores.probabilities.argmax(1) == scores.labels).mean() > 0.8
    assert len(trainer.reports) == 20


@pytest.mark.parametrize("family", ["bert", "mobilenet"])
def test_scores_are_probabilities_of_the_whole_model(saved, family):
    trainer, _ = fitted(saved, family)
    scores = trainer.score()
    inputs, labels = tiny.batch(trainer.classifier, family, 12)
    with torch.no_grad():
        expected = trainer.classifier(inputs).double().softmax(-1).numpy()
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(scores.probabilities.sum(1), 1.0)
    assert np.array_equal(scores.labels, labels)
    with pytest.raises(InvalidInput, match="split 'test'"):
        trainer.score(split="test")
    with pytest.raises(InvalidInput, match="validation"):
        replace(trainer, validation=None).score()


def test_features_are_computed_again_when_the_adapter_changes_and_only_then(saved):
    classifier = tiny.build("vit", saved("vit"))
    data = Cached(classifier, tiny.examples("vit"))
    first = data.features("shared")
    classifier.load("shared", {"head.bias": np.ones(3, np.float32)})
    assert data.features("shared") is first
    tiny.randomise(classifier, seed=9)
    assert not torch.allclose(data.features("shared"), first)


@pytest.mark.parametrize("family", ["vit", "bert", "dinov2", "clip_vision", "clip", "dual", "mobilenet"])
def test_training_behind_a_frozen_prefix_equals_training_on_raw_inputs(saved, family):
    targets = {"mobilenet": ["layer.14*1x1.convolution"]}.get(family, ["*.2.*q_proj", "*.2.*query"])
    run = tiny.spec(family, lora={"rank": 2, "scale": 0.5, "targets": targets})
    ends = []
    for limit in (LIMIT_BYTES, 0):
        classifier = load(saved(family), run)
        tiny.randomise(classifier)
        assert classifier.prefix is not None
        trainer = tiny.trainer(classifier, family, run, tiny.mechanism(q=0.5, steps=8), limit_bytes=limit)
        assert ("hidden" in trainer.train.inputs(torch.arange(2))) == (limit > 0)
        trainer.fit(epochs=1, factors="AB")
        ends.append((trainer.read(), trainer.score().probabilities))
    np.testing.assert_allclose(ends[1][1], ends[0][1], atol=1e-5)
    for name, array in ends[1][0].items():
        np.testing.assert_allclose(array, ends[0][0][name], atol=1e-5)


def test_a_site_without_examples_still_takes_its_noisy_steps(saved):
    run = tiny.spec("vit")
    classifier = load(saved("vit"), run)
    trainer = tiny.trainer(classifier, "vit", run, tiny.mechanism(noise=1.0, steps=8))
    empty = Cached(classifier, tiny.examples("vit", 0))
    before = digest(trainer.read())
    assert replace(trainer, train=empty, validation=empty).fit(epochs=1).steps == 8
    assert digest(trainer.read()) != before


def test_progress_is_reported_at_every_step(saved):
    run = tiny.spec("vit")
    seen = []
    classifier = load(saved("vit"), run)
    data = tiny.mechanism(steps=8)
    trainer = tiny.trainer(classifier, "vit", run, data, on_step=lambda done, of: seen.append((done, of)))
    trainer.fit(epochs=1)
    assert seen == [(i, 8) for i in range(1, 9)]
