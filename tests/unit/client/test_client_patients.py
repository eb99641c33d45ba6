"""Unit patient: one clip for all that a patient brings, in both engines, however it is laid out."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from services.client.training.device import Device
from services.client.training.dplora import Fused
from services.client.training.mechanism import Batch, Owners
from services.client.training.models import load
from services.client.training.opacus_engine import Hooked
from services.client.training.trainer import clipped_sums
from services.client.training.units import Patients
from tests.unit.client import tiny
from tests.unit.client.gradients import assert_close, clipped, norm, norms

FAMILIES = ("bert", "vit", "mobilenet")
FACTORS = ("A", "B", "AB", "")
WHOSE = np.array([0, 1, 0, 2, 1, 0, 0])  # four examples, two, and one, apart


def loop(classifier, factors, inputs, labels, owners):
    """Each patient's mean gradient by plain autograd through PEFT's own layers: the definition."""
    entries = classifier.activate("shared", factors)
    for unit in np.unique(owners):
        mine = torch.from_numpy(np.flatnonzero(owners == unit))
        logits = classifier({name: value[mine] for name, value in inputs.items()})
        yield torch.autograd.grad(nn.functional.cross_entropy(logits, labels[mine]), list(entries.values()))


def median(each):
    return float(norms(each).median())


def summed(engine, inputs, labels, owners, *, microbatch=64, without=None):
    """The engine's clipped sum over all patients, or all but one."""
    patients = Patients(owners, at_most=None, microbatch=microbatch)
    chosen = torch.tensor([unit for unit in range(len(patients)) if unit != without], dtype=torch.long)
    read = lambda rows: {name: value[rows] for name, value in inputs.items()}  # noqa: E731
    return clipped_sums(engine, read, labels, patients.lots(chosen, 0))


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("family", [*FAMILIES, "albert", "resnet"])
def test_fused_equals_a_loop_over_patients_in_fp64(saved, family, factors):
    classifier = tiny.build(family, saved(family)).double()
    inputs, labels = tiny.batch(classifier, family, len(WHOSE), dtype=torch.float64)
    each = list(loop(classifier, factors, inputs, labels, WHOSE))
    clip = median(each)
    with Fused(classifier, "shared", factors, clip) as engine:
        sums, loss = summed(engine, inputs, labels, WHOSE)
    assert_close(sums, clipped(each, clip), 1e-10)
    with torch.no_grad():
        losses = nn.functional.cross_entropy(classifier(inputs), labels, reduction="none")
    expected = sum(float(losses[unit == WHOSE].mean()) for unit in range(3))
    assert loss == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_engines_agree_in_fp32(saved, family, factors):
    classifier = tiny.build(family, saved(family))
    inputs, labels = tiny.batch(classifier, family, len(WHOSE))
    clip = median(list(loop(classifier, factors, inputs, labels, WHOSE)))
    found = []
    for kind in (Fused, Hooked):
        with kind(classifier, "shared", factors, clip) as engine:
            found.append(summed(engine, inputs, labels, WHOSE, microbatch=3))
    assert_close(found[0][0], found[1][0], 1e-5)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


@pytest.mark.parametrize(("kind", "dtype", "tolerance"), [(Fused, "float64", 1e-10), (Fused, "float32", 1e-5),
                                                          (Hooked, "float32", 1e-5)])  # fmt: skip
def test_a_patient_split_over_microbatches_gives_the_same_sum(saved, kind, dtype, tolerance):
    dtype = getattr(torch, dtype)
    classifier = tiny.build("bert", saved("bert")).to(dtype)
    inputs, labels = tiny.batch(classifier, "bert", len(WHOSE), dtype=dtype)
    with kind(classifier, "shared", "AB", 0.05) as engine:
        whole, loss = summed(engine, inputs, labels, WHOSE)
        for microbatch in (1, 2, 3, 5):
            sums, again = summed(engine, inputs, labels, WHOSE, microbatch=microbatch)
            assert_close(sums, whole, tolerance)
            assert again == pytest.approx(loss, rel=tolerance)


