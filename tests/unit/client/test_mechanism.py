"""What is released of a sum: noise of the right size, on a grid that tells nothing of the sum's own digits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deerfield.randomness import SystemRandomness, grid
from deerfield.types import Spend
from services.client.training.mechanism import Mechanism


def mechanism(z: float, clip: float = 0.7) -> Mechanism:
    spend = Spend(unit="record", noise_multiplier=z, sample_rate=0.25, steps=1, clip=clip)
    return Mechanism(spend=spend, units_low=32, sampling=SystemRandomness(), noise=SystemRandomness())


@pytest.mark.parametrize("z", [0.3, 1.0, 5.5])
@pytest.mark.parametrize("value", [0.0, 1 / 3, 57.123456789, -1e-9])
def test_whatever_the_sum_is_the_release_is_on_one_grid(z, value):
    sums = [torch.full((500,), value, dtype=torch.float64)]
    (released,) = mechanism(z).release(sums)
    steps = released * 8.0 / grid(z * 0.7)  # 8 is the denominator, a power of two: nothing is rounded again
    assert torch.equal(steps, steps.round())
    assert released.std().item() == pytest.approx(z * 0.7 / 8, rel=0.2)


def test_without_noise_the_mean_is_the_mean():
    (released,) = mechanism(0.0).release([torch.tensor([1.0, 2.0])])
    assert torch.equal(released, torch.tensor([1.0, 2.0]) / 8)


@given(st.floats(1e-6, 1e6))
def test_the_grid_is_a_power_of_two_far_below_the_noise(deviation):
    step = grid(deviation)
    assert np.log2(step) == round(np.log2(step))
    assert 2.0**-21 < step / deviation <= 2.0**-20
