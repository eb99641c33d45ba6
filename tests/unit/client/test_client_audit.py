"""The audit finds the ways to break the mechanism that make it give away more, and nothing where none is broken."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.audit_faults import Partly, World, in_steps, on_tensors, partly
from deerfield.errors import InvalidInput
from deerfield.randomness import SystemRandomness
from deerfield.strategies import make
from services.client.auditing.audit import Request
from services.client.auditing.canaries import LOUD, Directions, Plant
from services.client.training.mechanism import Mechanism
from services.client.training.units import Records
from tests.unit.client import tiny


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_run_as_claimed_stays_below_its_claim(saved, unit):
    report = World(saved("bert"), unit).examine()
    print(report)
    assert report.claimed == pytest.approx(1.0, rel=0.005)
    assert report.bound <= report.claimed < report.ceiling
    assert not report.violation
    assert (report.steps, report.unit) == (16, unit)


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_missing_noise_is_a_clear_violation(saved, unit):
    report = World(saved("bert"), unit).examine(noise_multiplier=0.0)
    assert report.violation
    assert report.bound > 3
    assert report.correct == report.guesses  # nothing hides who was there


def test_a_quarter_of_the_noise_is_a_violation(saved):
    world = World(saved("bert"))
    report = world.examine(Request(canaries=1400), noise_multiplier=world.claim.noise_multiplier / 4)
    print(report)
    assert report.violation  # 12 of 12 measured, the least bound 1.25


def test_sampling_everyone_in_every_step_is_a_violation(saved):
    report = World(saved("bert")).examine(sample_rate=1.0)
    print(report)
    assert report.violation


def test_one_step_of_sixteen_without_noise_is_a_violation(saved):
    world = World(saved("bert"), noise=Partly(in_steps(lambda step: step != 5)))
    report = world.examine(Request(canaries=1400))
    print(report)
    assert world.noise.steps == 16
    assert report.violation  # 120 of 120 measured, the least bound 1.25


def test_every_other_tensor_without_noise_is_a_violation(saved):
    world = World(saved("bert"))
    report = partly(world, on_tensors(world, lambda number: number % 2 == 1))
    print(report)
    assert report.violation


def test_a_clip_ten_times_too_wide_is_a_violation(saved):
    """Canaries are ten clips long: with noise for one clip they would be seen if they were not clipped to it."""
    world = World(saved("bert"))
    wide = LOUD * world.claim.clip
    report = world.examine(clip=wide, noise_multiplier=world.claim.noise_multiplier / LOUD)
    print(report)
    assert report.violation


def test_canaries_pass_the_engines_own_clip_beside_the_sites_units(saved):
    """Without noise, what the optimizer is handed is the clipped sum of the units, plus one clip along each canary."""
    world = World(saved("bert"))
    plant = Plant(200, world.claim.clip)
    task = make(world.spec).plan(make(world.spec).init(_start(world)), "site")
    spend = replace(world.claim, noise_multiplier=0.0, sample_rate=1.0, steps=world.spec.steps(1))
    plain = tiny.trainer(
        world.classifier,
        "bert",
        world.spec,
        Mechanism(spend=spend, units_low=12, sampling=SystemRandomness(), noise=SystemRandomness()),
    )
    plain.engage, plain.grouped = plant.engage, plant.grouped
    with plant.watching(plain.mechanism.denominator):
        plain.load(task.start)
        plain.fit(epochs=1, factors="B")
    assert len(plant.seen) == spend.steps
    for seen, deviation in zip(plant.seen, plant.deviations, strict=True):
        np.testing.assert_allclose(seen, plant.coins, atol=1e-4)
        np.testing.assert_allclose(deviation, 1e-3)  # the least that an audit assumes


def test_directions_are_orthonormal_within_tensors_and_found_again():
    directions = Directions([201, 100], 150, np.random.default_rng(0))
    rows = directions.rows(np.arange(150))
    np.testing.assert_allclose(rows @ rows.T, np.eye(150), atol=1e-12)
    assert all(not row[:201].any() or not row[201:].any() for row in rows)
    noise = np.random.default_rng(1).standard_normal(301) * np.repeat([2.0, 0.1], [201, 100])
    along, deviation = directions.along(3 * rows[7] + noise)
    np.testing.assert_allclose(along, 3 * (np.arange(150) == 7) + rows @ noise, atol=1e-12)
    in_second = rows[:, 201:].any(1)
    np.testing.assert_allclose(deviation, np.where(in_second, 0.1, 2.0), rtol=0.25)


def test_a_step_draws_canaries_and_units_by_one_rule():
    plant = Plant(40, 1.0)
    joined = plant.grouped("record", np.arange(10), at_most=None, microbatch=4)
    assert len(joined) == 10 + plant.coins.sum()
    lots = list(joined.lots(torch.tensor([0, 3, 10, 12]), 0))
    assert [lot[0][0].tolist() for lot in lots] == [
        part[0][0].tolist() for part in Records(10, microbatch=4).lots(torch.tensor([0, 3]), 0)
    ]
    assert plant._sampled.tolist() == np.flatnonzero(plant.coins)[[0, 2]].tolist()
    assert list(joined.lots(torch.tensor([11]), 0)) == [()]
    assert list(joined.lots(torch.tensor([], dtype=torch.long), 0)) == []


@pytest.mark.parametrize(
    ("change", "request_", "advice"),
    [
        ({"privacy": {"unit": "none"}}, Request(), "unit 'none'"),
        ({"training": {"engine": "opacus"}}, Request(), "engine: fused"),
        ({}, Request(rounds=2), "1 to 1"),
        ({}, Request(canaries=5), "100 to"),
        ({}, Request(canaries=10**6), "half of its trained coordinates"),
    ],
)
def test_what_cannot_be_audited_is_refused(saved, change, request_, advice):
    world = World(saved("bert"))
    world.spec = type(world.spec).model_validate({**world.spec.model_dump(), **change})
    with pytest.raises(InvalidInput, match=advice):
        world.examine(request_)


def _start(world):
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in world.classifier.schema().items()}