@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 1e-9), ("float32", 1e-5)])
@given(
    st.sampled_from(FACTORS),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.tuples(st.integers(0, 10**6), st.floats(1e-2, 10), st.integers(1, 8), st.floats(0.1, 10)),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_removing_one_patient_moves_the_sum_by_at_most_the_clip(  # noqa: PLR0917
    saved, dtype, rounding, factors, sizes, case
):
    seed, clip, microbatch, gain = case
    dtype = getattr(torch, dtype)
    classifier = tiny.build("vit", saved("vit")).to(dtype)
    tiny.randomise(classifier, seed)
    generator = torch.Generator().manual_seed(seed)
    owners = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    inputs = {
        "pixel_values": gain * torch.randn(len(owners), 3, tiny.SIDE, tiny.SIDE, generator=generator, dtype=dtype)
    }
    labels = torch.randint(3, (len(owners),), generator=generator)
    with Fused(classifier, "shared", factors, clip) as engine:
        whole, _ = summed(engine, inputs, labels, owners, microbatch=microbatch)
        for gone in range(len(sizes)):
            rest, _ = summed(engine, inputs, labels, owners, microbatch=microbatch, without=gone)
            change = norm([a - b for a, b in zip(whole, rest or [0.0] * len(whole), strict=True)])
            assert float(change) <= clip * (1 + rounding)


def test_more_examples_do_not_raise_a_patients_weight(saved):
    """The same example once or ten times: the mean is the same, and so is the sum."""
    classifier = tiny.build("vit", saved("vit")).double()
    inputs, labels = tiny.batch(classifier, "vit", 1, dtype=torch.float64)
    with Fused(classifier, "shared", "AB", 100.0) as engine:
        once, _ = engine.clipped_sum([Batch(inputs, labels)])
        often, _ = summed(
            engine, {name: value.expand(10, -1, -1, -1) for name, value in inputs.items()}, labels.expand(10),
            np.zeros(10, np.int64),
        )  # fmt: skip
    assert_close(often, once, 1e-10)


@pytest.mark.parametrize("kind", [Fused, Hooked])
def test_patients_of_one_example_are_records(saved, kind):
    classifier = tiny.build("bert", saved("bert"))
    inputs, labels = tiny.batch(classifier, "bert", 5)
    with kind(classifier, "shared", "AB", 0.05) as engine:
        records, loss = engine.clipped_sum([Batch(inputs, labels)])
        patients, same = engine.clipped_sum([Batch(inputs, labels, Owners(torch.arange(5), torch.ones(5).long()))])
    assert_close(patients, records, 1e-6)
    assert float(same) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("microbatch", [64, 2])
@pytest.mark.parametrize("kind", [Fused, Hooked])
def test_a_patient_whose_gradient_is_not_finite_counts_as_zero_and_the_others_as_ever(saved, kind, microbatch):
    classifier = tiny.build("vit", saved("vit"))
    inputs, labels = tiny.batch(classifier, "vit", len(WHOSE))
    broken = {"pixel_values": inputs["pixel_values"].clone()}
    broken["pixel_values"][4] = torch.inf  # one of two examples of patient 1
    with kind(classifier, "shared", "AB", 0.5) as engine:
        found, _ = summed(engine, broken, labels, WHOSE, microbatch=microbatch)
        expected, _ = summed(engine, inputs, labels, WHOSE, microbatch=microbatch, without=1)
    assert_close(found, expected, 1e-5)


def test_an_infinite_clip_gives_the_gradient_of_the_patients_mean_losses(saved):
    classifier = tiny.build("vit", saved("vit")).double()
    inputs, labels = tiny.batch(classifier, "vit", len(WHOSE), dtype=torch.float64)
    each = list(loop(classifier, "AB", inputs, labels, WHOSE))
    with Fused(classifier, "shared", "AB", float("inf")) as engine:
        sums, _ = summed(engine, inputs, labels, WHOSE, microbatch=2)
    assert_close(sums, [sum(parts) for parts in zip(*each, strict=True)], 1e-10)


def test_bf16_sums_are_fp32_and_no_patient_exceeds_the_clip(saved):
    classifier = load(saved("vit"), tiny.spec("vit"), device=Device("cpu", "bf16"))
    tiny.randomise(classifier)
    inputs, labels = tiny.batch(classifier, "vit", 6)
    with Fused(classifier, "shared", "AB", 0.01) as engine:
        sums, _ = summed(engine, inputs, labels, np.zeros(6, np.int64), microbatch=4)
    assert all(total.dtype == torch.float32 for total in sums)
    assert float(norm(sums)) == pytest.approx(0.01, rel=1e-3)
    assert float(norm(sums)) <= 0.01 * (1 + 1e-5)
