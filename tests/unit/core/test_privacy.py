from dataclasses import replace
from math import inf

import pytest

from deerfield.errors import InvalidInput
from deerfield.privacy import epsilon, noise_multiplier
from deerfield.types import Spend

DELTA = 1e-5
STEP = Spend(unit="record", noise_multiplier=2.2, sample_rate=1 / 8, steps=8, clip=1.0)


def test_nothing_spent_is_zero():
    assert epsilon([], DELTA) == 0
    assert epsilon([replace(STEP, steps=0)], DELTA) == 0


@pytest.mark.parametrize("unknown", [{"unit": "none"}, {"noise_multiplier": 0.0}])
def test_unprotected_spend_costs_infinity_whatever_stands_beside_it(unknown):
    assert epsilon([STEP, replace(STEP, **unknown)], DELTA) == inf


def test_a_run_costs_the_same_phase_by_phase_and_as_a_whole():
    whole = epsilon([replace(STEP, steps=128)], DELTA)
    assert epsilon([STEP] * 16, DELTA) == whole
    assert epsilon([replace(STEP, clip=7.0)] * 16, DELTA) == whole  # noise is counted in clips


def test_order_of_spends_does_not_matter_and_each_adds():
    other = replace(STEP, noise_multiplier=4.0, sample_rate=1.0, steps=2)
    assert epsilon([STEP, other], DELTA) == epsilon([other, STEP], DELTA)
    assert epsilon([STEP, other], DELTA) > max(epsilon([STEP], DELTA), epsilon([other], DELTA))


def test_one_full_batch_gaussian_is_the_analytic_value():
    """Balle and Wang 2018 (arXiv:1805.06530): at delta 1e-5 a standard deviation of 3.7304 gives epsilon 1."""
    full = Spend(unit="record", noise_multiplier=3.7304, sample_rate=1.0, steps=1, clip=1.0)
    assert epsilon([full], DELTA) == pytest.approx(1.0, rel=2e-3)


@pytest.mark.parametrize(("target", "expected"), [(1.0, 5.46), (3.0, 2.20), (8.0, 1.138)])
def test_calibration_of_the_default_run(target, expected):
    z = noise_multiplier(target, DELTA, 1 / 8, 128)
    assert z == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("target", [0.1, 0.5, 1.0, 3.0, 8.0, 10.0, 100.0])
@pytest.mark.parametrize(("sample_rate", "steps"), [(1 / 8, 128), (1.0, 10), (0.02, 1000)])
def test_calibration_never_exceeds_the_target_and_wastes_under_one_percent(target, sample_rate, steps):
    z = noise_multiplier(target, DELTA, sample_rate, steps)
    spent = epsilon([Spend(unit="record", noise_multiplier=z, sample_rate=sample_rate, steps=steps, clip=1.0)], DELTA)
    assert 0.99 * target <= spent <= target


@pytest.mark.filterwarnings("ignore:Optimal order")  # of the RDP that PRV takes its domain from
@pytest.mark.parametrize("target", [0.1, 0.3, 1.0, 3.0, 10.0])
def test_epsilon_agrees_with_opacus_prv_within_one_percent(target):
    """An independent accountant: Gopi et al. 2021 (arXiv:2106.02848) as Opacus implements it."""
    prv = pytest.importorskip("opacus.accountants.prv")
    z = noise_multiplier(target, DELTA, 1 / 8, 128)
    theirs = prv.PRVAccountant()
    theirs.history = [(z, 1 / 8, 128)]
    ours = epsilon([replace(STEP, noise_multiplier=z, steps=128)], DELTA)
    assert ours == pytest.approx(theirs.get_epsilon(DELTA, eps_error=target / 500), rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0},
        {"epsilon": -1.0},
        {"epsilon": inf},
        {"epsilon": float("nan")},
        {"delta": 0},
        {"delta": 1},
        {"sample_rate": 0},
        {"sample_rate": 1.5},
        {"steps": 0},
    ],
)
def test_calibration_refuses_what_no_noise_gives(wrong):
    right = {"epsilon": 1.0, "delta": DELTA, "sample_rate": 0.125, "steps": 8}
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        noise_multiplier(**(right | wrong))


@pytest.mark.parametrize("wrong", [{"noise_multiplier": -1.0}, {"sample_rate": 0.0}, {"steps": -1}])
def test_epsilon_refuses_spends_that_cannot_be(wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        epsilon([replace(STEP, **wrong)], DELTA)
